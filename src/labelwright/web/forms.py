"""What forms and addresses say, read with care."""

from __future__ import annotations

from labelwright.errors import DataError


def row_key(text: str) -> int:
    """A row's key out of a form. Raises DataError when it is none."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) >= 2**63:
        raise DataError("the form names no row; load the page again")
    return int(text)


def count_of(text: str) -> int:
    """A small number out of an address; 0 when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


def seconds_since(shown: str | None, now: float) -> float | None:
    """Seconds since a form was made; None when that cannot be or is above an hour.

    >>> seconds_since("10.5", 12.0), seconds_since("nan", 12.0), seconds_since("99", 12.0)
    (1.5, None, None)
    """
    try:
        passed = now - float(shown or "nan")
    except ValueError:
        return None
    return round(passed, 2) if 0 <= passed <= 3600 else None
