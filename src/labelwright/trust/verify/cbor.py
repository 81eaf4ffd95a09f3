"""CBOR, strictly: one spelling a value (RFC 8949, 4.2.1 but for the order of keys), so that no bit of a token is free."""

from __future__ import annotations

from typing import Any, NamedTuple

from labelwright.errors import EvidenceError
from labelwright.trust.verify.quote import Reader

DEPTH = 16


class Tagged(NamedTuple):
    """A tagged value."""

    tag: int
    value: Any


def decode(data: bytes, what: str) -> Any:
    """The one value that ``data`` holds: int, bytes, str, list, dict, bool, None or Tagged. Raises EvidenceError.

    >>> decode(bytes.fromhex("a10a4101"), "the token")
    {10: b'\\x01'}
    """
    reader = Reader(data, what, "big")
    try:
        value = _value(reader, what, 0)
    except UnicodeDecodeError as error:
        raise EvidenceError(f"{what} holds a text that is not UTF-8") from error
    if reader.rest():
        raise EvidenceError(f"bytes lie behind {what}; was something appended?")
    return value


def _value(reader: Reader, what: str, depth: int) -> Any:
    if depth > DEPTH:
        raise EvidenceError(f"{what} is nested deeper than {DEPTH}")
    first = reader.number(1)
    major, number = first >> 5, _argument(reader, first & 31, what)
    if major == 0:
        return number
    if major == 1:
        return -1 - number
    if major == 2:
        return reader.take(number)
    if major == 3:
        return reader.take(number).decode()
    if major == 4:
        return [_value(reader, what, depth + 1) for _ in range(number)]
    if major == 5:
        return _map(reader, number, what, depth)
    if major == 6:
        return Tagged(number, _value(reader, what, depth + 1))
    if first & 31 in (20, 21, 22):
        return {20: False, 21: True, 22: None}[first & 31]
    raise EvidenceError(f"{what} holds a simple or floating-point value, which no token needs")


def _argument(reader: Reader, low: int, what: str) -> int:
    if low < 24:
        return low
    if low > 27:
        raise EvidenceError(f"{what} has a length that is left open, or a reserved one; expected definite lengths")
    number = reader.number(1 << (low - 24))
    if number < (24, 1 << 8, 1 << 16, 1 << 32)[low - 24]:
        raise EvidenceError(f"{what} spells a number longer than need be; expected the shortest form")
    return number


def _map(reader: Reader, count: int, what: str, depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for _ in range(count):
        key = _value(reader, what, depth + 1)
        if isinstance(key, bool) or not isinstance(key, (int, str)) or key in found:
            raise EvidenceError(f"{what} has a key that is repeated, or neither number nor text")
        found[key] = _value(reader, what, depth + 1)
    return found
