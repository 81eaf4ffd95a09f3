"""Users' tables: reading in chunks, encoding columns, rows as bytes, writing."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelwright import tables
from labelwright.errors import DataError, SettingsError, SourceError
from labelwright.tables import (
    Encoder,
    bad_feature_rows,
    open_source,
    row_bytes,
    vector_column,
    write_table,
    write_tables,
)
from labelwright.tables.columns import to_dates

REVIEWS = [
    "the soup was cold and late",
    "great service and warm bread",
    "never again, rude waiter",
    "fine food, fair price",
]


def user_table(n: int = 200) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "id": pa.array(np.arange(n)),
            "review": [f"{REVIEWS[i % 4]} visit {i} {'slow' if i % 3 else 'quick'}" for i in range(n)],
            "city": [["Delft", "Bern", "Oslo", None][i % 4] for i in range(n)],
            "age": [None if i % 10 == 0 else float(rng.integers(18, 90)) for i in range(n)],
            "member": [i % 2 == 0 for i in range(n)],
            "day": [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(n)],
            "country": ["NL"] * n,
            "label": [["good", "bad"][i % 2] for i in range(n)],
        }
    )


def whole(source: tables.TableSource, rows: int = 10**6, first: int | None = None) -> pa.Table:
    return pa.concat_tables(source.chunks(rows, first))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------- sources


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same 100 rows in every layout."""
    folder = tmp_path_factory.mktemp("layouts")
    table = user_table(100)
    out = {}
    for suffix in (".csv", ".csv.gz", ".tsv", ".parquet"):
        out[suffix] = folder / f"t{suffix}"
        write_table(table, out[suffix])
    for kind in (".csv", ".parquet"):
        out[f"folder{kind}"] = folder / f"folder{kind}"
        out[f"folder{kind}"].mkdir()
        for part, start in enumerate((0, 7, 60)):
            stop = (7, 60, 100)[part]
            write_table(table.slice(start, stop - start), out[f"folder{kind}"] / f"{part}{kind}")
    return out


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 120), first=st.none() | st.integers(1, 120))
def test_chunks_are_exact_and_together_the_whole(files: dict[str, Path], rows: int, first: int | None) -> None:
    for path in files.values():
        sizes = [chunk.num_rows for chunk in open_source(path).chunks(rows, first)]
        assert sum(sizes) == 100 and sizes[0] == min(first or rows, 100)
        assert all(size == rows for size in sizes[1:-1]) and sizes[-1] <= max(rows, first or rows)
        assert whole(open_source(path), rows, first).to_pydict() == user_table(100).to_pydict()


def test_num_rows_and_columns(files: dict[str, Path]) -> None:
    assert open_source(files["folder.parquet"]).num_rows == 100
    assert open_source(files[".csv"]).num_rows is None
    assert open_source(files[".csv"]).columns[:2] == ("id", "review")


def test_data_frame_with_mixed_objects() -> None:
    frame = pd.DataFrame({"a": [1, "x", None], "b": [1.5, None, 2.0]}, index=[5, 6, 7])
    assert whole(open_source(frame)).to_pydict() == {"a": ["1", "x", None], "b": [1.5, None, 2.0]}


def test_npz(tmp_path: Path) -> None:
    X = np.arange(12.0).reshape(3, 2, 2)
    np.savez(tmp_path / "d.npz", X=X, y=np.array([0, 1, 0]), who=np.array(["a", "b", "c"]), other=np.ones(7))
    table = whole(open_source(tmp_path / "d.npz"), 2)
    assert table.column_names == ["x", "label", "who"] and table["x"].type == pa.list_(pa.float32(), 4)
    assert table["x"].to_pylist() == X.reshape(3, 4).tolist() and table["label"].to_pylist() == [0, 1, 0]
    np.savez(tmp_path / "o.npz", X=np.array([{}], dtype=object))
    with pytest.raises(SourceError, match="plain arrays"):
        open_source(tmp_path / "o.npz")


