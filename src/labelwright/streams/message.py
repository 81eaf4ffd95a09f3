"""The message format: one labelled row, as JSON or Avro.

===========  =============================================================================================
id           text or a whole number; names the row: the same id with the same content counts once
label        text, number or true/false: the given label, maybe wrong
source       optional, text or a whole number: who or what gave the label
features     an object of numbers, texts, true/false, nulls and lists of numbers, or one list of numbers
image        instead of features or beside them: an encoded picture (PNG, JPEG, ...), in JSON as base64
===========  =============================================================================================

Other fields are ignored. A message becomes a row of the columns ``id``, ``label``, ``source``, a column per feature (``x`` for
one list) and ``image``. JSON knows one kind of number, so numbers are float64 there and in Avro.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from labelwright.streams.intake import Bad

ENVELOPE = ("id", "label", "source")
MOST_MESSAGE = 32 << 20
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_WORDS = {dict: "an object", list: "a list", bool: "true or false", bytes: "bytes", float: "a decimal number"}


class MessageError(ValueError):
    """One message is not in the format; the text says why."""


Parse = Callable[[bytes], Any]
"""A message's bytes -> the fields of its record. Raises MessageError."""


def parse_json(data: bytes) -> Any:
    """The object of a JSON message. Raises MessageError.

    >>> parse_json(b'{"id": 1')
    Traceback (most recent call last):
        ...
    labelwright.streams.message.MessageError: not JSON (Expecting ',' delimiter at character 8)
    """
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise MessageError(f"not JSON ({error.msg} at character {error.pos})") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        why = {UnicodeDecodeError: "not text in UTF-8", RecursionError: "nested too deeply"}
        raise MessageError(why.get(type(error), "a number too long to be one")) from error


def row_of(record: Any) -> dict[str, Any]:
    """A record as one row: id, label, source, then the features, then the image. Raises MessageError.

    >>> row_of({"id": 7, "label": "cat", "features": {"age": 3}})
    {'id': '7', 'label': 'cat', 'source': None, 'age': 3.0}
    """
    if not isinstance(record, dict):
        raise MessageError(f"{_word(record)}, expected an object with id, label and features")
    row: dict[str, Any] = {"id": _name(record, "id"), "label": _label(record), "source": None}
    if record.get("source") is not None:
        row["source"] = _name(record, "source")
    features, image = record.get("features"), record.get("image")
    if features is None and image is None:
        raise MessageError("neither features nor an image")
    if isinstance(features, list):
        row["x"] = _numbers("features", features)
    elif isinstance(features, dict):
        for name, value in features.items():
            if name in ENVELOPE or (name == "image" and image is not None):
                raise MessageError(f"a feature is called {name!r}, as a field of the message is; rename it")
            row[_text(name)] = _feature(name, value)
    elif features is not None:
        raise MessageError(f"features is {_word(features)}, expected an object or a list of numbers")
    if image is not None:
        row["image"] = {"bytes": _picture(image), "path": None}
    return row


def _word(value: Any) -> str:
    return "null" if value is None else _WORDS.get(type(value), "text" if isinstance(value, str) else "a number")


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MessageError("text with half a character (a lone surrogate)") from error
    return value


