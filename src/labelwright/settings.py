"""What decides a run, and where it keeps its state."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labelwright import queries
from labelwright.errors import BusyError, LedgerError, SettingsError
from labelwright.ledger import History
from labelwright.ledger.schema import open_engine
from labelwright.selection import NoSelection, QualityOnly, RadDuo, Slim
from labelwright.streams import Columns

SELECTORS = {"rad-duo": RadDuo, "quality-only": QualityOnly, "slim": Slim, "none": NoSelection}
MEASURES = {
    "margin": queries.margin,
    "least-distance": queries.least_distance,
    "entropy": queries.entropy,
    "cent": queries.cent,
}


LATER = {"overlap": 1, "poison": "alarm", "watch_sources": False}
"""Settings that came after the first ledgers, with their defaults."""
POISON = ("off", "alarm", "quarantine")
"""What a run does against planted labels: nothing, say so, or set what an alarm names apart."""
PEOPLE = ("people", "file")
"""Names of the expert that stands for people; ledgers of earlier versions say "file"."""


@dataclass(frozen=True)
class Settings:
    """What decides a run. The ledger remembers it, and refuses to go on with other settings."""

    columns: Columns
    batch_size: int = 1000
    first_batch: int | None = None
    clean_rows: int = 0
    classes: tuple[str, ...] | None = None
    selector: str = "rad-duo"
    quality: str = "auto"
    classifier: str = "auto"
    budget: int = 0
    budget_total: int | None = None
    dynamic: bool = False
    expected_batches: int = 20
    measure: str = "margin"
    expert: str = "people"
    error_rate: float = 0.1
    cost: float = 1.0
    buffer: int = 1000
    correct: float | None = 0.95
    max_rows: int = 20_000
    seed: int = 0
    overlap: int = 1
    poison: str = "alarm"
    watch_sources: bool = False

    def noted(self) -> dict[str, Any]:
        """As JSON values. What older ledgers do not know is left out while it has its default, so that they go on."""
        told = dict(json.loads(json.dumps(asdict(self))))
        return {name: value for name, value in told.items() if name not in LATER or value != LATER[name]}

    @staticmethod
    def of(noted: Mapping[str, Any]) -> Settings:
        """Settings from :meth:`noted`."""
        columns = {**noted["columns"], "drop": tuple(noted["columns"]["drop"])}
        classes = noted["classes"]
        return Settings(**{**noted, "columns": Columns(**columns), "classes": tuple(classes) if classes else None})


NETWORKS = {
    "network": "auto",
    "network-small": "compact-small",
    "resnet20": "resnet20",
    "resnet44": "resnet44",
    "vgg6": "vgg6",
    "cnn12": "cnn12",
}


def resolved(name: str, shape: tuple[int, int, int] | None, *, judging: bool = False) -> str:
    """What "auto" stands for: networks for pictures where torch is installed, the small one to judge labels; else trees,
    and a linear model to judge.

    shape: (height, width, channels) when the rows are pictures and nothing else.

    >>> resolved("auto", None, judging=True), resolved("svm", (32, 32, 3))
    ('linear', 'svm')
    """
    if name != "auto":
        return name
    if shape is not None and min(shape[:2]) >= 8 and find_spec("torch") and find_spec("safetensors"):
        return "network-small" if judging else "network"
    return "linear" if judging else "auto"


def make_classifier(name: str, seed: int, shape: tuple[int, int, int] | None = None) -> Any:
    """A scikit-learn classifier by its name on the command line. shape: of the pictures that the rows are, for networks.

    Raises SettingsError for an unknown name, or a network without torch.
    """
    if name in NETWORKS:
        return _network(name, seed, shape)
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.naive_bayes import GaussianNB

    from labelwright.learners.kernel import OneVsRestSVC

    makers: dict[str, Callable[[], Any]] = {
        "auto": lambda: ExtraTreesClassifier(200, min_samples_leaf=2, n_jobs=1, random_state=seed),
        "linear": lambda: LogisticRegression(C=1.0, max_iter=300, random_state=seed),
        "sgd": lambda: SGDClassifier(loss="log_loss", average=True, random_state=seed),
        "forest": lambda: RandomForestClassifier(200, min_samples_leaf=2, random_state=seed),
        "boosted": lambda: HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=seed),
        "bayes": lambda: GaussianNB(),
        "svm": lambda: OneVsRestSVC(),
    }
    if name not in makers:
        raise SettingsError(f"the classifier {name!r} is unknown; expected one of {', '.join([*makers, *NETWORKS])}")
    return makers[name]()


def _network(name: str, seed: int, shape: tuple[int, int, int] | None) -> Any:
    if not (find_spec("torch") and find_spec("safetensors")):
        raise SettingsError(f"the classifier {name!r} needs torch; run: pip install 'labelwright[torch]'")
    from labelwright.learners.torch_classifier import TorchClassifier

    augment = "crop2" if shape else "none"  # no flips: digits, letters and signs would turn into others
    return TorchClassifier(NETWORKS[name], image_shape=shape, augment=augment, random_state=seed)


class StateFolder:
    """A folder that one process at a time may write to: ``ledger.db``, and what the program leaves for people.

    ledger_url: another place for the ledger, e.g. PostgreSQL.
    """

    def __init__(self, path: str | Path, *, ledger_url: str | None = None):
        self.path = Path(path)
        self.url = ledger_url or f"sqlite:///{self.path / 'ledger.db'}"
        self._lock: Any = None

    def claim(self) -> None:
        """Take the folder. Raises LedgerError when it is not writable, BusyError when another process has it."""
        if self._lock is not None:
            raise BusyError(f"this process writes to {self.path} already; wait for it")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise LedgerError(
                f"the state folder {self.path} cannot be written ({error.strerror}); make it writable or choose another with --state"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise BusyError(
                f"another labelwright writes to {self.path}; wait for it, or choose another --state"
            ) from error

    def release(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def history(self) -> History:
        """The ledger, read-only. Raises LedgerError when there is none."""
        return History(self.history_engine())

    def expected_batches(self, rows: int | None, batch_size: int) -> int:
        """How many batches a dynamic budget is to last: as the ledger has it, else those of the source (20 if unknown)."""
        try:
            return int(self.history().settings["expected_batches"])
        except (LedgerError, KeyError):
            return max(1, -(-rows // batch_size)) if rows else 20

    def history_engine(self) -> Any:
        """The ledger's database, unread. Raises LedgerError when there is none."""
        if self.url.startswith("sqlite:///") and not Path(self.url.removeprefix("sqlite:///")).exists():
            raise LedgerError(
                f"there is no ledger in {self.path}; run 'labelwright run' first, or give the right --state"
            )
        return open_engine(self.url)