def test_csv_empty_is_missing_and_text_keeps_na(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('name,n\nNA,1\n"",NA\n"two\nlines",3\n')
    assert whole(open_source(tmp_path / "a.csv")).to_pydict() == {"name": ["NA", None, "two\nlines"], "n": [1, None, 3]}


def test_csv_type_break_in_a_later_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelwright.tables import files

    monkeypatch.setattr(files, "CSV_HEAD", 400)
    monkeypatch.setattr(files, "CSV_BLOCK", 400)
    lines = [f"{i},{i},x" for i in range(300)] + ["0.5,oops,y", "1,2,z"]
    (tmp_path / "a.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n")
    chunks = list(open_source(tmp_path / "a.csv").chunks(100))
    assert chunks[0].schema.types == [pa.int64(), pa.int64(), pa.string()]
    assert chunks[3].schema.types == [pa.float64(), pa.string(), pa.string()]
    assert chunks[3].to_pydict() == {"a": [0.5, 1.0], "b": ["oops", "2"], "c": ["y", "z"]}


def test_csv_ragged_lines_are_counted_once_per_reading(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    source = open_source(tmp_path / "a.csv")
    for _ in range(2):
        assert whole(source).to_pydict() == {"a": [1, 7], "b": [2, 8]} and source.skipped_lines == 2


def test_parquet_folder_with_other_types_becomes_text_or_wider(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "b": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"b": ["x"], "a": pa.array([2], pa.int64())}), tmp_path / "1.parquet")
    assert whole(open_source(tmp_path)).to_pydict() == {"a": [1, 2], "b": ["1", "x"]}


