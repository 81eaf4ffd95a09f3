"""Avro messages, read by a schema in a file (Avro specification 1.11: binary encoding, single-object encoding, fingerprints).

A reader of its own: it takes bytes from anyone, never allocates more than the message can hold, and needs no package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labelwright.errors import SettingsError
from labelwright.streams.message import MessageError, Parse

_EMPTY = 0xC15D213AA4D7A795
_MOST_EMPTY = 1_000_000
"""Items that take no bytes (nulls) that the lists of one message may have together."""


class _Bytes:
    """A message and how far it was read."""

    __slots__ = ("at", "data", "items")

    def __init__(self, data: bytes, at: int = 0):
        self.data, self.at, self.items = data, at, 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise MessageError("not Avro of this schema (it ends too soon)")
        out = self.data[self.at : end]
        self.at = end
        return out

    def long(self) -> int:
        data, at, shift, value = self.data, self.at, 0, 0
        while True:
            if at >= len(data) or shift > 63:
                raise MessageError("not Avro of this schema (a number does not end)")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        self.at = at
        return (value >> 1) ^ -(value & 1)


Read = Callable[[_Bytes], Any]


def reader(schema: Any) -> Parse:
    """How messages of an Avro schema (as parsed from JSON) are read.

    The example is the specification's: a long 27 and the string "foo".

    >>> fields = [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]
    >>> reader({"type": "record", "name": "test", "fields": fields})(bytes.fromhex("3606666f6f"))
    {'a': 27, 'b': 'foo'}
    """
    read = _reader(schema, {}, "")

    def parse(data: bytes) -> Any:
        held = _Bytes(data)
        try:
            value = read(held)
        except RecursionError as error:
            raise MessageError("nested too deeply") from error
        except UnicodeDecodeError as error:
            raise MessageError("not Avro of this schema (text that is not UTF-8)") from error
        if held.at != len(data):
            raise MessageError(f"not Avro of this schema ({len(data) - held.at} bytes are left over)")
        return value

    return parse


def _boolean(data: _Bytes) -> bool:
    value = data.take(1)[0]
    if value > 1:
        raise MessageError("not Avro of this schema (neither true nor false)")
    return value == 1


_PRIMITIVES: dict[str, Read] = {
    "null": lambda data: None,
    "boolean": _boolean,
    "int": _Bytes.long,
    "long": _Bytes.long,
    "float": lambda data: struct.unpack("<f", data.take(4))[0],
    "double": lambda data: struct.unpack("<d", data.take(8))[0],
    "bytes": lambda data: data.take(data.long()),
    "string": lambda data: data.take(data.long()).decode(),
}


def _reader(schema: Any, named: dict[str, Read], space: str) -> Read:
    """Compile a schema to one function. named: types that have a name so far, in full."""
    if isinstance(schema, list):
        return _union([_reader(branch, named, space) for branch in schema])
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return _PRIMITIVES[schema]
        full = _full(schema, space)
        if full not in named and schema not in named:
            raise SettingsError(
                f"the Avro schema names a type {schema!r} that it does not define; define it before its use"
            )
        key = full if full in named else schema
        return lambda data: named[key](data)  # looked up late: a record may hold itself
    if not isinstance(schema, dict) or "type" not in schema:
        raise SettingsError(f"the Avro schema holds {schema!r}, expected a type")
    kind = schema["type"]
    if kind == "array":
        return _blocks(_reader(schema["items"], named, space), keyed=False)
    if kind == "map":
        return _blocks(_reader(schema["values"], named, space), keyed=True)
    if kind in ("record", "error", "enum", "fixed"):
        return _with_name(schema, kind, named, space)
    return _reader(kind, named, space)


def _full(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"


def _with_name(schema: dict[str, Any], kind: str, named: dict[str, Read], space: str) -> Read:
    full = _full(schema["name"], schema.get("namespace", space))
    if kind == "fixed":
        size = int(schema["size"])
        named[full] = lambda data: data.take(size)
    elif kind == "enum":
        symbols = list(schema["symbols"])

        def choose(data: _Bytes) -> str:
            at = data.long()
            if not 0 <= at < len(symbols):
                raise MessageError(f"not Avro of this schema (symbol {at} of {len(symbols)})")
            return str(symbols[at])

        named[full] = choose
    else:
        fields: list[tuple[str, Read]] = []
        named[full] = lambda data: {name: read(data) for name, read in fields}
        inner = full.rpartition(".")[0]
        fields += [(field["name"], _reader(field["type"], named, inner)) for field in schema["fields"]]
    return named[full]


def _union(branches: list[Read]) -> Read:
    def read(data: _Bytes) -> Any:
        at = data.long()
        if not 0 <= at < len(branches):
            raise MessageError(f"not Avro of this schema (branch {at} of {len(branches)})")
        return branches[at](data)

    return read


def _blocks(item: Read, *, keyed: bool) -> Read:
    """Arrays and maps come in blocks; a negative count is followed by the block's size in bytes."""

    def read(data: _Bytes) -> Any:
        values: list[Any] = []
        pairs: dict[str, Any] = {}
        while count := data.long():
            if count < 0:
                count = -count
                data.long()
            data.items += count
            if data.items > len(data.data) + _MOST_EMPTY:
                raise MessageError(f"not Avro of this schema (a list of {count} items)")
            for _ in range(count):
                if keyed:
                    name = data.take(data.long()).decode()
                    pairs[name] = item(data)
                else:
                    values.append(item(data))
        return pairs if keyed else values

    return read