def _name(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        got = "it is missing or empty" if value is None or value == "" else f"got {_word(value)}"
        raise MessageError(f"no {field}: {got}, expected text or a whole number")
    return _text(str(value))


def _label(record: Mapping[str, Any]) -> str | None:
    value = record.get("label")
    if isinstance(value, dict | list | bytes):
        raise MessageError(f"label is {_word(value)}, expected text or a number")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == value and value == value // 1 and abs(value) < 2**53:
        return str(int(value))
    return None if value is None else _text(str(value))


def _number(value: float | int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise MessageError("a number too large for a decimal number") from error


def _numbers(name: str, values: Sequence[Any]) -> list[float]:
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise MessageError(f"{name} is a list with something else than numbers")
    return [_number(v) for v in values]


def _feature(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list):
        return _numbers(f"feature {name!r}", value)
    raise MessageError(
        f"feature {name!r} is {_word(value)}, expected a number, text, true/false, null or a list of numbers"
    )


def _picture(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise MessageError(f"image is {_word(value)}, expected an encoded picture in base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MessageError("image is not base64") from error


# ------------------------------------------------------------ many messages


def decode(
    messages: Sequence[bytes], names: Sequence[str], known: pa.Schema | None = None, *, parse: Parse = parse_json
) -> tuple[pa.Table, list[int], list[Bad]]:
    """(the rows, each row's position among the messages, messages set aside with a reason).

    known: the columns that the stream began with; its types are kept where the values allow it. names: (n,) what the broker
    calls each message, for those whose id cannot be read. The result depends on the arguments only, not on how it was got:
    messages of known columns are read in one go, others one by one.

    >>> table, at, bad = decode([b'{"id": "a", "label": 1, "features": [1, 2]}', b"?"], ["t[0]@0", "t[0]@1"])
    >>> table.to_pylist(), at, [(position, name) for position, name, _, _ in bad]
    ([{'id': 'a', 'label': '1', 'source': None, 'x': [1.0, 2.0]}], [0], [(1, 't[0]@1')])
    """
    if known is not None and parse is parse_json:
        table = _at_once(messages, known)
        if table is not None:
            return table, list(range(len(messages))), []
    rows, at, bad = list[dict[str, Any]](), list[int](), list[Bad]()
    for position, (message, name) in enumerate(zip(messages, names, strict=True)):
        record: Any = None
        try:
            if len(message) > MOST_MESSAGE:
                raise MessageError(f"{len(message):,} bytes, expected at most {MOST_MESSAGE:,}")
            record = parse(message)
            rows.append(row_of(record))
            at.append(position)
        except MessageError as error:
            bad.append((position, _known_name(record) or name, f"message: {error}", _shown(message)))
    return columns_of(rows, known), at, bad


def _known_name(record: Any) -> str | None:
    try:
        return _name(record, "id") if isinstance(record, dict) else None
    except MessageError:
        return None


def _shown(message: bytes, limit: int = 300) -> str:
    return message[:limit].decode("utf-8", "backslashreplace").replace("\0", "\\0")


def columns_of(rows: Sequence[Mapping[str, Any]], known: pa.Schema | None = None) -> pa.Table:
    """Rows as columns: those that are known first, each in its known type where its values allow it."""
    start = [*(known.names if known is not None else ENVELOPE)]
    names = dict.fromkeys([*start, *(name for row in rows for name in row)])
    kinds = {name: known.field(name).type for name in known.names} if known is not None else {}
    kinds |= dict.fromkeys(ENVELOPE, pa.string())
    return pa.table({name: _column([row.get(name) for row in rows], kinds.get(name)) for name in names})


def _column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is not None and pa.types.is_string(kind):
        return pa.array([None if v is None else v if isinstance(v, str) else str(v) for v in values], kind)
    for wanted in (kind, pa.float64(), pa.bool_(), pa.list_(pa.float64()), IMAGE):
        try:
            if wanted is not None:
                return pa.array(values, wanted)
        except (pa.ArrowException, TypeError, ValueError):
            continue
    return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], pa.string())


# ------------------------------------------------------------ the quick way


def _at_once(messages: Sequence[bytes], known: pa.Schema) -> pa.Table | None:
    """The rows by Arrow's own reader, or None where anything at all is out of the ordinary."""
    asked = _as_messages(known, messages[0]) if messages else None
    if asked is None or any(
        len(m) > MOST_MESSAGE or not m.startswith(b"{") or b"\n" in m or b"\r" in m for m in messages
    ):
        return None
    joined = b"\n".join(messages)
    if len(joined) > 1 << 30 or b"\\ud" in joined or b"\\uD" in joined:
        return None
    try:
        if not joined.isascii():
            joined.decode()
        read = pajson.read_json(
            pa.BufferReader(joined),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(joined) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=asked, unexpected_field_behavior="infer"),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return _flat(read, known) if read.num_rows == len(messages) else None


def _as_messages(known: pa.Schema, example: bytes) -> pa.Schema | None:
    """The schema of messages whose rows have these columns, ids and labels being whole numbers where the example's are; None
    where there is an image (base64 is not Arrow's)."""
    fields = [known.field(name) for name in known.names if name not in ENVELOPE]
    try:
        told = parse_json(example)
    except MessageError:
        return None
    whole = [name for name in ENVELOPE if isinstance(told, dict) and type(told.get(name)) is int]
    envelope = [(name, pa.int64() if name in whole else pa.string()) for name in ENVELOPE]
    if not fields or any(
        pa.types.is_struct(f.type) or pa.types.is_binary(f.type) or pa.types.is_null(f.type) for f in fields
    ):
        return None
    if [f.name for f in fields] == ["x"] and pa.types.is_list(fields[0].type):
        return pa.schema([*envelope, ("features", fields[0].type)])
    return pa.schema([*envelope, ("features", pa.struct([(f.name, f.type) for f in fields]))])


def _flat(read: pa.Table, known: pa.Schema) -> pa.Table | None:
    names, features = read.column_names, read.column("features").combine_chunks()
    envelope = {name: pc.cast(read.column(name), pa.string()) for name in ENVELOPE}
    ids, sources = envelope["id"], envelope["source"]
    named = pc.all(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(ids)), 0)).as_py()
    sourced = pc.all(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(sources)), 0)).as_py()
    if ids.null_count or features.null_count or not named or sourced is False or "image" in names:
        return None
    columns: dict[str, Any] = dict(envelope)
    if not pa.types.is_struct(features.type):
        if features.flatten().null_count:
            return None
        return pa.table({**columns, "x": features})
    for at, field in enumerate(features.type):
        value = features.field(at)
        if field.name in ENVELOPE or field.name not in known.names:
            return None
        if pa.types.is_list(field.type) and value.flatten().null_count:
            return None
        if pa.types.is_floating(field.type) and pc.any(pc.is_inf(value)).as_py():
            return None
        columns[field.name] = value
    return pa.table(columns).combine_chunks()


__all__ = ["ENVELOPE", "MessageError", "Parse", "columns_of", "decode", "parse_json", "row_of"]