def broken(tmp_path: Path, name: str) -> Any:
    """A source that cannot be used, by name."""
    path = tmp_path / name
    if name == "cut.parquet":
        pq.write_table(pa.table({"a": range(1000)}), path)
        path.write_bytes(path.read_bytes()[:-20])
    elif name == "cut.csv.gz":
        path.write_bytes(gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(9999)))[:-2000])
    elif name == "folder":
        path.mkdir()
        (path / "a.csv").write_text("a,b\n1,2\n")
        (path / "b.csv").write_text("a,c\n1,2\n")
    elif name in ("empty_folder",):
        path.mkdir()
    elif name != "none.csv":
        text = {"empty.csv": b"", "header.csv": b"a,b\n", "latin.csv": b"a,b\n\xe9,1\n", "twice.csv": b"a,a\n1,2\n"}
        path.write_bytes(text.get(name, b"x"))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", "There is no file"),
        ("cut.parquet", "not a complete Parquet file"),
        ("cut.csv.gz", "check that it is complete"),
        ("folder", r"b\.csv has the columns 'a', 'c'"),
        ("empty_folder", "holds no CSV or Parquet"),
        ("empty.csv", "is empty"),
        ("header.csv", "no complete row"),
        ("latin.csv", "UTF-8"),
        ("twice.csv", "two columns named 'a'"),
        ("x.xlsx", "unknown kind"),
    ],
)
def test_unusable_sources_are_one_clear_sentence(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        whole(open_source(broken(tmp_path, name)))
    assert "\n" not in str(caught.value)


def test_require_and_sizes() -> None:
    source = open_source(pa.table({"a": [1]}))
    with pytest.raises(SourceError, match="no column 'label', only 'a'"):
        source.require("a", "label")
    with pytest.raises(SettingsError, match="1 row or more"):
        source.chunks(0)
    with pytest.raises(SourceError, match="expected a path"):
        open_source(3)


# ---------------------------------------------------------------- encoder


def test_realistic_table_by_kind() -> None:
    table = user_table()
    encoder = Encoder(exclude=["label"]).fit(table)
    assert encoder.kinds == {
        "id": "dropped", "review": "text", "city": "category", "age": "number",
        "member": "boolean", "day": "date", "country": "dropped",
    }  # fmt: skip
    X = encoder.transform(table)
    assert X.dtype == np.float32 and X.flags.c_contiguous and np.isfinite(X).all()
    # 50 topics, 3 cities + missing, age + its flag, member, five parts of the date
    assert X.shape == (200, 50 + 4 + 2 + 1 + 5)
    np.testing.assert_allclose(X[:, :50].mean(axis=0), 0, atol=1e-4)
    assert X[:4, 50:54].argmax(axis=1).tolist() == [1, 0, 2, 3] and (X[:, 50:54].sum(axis=1) == 1).all()
    assert X[:, 55].tolist() == [float(i % 10 == 0) for i in range(200)]
    assert "age: number, standardised, 20 missing filled with the median" in encoder.describe()
    assert "id: dropped, looks like an identifier" in encoder.describe()
    assert any(line.startswith("review: text, TF-IDF, 50 components") for line in encoder.describe())


def test_csv_and_table_encode_alike(files: dict[str, Path]) -> None:
    table = user_table(100)
    encoder = Encoder(exclude=["label"]).fit(whole(open_source(files[".csv"])))
    np.testing.assert_array_equal(
        encoder.transform(table), Encoder(exclude=["label"]).fit(table).transform(whole(open_source(files[".csv.gz"])))
    )


def test_number_by_hand() -> None:
    X = Encoder().fit(t := pa.table({"a": [1.0, None, 3.0, 8.0]})).transform(t)
    filled = np.array([1, 3, 3, 8.0])  # the median of 1, 3, 8 is 3
    np.testing.assert_allclose(X[:, 0], (filled - filled.mean()) / filled.std(), rtol=1e-6)
    assert X[:, 1].tolist() == [0, 1, 0, 0]


def test_date_parts_by_hand() -> None:
    values, _ = to_dates(pa.chunked_array([[dt.datetime(2024, 2, 29, 13, 30), None, dt.datetime(1969, 12, 31)]]))
    assert values[0].tolist() == [2024, 2, 3, 13, 19782 + 13.5 / 24]  # a Thursday
    assert values[2].tolist() == [1969, 12, 2, 0, -1] and np.isnan(values[1]).all()


def test_rare_and_unknown_categories() -> None:
    table = pa.table({"c": ["a"] * 12 + ["b"] * 8 + ["once"]})
    encoder = Encoder().fit(table)
    X = encoder.transform(pa.table({"c": ["a", "b", "once", "new", None]}))
    assert X.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_vectors_in_unit_range_are_untouched_others_standardised() -> None:
    rng = np.random.default_rng(0)
    unit, wide = rng.random((50, 6)).astype(np.float32), rng.normal(5, 3, (50, 4))
    table = pa.table({"u": vector_column(unit)})
    X = Encoder().fit(table).transform(table)
    np.testing.assert_array_equal(X, unit)
    assert X.flags.writeable
    lists = pa.table({"w": pa.array(wide.tolist())})
    np.testing.assert_allclose(Encoder().fit(lists).transform(lists), (wide - wide.mean(0)) / wide.std(0), atol=1e-4)


def test_vector_gaps_are_filled_and_wrong_widths_counted() -> None:
    table = pa.table({"v": [[0.0, 1.0], [0.5, float("nan")], [1.0, 0.0], None]})
    encoder = Encoder().fit(table)
    assert encoder.widths == {"v": 2}
    assert encoder.transform(table).tolist() == [[0, 1], [0.5, 0.5], [1, 0], [0.5, 0.5]]
    assert encoder.transform(pa.table({"v": [[1.0], [0.0, 0.0]]})).tolist() == [[0.5, 0.5], [0, 0]]
    assert encoder.drift == {"v": 1}


def test_images_are_decoded_and_resized() -> None:
    first = np.arange(12, dtype=np.uint8).reshape(3, 4)
    column = [{"bytes": png(p), "path": "p"} for p in (first, np.full((6, 8), 255, np.uint8))]
    table = pa.table({"image": [*column, {"bytes": b"no", "path": None}]})
    encoder = Encoder().fit(table)
    X = encoder.transform(table)
    np.testing.assert_allclose(X[0], first.ravel() / 255, rtol=1e-6)
    assert (X[1] == 1).all() and X.shape == (3, 12) and encoder.drift == {"image": 1}
    assert bad_feature_rows(table, encoder.kinds) == {2: "image: an image that does not decode"}


def test_drift_missing_and_additional_columns() -> None:
    encoder = Encoder().fit(pa.table({"n": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]}))
    X = encoder.transform(pa.table({"extra": [1, 2, 3, 4], "c": [1, 2, 3, 4], "n": ["3", "many", " 1.0", None]}))
    assert encoder.drift == {"n": 1}
    np.testing.assert_allclose(X[:, 0], [1.2247, 0, -1.2247, 0], atol=1e-4)
    encoder.transform(pa.table({"n": [1.0], "c": ["a"]}))
    assert encoder.drift == {}
    with pytest.raises(DataError, match="lacks 'c'"):
        encoder.transform(pa.table({"n": [1]}))
    with pytest.raises(SettingsError, match="never fitted"):
        Encoder().transform(pa.table({"n": [1]}))
    with pytest.raises(DataError, match="No column can be used"):
        Encoder().fit(pa.table({"a": ["x", "x"]}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(width=64), min_size=1), st.lists(st.none() | st.text(), min_size=1))
