"""What can go wrong, as a tree. Every message says what was got, what was expected and what to do.

::

    LabelwrightError
    ├── SettingsError       the arguments contradict each other, or the state folder was made by other settings
    │   └── TooLargeError   the memory of the device does not hold what the settings ask for
    ├── DataError           the data cannot be used as a whole
    │   ├── SourceError     a file or folder cannot be read
    │   ├── BadRowError     one row is bad and ``strict`` was asked for
    │   └── TooFewRowsError too few rows per class to judge labels without clean ones
    ├── LedgerError         the ledger cannot be written or read
    │   ├── TamperedError   the hash chain does not hold
    │   └── BusyError       another process is writing to the same state folder
    ├── BudgetError         more was asked than the budget allows
    ├── ScaleError          a partition failed on its worker, or there are no workers to be had
    └── TrustError          something that must be trusted cannot be
        ├── EvidenceError   a quote, report or token is malformed: it proves nothing
        ├── RefusedError    the evidence is sound, but the policy, the broker or the sandbox says no
        └── SealError       a sealed chunk, manifest or model is not the one that was sealed

The command line turns each of these into one sentence and exit code 2.
"""


class LabelwrightError(Exception):
    """Base of every error that labelwright raises on purpose."""


class SettingsError(LabelwrightError, ValueError):
    """The arguments contradict each other, or the state folder was made by other settings."""


class TooLargeError(SettingsError):
    """The memory of the device does not hold what the settings ask for."""


class DataError(LabelwrightError, ValueError):
    """The data cannot be used as a whole."""


class SourceError(DataError):
    """A file or folder cannot be read."""


class BadRowError(DataError):
    """One row is bad and ``strict`` was asked for."""


class TooFewRowsError(DataError):
    """Too few rows per class to judge labels without clean ones."""


class LedgerError(LabelwrightError):
    """The ledger cannot be written or read."""


class TamperedError(LedgerError):
    """The hash chain does not hold."""


class BusyError(LedgerError):
    """Another process is writing to the same state folder."""


class BudgetError(LabelwrightError):
    """More was asked than the budget allows."""


class ScaleError(LabelwrightError):
    """A partition failed on its worker, or there are no workers to be had."""


class TrustError(LabelwrightError):
    """Something that must be trusted cannot be."""


class EvidenceError(TrustError, ValueError):
    """A quote, report or token is malformed: it proves nothing."""


class RefusedError(TrustError):
    """The evidence is sound, but the policy, the broker or the sandbox says no."""


class SealError(TrustError, ValueError):
    """A sealed chunk, manifest or model is not the one that was sealed."""
