"""TOML of any hand: what Python's own reader lets through, or ends with another error, is told in one sentence."""

from __future__ import annotations

import tomllib
from typing import Any

from labelwright.errors import SettingsError

_MOST_DOTS = 64
_MOST = 1 << 63  # the specification's whole numbers have 64 bits


def tables_of(text: str, what: str, hint: str = "") -> dict[str, Any]:
    """The tables of ``text``. what: its name in a sentence. Raises SettingsError when it is no TOML.

    >>> tables_of("[a]\\nb = 1", "the file")
    {'a': {'b': 1}}
    >>> tables_of("a = 0x" + "f" * 5000, "the file")
    Traceback (most recent call last):
    ...
    labelwright.errors.SettingsError: the file is not valid TOML: a whole number of more than 64 bits
    """
    try:
        if any(line.count(".") > _MOST_DOTS for line in text.splitlines() if not line.lstrip().startswith("#")):
            raise ValueError(
                f"a line has more than {_MOST_DOTS} dots"
            )  # Python's reader is quadratic in a name's parts
        tables = tomllib.loads(text)
        if _too_large(tables):
            raise ValueError("a whole number of more than 64 bits")
    except (ValueError, RecursionError) as error:  # Python reads no number of more than 4,300 digits
        raise SettingsError(f"{what} is not valid TOML: {str(error)[:120]}{hint}") from error
    return tables


def _too_large(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_too_large, value.values()))
    if isinstance(value, list):
        return any(map(_too_large, value))
    return isinstance(value, int) and not -_MOST <= value < _MOST