# ------------------------------------------------------------ which schema a message is of


def canonical(schema: Any, space: str = "") -> str:
    """The parsing canonical form of a schema.

    >>> canonical({"type": "string", "doc": "a name"})
    '"string"'
    """
    if isinstance(schema, str):
        return json.dumps(schema if schema in _PRIMITIVES else _full(schema, space))
    if isinstance(schema, list):
        return "[" + ",".join(canonical(branch, space) for branch in schema) + "]"
    kind = schema["type"]
    if not isinstance(kind, str) or kind not in ("record", "error", "enum", "fixed", "array", "map"):
        return canonical(kind, space)
    parts = []
    if "name" in schema:
        full = _full(schema["name"], schema.get("namespace", space))
        space = full.rpartition(".")[0]
        parts.append(f'"name":{json.dumps(full)}')
    parts.append(f'"type":{json.dumps(kind)}')
    if "fields" in schema:
        fields = (f'{{"name":{json.dumps(f["name"])},"type":{canonical(f["type"], space)}}}' for f in schema["fields"])
        parts.append('"fields":[' + ",".join(fields) + "]")
    if kind == "enum":
        parts.append('"symbols":' + json.dumps(schema["symbols"], separators=(",", ":")))
    parts += [f'"{name}":{canonical(schema[name], space)}' for name in ("items", "values") if name in schema]
    if kind == "fixed":
        parts.append(f'"size":{int(schema["size"])}')
    return "{" + ",".join(parts) + "}"


def _table() -> list[int]:
    out = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY & -(value & 1))
        out.append(value)
    return out


def fingerprint(schema: Any) -> int:
    """CRC-64-AVRO of a schema's canonical form; the example is of the specification's own test suite.

    >>> hex(fingerprint("null"))
    '0x63dd24e7cc258f8a'
    """
    table, value = _table(), _EMPTY
    for byte in canonical(schema).encode():
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value


def parser(form: str, schemas: list[str]) -> Parse:
    """How messages of a format are read. form: ``avro`` (bare, one schema), ``avro-single`` (C3 01, the schema's fingerprint)
    or ``avro-confluent`` (00, the schema's number). schemas: files, with ``NUMBER:`` before them for the last.

    Raises SettingsError when a schema is missing or is none.
    """
    held = [_load(text) for text in schemas]
    if not held or (form == "avro" and len(held) != 1):
        raise SettingsError(
            f"the format {form} got {len(held)} schemas; give ?schema=FILE.avsc" + (", one" if form == "avro" else "")
        )
    if form == "avro":
        return reader(held[0][1])
    if form == "avro-single":
        by_print = {struct.pack("<Q", fingerprint(schema)): reader(schema) for _, schema in held}
        return lambda data: _framed(data, b"\xc3\x01", 8, by_print, "fingerprint")
    if any(number is None for number, _ in held):
        raise SettingsError("avro-confluent needs each schema's number in the registry; give ?schema=7:FILE.avsc")
    by_number = {struct.pack(">I", number): reader(schema) for number, schema in held}
    return lambda data: _framed(data, b"\x00", 4, by_number, "number")


def _framed(data: bytes, start: bytes, size: int, readers: dict[bytes, Parse], what: str) -> Any:
    key, body = data[len(start) : len(start) + size], data[len(start) + size :]
    if not data.startswith(start) or key not in readers:
        raise MessageError(f"not Avro with a known schema's {what} (it begins with {data[: len(start) + size].hex()})")
    return readers[key](body)


def _load(text: str) -> tuple[int | None, Any]:
    number, sign, path = text.partition(":")
    if not sign or not number.isdigit():
        number, path = "", text
    try:
        schema = json.loads(Path(path).read_text())
        reader(schema)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{path} cannot be used as an Avro schema ({error}); give a .avsc file") from error
    return (int(number) if number else None), schema


__all__ = ["canonical", "fingerprint", "parser", "reader"]
