"""The label history: who decided what about each row, when and why. Append-only and hash-chained; the only SQL."""

from labelwright.ledger.change import erase_rows, revert
from labelwright.ledger.history import History, Records
from labelwright.ledger.sql import SqlLedger
from labelwright.ledger.verify import Finding, verify

__all__ = ["Finding", "History", "Records", "SqlLedger", "erase_rows", "revert", "verify"]