@example([9e307, 9.1e307], [None])  # their sum is beyond the largest float
def test_whatever_comes_the_matrix_is_finite(numbers: list[float | None], texts: list[str | None]) -> None:
    for column in (pa.array(numbers, pa.float64()), pa.array(texts, pa.string())):
        try:
            encoder = Encoder().fit(pa.table({"c": column}))
        except DataError:
            continue
        for values in (column, pa.array(texts, pa.string()), pa.array(numbers, pa.float64())):
            assert np.isfinite(encoder.transform(pa.table({"c": values}))).all()


def test_save_and_load_gives_the_same_matrix() -> None:
    table = user_table(60)
    encoder = Encoder(exclude=["label"]).fit(table)
    again = Encoder.from_bytes(encoder.to_bytes())
    np.testing.assert_array_equal(again.transform(table), encoder.transform(table))
    assert again.kinds == encoder.kinds and again.describe() == encoder.describe()
    assert again.exclude == {"label"}


def test_own_transformer_round_trip_and_refusal() -> None:
    import skops.io
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table = pa.table({"n": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]})
    own = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include=float)), (OneHotEncoder(), ["c"])
    )
    encoder = Encoder(own).fit(table)
    assert not hasattr(own, "transformers_") and encoder.kinds == {"n": "custom", "c": "custom"}
    X = encoder.transform(table)
    assert X.shape == (3, 3) and X.dtype == np.float32
    np.testing.assert_array_equal(Encoder.from_bytes(encoder.to_bytes()).transform(table), X)
    with pytest.raises(DataError, match="SimpleImputer"):
        Encoder(StandardScaler()).fit(t := pa.table({"n": [1.0, None]})).transform(t)
    with pytest.raises(SettingsError, match="expected scikit-learn types only"):
        Encoder.from_bytes(skops.io.dumps({"fitted": Path("x")}))
    with pytest.raises(SettingsError, match="damaged"):
        Encoder.from_bytes(b"nothing")


# ---------------------------------------------------------------- rows


