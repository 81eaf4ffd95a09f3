"""The message format: JSON and Avro to rows, and poison set aside with a reason."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_help import messages

from labelwright.errors import SettingsError
from labelwright.streams import message as module
from labelwright.streams.avro import canonical, fingerprint, parser, reader
from labelwright.streams.message import MessageError, decode
from labelwright.streams.shape import Shape


def names(count: int) -> list[str]:
    return [f"t[0]@{at}" for at in range(count)]


def test_a_message_becomes_a_row() -> None:
    rows = [
        b'{"id": "a", "label": "cat", "source": "ann", "features": {"age": 3, "city": "Oslo", "old": true, "v": [1, 2]}}',
        b'{"id": 2, "label": 1.0, "features": {"age": null, "city": "Rome", "old": null, "v": [3.5, 4]}, "more": 1}',
    ]
    table, at, bad = decode(rows, names(2))
    assert at == [0, 1] and bad == []
    assert table.to_pylist() == [
        {"id": "a", "label": "cat", "source": "ann", "age": 3.0, "city": "Oslo", "old": True, "v": [1.0, 2.0]},
        {"id": "2", "label": "1", "source": None, "age": None, "city": "Rome", "old": None, "v": [3.5, 4.0]},
    ]


POISON = [
    (b"", "not JSON (Expecting value at character 0)"),
    (b'{"id": "a"', "not JSON"),
    (b'{"id": "a", "label": "b", "features": {"x": "\xff"}}', "not text in UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'"word"', "text, expected an object"),
    (b"null", "null, expected an object"),
    (b'{"label": "b", "features": [1]}', "no id: it is missing or empty"),
    (b'{"id": true, "label": "b", "features": [1]}', "no id: got true or false"),
    (b'{"id": "a", "label": {"x": 1}, "features": [1]}', "label is an object"),
    (b'{"id": "a", "label": "b"}', "neither features nor an image"),
    (b'{"id": "a", "label": "b", "features": 3}', "features is a number"),
    (b'{"id": "a", "label": "b", "features": [1, "2"]}', "a list with something else than numbers"),
    (b'{"id": "a", "label": "b", "features": {"label": 1}}', "a feature is called 'label'"),
    (b'{"id": "a", "label": "b", "features": {"x": {"y": 1}}}', "feature 'x' is an object"),
    (b'{"id": "a", "label": "b", "features": {"x": 1' + b"0" * 400 + b"}}", "a number too large"),
    (b'{"id": "a", "label": "b", "features": {"x": 1' + b"0" * 5000 + b"}}", "a number too long"),
    (b'{"id": "a", "label": "b", "features": {"x": "\\ud800"}}', "lone surrogate"),
    (b'{"id": "a", "label": "b", "image": "%%%"}', "image is not base64"),
    (b'{"id": "a", "label": "b", "source": [], "features": [1]}', "no source: got a list"),
]


@pytest.mark.parametrize(("poison", "reason"), POISON, ids=range(len(POISON)))
def test_poison_is_set_aside_with_a_reason(poison: bytes, reason: str) -> None:
    good = messages(3)
    for known in (None, decode(good, names(3))[0].schema):
        table, at, bad = decode([good[0], poison, good[2]], names(3), known)
        assert at == [0, 2] and table.column("id").to_pylist() == ["r0", "r2"]
        ((position, name, why, shown),) = bad
        assert position == 1 and reason in why and why.startswith("message: ") and len(shown) <= 2000
        assert name in ("a", "t[0]@1")


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.floats(), max_size=3))
objects = st.fixed_dictionaries(
    {"id": st.one_of(st.text(), st.integers()), "label": st.one_of(st.text(), st.integers(-5, 5), st.none())},
    optional={
        "source": st.one_of(st.none(), st.text(), st.integers()),
        "features": st.dictionaries(st.sampled_from(["a", "b", "true", "new"]), scalars),
        "more": scalars,
    },
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(objects.map(lambda o: json.dumps(o).encode()), st.binary(max_size=12)), min_size=1, max_size=6)
)
def test_the_quick_way_says_what_the_slow_way_says(rows: list[bytes]) -> None:
    known = decode(messages(3), names(3))[0]

    def both() -> Any:
        table, at, bad = decode(rows, names(len(rows)), known.schema)
        shape = Shape(known)
        held = [list(map(repr, column)) for column in shape.conform(table).to_pydict().values()]
        return held, at, bad

    got = both()
    quick, module._at_once = module._at_once, lambda rows, known: None  # type: ignore[assignment]
    try:
        assert both() == got
    finally:
        module._at_once = quick


def test_messages_of_known_columns_are_read_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = messages(50)
    known, _, _ = decode(rows, names(50))
    monkeypatch.setattr(module, "row_of", None)
    assert decode(rows, names(50), known.schema)[0].equals(known)
    whole = [
        json.dumps({"id": i, "label": i % 3, "features": {"a": i, "b": 1.5, "true": "x"}}).encode() for i in range(5)
    ]
    table = decode(whole, names(5), known.schema)[0]
    assert table.column("id").to_pylist() == list("01234") and table.column("label").to_pylist() == list("01201")


def test_schema_drift_is_told_once() -> None:
    shape, drift = (
        Shape(decode(messages(3), names(3))[0]),
        b'{"id": "z", "label": "good", "features": {"a": "old", "c": 1}}',
    )
    for _ in range(2):
        table = shape.conform(decode([drift], names(1), shape.known)[0])
    assert table.column_names == ["id", "label", "source", "a", "b", "true"]
    assert shape.told() == [
        "column 'source' is missing: empty",
        "column 'a' holds string, began as double",
        "column 'b' is missing: empty",
        "column 'true' is missing: empty",
        "column 'c' is new: not used",
    ]
    assert shape.told() == []


# ------------------------------------------------------------ Avro: bytes worked out by hand from the specification

ROW: dict[str, Any] = {
    "type": "record",
    "name": "Row",
    "namespace": "org.example",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "label", "type": {"type": "enum", "name": "Animal", "symbols": ["cat", "dog"]}},
        {"name": "source", "type": ["null", "string"], "default": None},
        {"name": "features", "type": {"type": "map", "values": ["null", "double", "string"]}},
    ],
}
# "r1" | dog | branch 1, "s" | block of 2: "a" branch 1, 1.5; "b" branch 0 | end
BODY = (
    bytes.fromhex("047231" + "02" + "0273"[:0] + "020273" + "04" + "026102")
    + struct.pack("<d", 1.5)
    + bytes.fromhex("0262" + "00" + "00")
)
FIELDS = {"id": "r1", "label": "dog", "source": "s", "features": {"a": 1.5, "b": None}}


def test_avro_rows(tmp_path: Path) -> None:
    path = tmp_path / "row.avsc"
    path.write_text(json.dumps(ROW))
    assert parser("avro", [str(path)])(BODY) == FIELDS
    assert parser("avro-confluent", [f"7:{path}"])(b"\x00\x00\x00\x00\x07" + BODY) == FIELDS
    print_ = struct.pack("<Q", fingerprint(ROW))
    assert parser("avro-single", [str(path)])(b"\xc3\x01" + print_ + BODY) == FIELDS
    table, _, bad = decode([BODY, BODY[:-1], BODY + b"x", b"\x00\x00"], names(4), parse=parser("avro", [str(path)]))
    assert table.to_pylist() == [{"id": "r1", "label": "dog", "source": "s", "a": 1.5, "b": None}]
    assert [why.partition("(")[2] for _, _, why, _ in bad][:2] == ["a number does not end)", "1 bytes are left over)"]


def test_avro_of_the_specification() -> None:
    """Examples of the Avro specification's sections on binary encoding and single-object encoding."""
    assert [reader("long")(bytes.fromhex(text)) for text in ("00", "01", "02", "7f", "8001")] == [0, -1, 1, -64, 64]
    assert reader({"type": "array", "items": "long"})(bytes.fromhex("04063600")) == [3, 27]
    assert reader({"type": "array", "items": "long"})(bytes.fromhex("0304063600")) == [3, 27], "a block with its size"
    assert reader(["null", "string"])(bytes.fromhex("020261")) == "a"
    tree = {
        "type": "record",
        "name": "T",
        "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "T"]}],
    }
    assert reader(tree)(bytes.fromhex("0202" + "0400")) == {"v": 1, "next": {"v": 2, "next": None}}
    assert hex(fingerprint({"type": "int"})) == "0x7275d51a3f395c8f"
    assert (
        canonical({"type": "fixed", "size": 15, "name": "Id", "namespace": "x.y"})
        == '{"name":"x.y.Id","type":"fixed","size":15}'
    )


def test_avro_that_would_fill_the_memory() -> None:
    many = bytes.fromhex("feffffffffffffff7f")
    for schema, body in (
        ("bytes", many),
        ({"type": "array", "items": "null"}, many),
        ({"type": "array", "items": {"type": "array", "items": "null"}}, b"\x80\x89\x7a" * 5),
    ):
        with pytest.raises(MessageError, match="not Avro of this schema"):
            reader(schema)(body)
    tree = {"type": "record", "name": "T", "fields": [{"name": "next", "type": ["null", "T"]}]}
    with pytest.raises(MessageError, match="nested too deeply"):
        reader(tree)(b"\x02" * 1_000_000)


def test_avro_settings_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "bad.avsc"
    path.write_text('{"type": "record", "name": "A", "fields": [{"name": "b", "type": "Nowhere"}]}')
    with pytest.raises(SettingsError, match="names a type 'Nowhere' that it does not define"):
        parser("avro", [str(path)])
    with pytest.raises(SettingsError, match="got 0 schemas"):
        parser("avro-single", [])
    with pytest.raises(SettingsError, match="cannot be used as an Avro schema"):
        parser("avro", [str(tmp_path / "none.avsc")])


def test_pictures_in_messages() -> None:
    import base64

    row = {"id": "p", "label": "cat", "image": base64.b64encode(b"\x89PNG").decode()}
    table, _, _ = decode([json.dumps(row).encode()], names(1))
    assert table.column("image").to_pylist() == [{"bytes": b"\x89PNG", "path": None}]
    assert pa.types.is_struct(table.schema.field("image").type)
    again, _, _ = decode([json.dumps(row).encode()], names(1), table.schema)
    assert again.equals(table)