def test_bad_rows_by_hand() -> None:
    nan, inf = float("nan"), float("inf")
    table = pa.table(
        {
            "v": [[1.0, 2.0], [1.0], [nan, 1.0], None, [inf, 0.0], [3e38, 3e38]],
            "n": [1.0, -inf, nan, None, 1.0, 1.0],
        }
    )
    assert bad_feature_rows(table, {"v": "vector", "n": "number", "gone": "number"}, widths={"v": 2}) == {
        1: "v: a vector of 1 numbers, expected 2; n: an infinite number",
        2: "v: a vector with NaN or inf",
        3: "v: no vector",
        4: "v: a vector with NaN or inf",
    }


rows = st.lists(
    st.tuples(
        st.none() | st.text(st.sampled_from("a\\0u\x1f"), max_size=4),
        st.none() | st.text(st.sampled_from("a\\0u\x1f"), max_size=4),
        st.none() | st.floats(allow_nan=False, width=32),
        st.none() | st.binary(max_size=3),
        st.none() | st.lists(st.integers(0, 2).map(float), max_size=2),
    ),
    min_size=2,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(rows, st.data())
def test_row_bytes_are_equal_exactly_where_rows_are(values: list[tuple[Any, ...]], data: st.DataObject) -> None:
    kinds = [pa.string(), pa.string(), pa.float64(), pa.binary(), pa.list_(pa.float64())]
    columns = zip(zip(*values, strict=True), kinds, strict=True)
    table = pa.table({f"c{i}": pa.array(column, kind) for i, (column, kind) in enumerate(columns)})
    keys = row_bytes(table)
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (keys[i] == keys[j]) == (a == b)
    cut = data.draw(st.integers(0, len(values)))
    assert row_bytes(pa.concat_tables([table.slice(0, cut), table.slice(cut)])) == keys
    assert row_bytes(table.slice(cut)) == keys[cut:]


def test_row_bytes_of_other_types() -> None:
    table = pa.table(
        {
            "image": [{"bytes": b"1", "path": "a"}, {"bytes": b"1", "path": "b"}, None],
            "v": pa.array([[1, 2], [1, 2], None], pa.list_(pa.float32(), 2)),
            "c": pa.array(["x", "x", "x"]).dictionary_encode(),
            "d": [dt.timedelta(1), dt.timedelta(1), None],
            "s": [{"k": 1}, {"k": 1}, {"k": 2}],
        }
    )
    keys = row_bytes(table)
    assert keys[0] == keys[1] != keys[2]
    assert row_bytes(pa.table({"a": [7]})) == row_bytes(pa.table({"a": ["7"]}))
    assert row_bytes(pa.table({"a": [float("nan"), -0.0]}))[1:] == row_bytes(pa.table({"a": [0.0]}))


# ---------------------------------------------------------------- writing


def test_write_is_whole_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "t.csv"
    write_table(pa.table({"a": [1]}), target)
    with pytest.raises(SourceError, match="changes from int64 to string"):
        write_tables([pa.table({"a": [1]}), pa.table({"a": ["x"]})], target)
    assert target.read_text() == '"a"\n1\n' and [p.name for p in tmp_path.iterdir()] == ["t.csv"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o600 == 0o600
    with pytest.raises(SourceError, match="check that the folder exists"):
        write_table(pa.table({"a": [1]}), tmp_path / "none" / "t.csv")
    with pytest.raises(SourceError, match="unknown kind"):
        write_table(pa.table({"a": [1]}), tmp_path / "t.doc")


def test_a_file_may_say_which_column_holds_the_classes(tmp_path: Path) -> None:
    told = json.dumps(
        {"info": {"features": {"kind": {"names": ["a", "b"], "_type": "ClassLabel"}, "x": {"dtype": "int64"}}}}
    )
    for meta, label in (({"huggingface": told}, "kind"), ({"huggingface": "[1]"}, None), ({}, None)):
        table = pa.table({"x": [1, 2], "kind": [0, 1]}).replace_schema_metadata(meta)
        pq.write_table(table, tmp_path / "a.parquet")
        assert open_source(tmp_path / "a.parquet").label == label
