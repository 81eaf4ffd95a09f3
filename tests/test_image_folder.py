"""A folder of pictures per class: as a table, through the encoder, `run` and `audit`."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import call_cli, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelwright.errors import SourceError
from labelwright.runner import StateFolder
from labelwright.tables import Encoder, bad_feature_rows, open_source, write_table
from labelwright.tables.pictures import find_pictures


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_pets(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Pictures whose colour tells the class; every fifth lies deeper, every seventh is grey or of another size."""
    rng = np.random.default_rng(seed)
    for code, (name, count) in enumerate(counts.items()):
        (folder / name / "more").mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (12, 16, 3)).astype(np.uint8)
            pixels[:, 4 * code : 4 * code + 4] += 150
            image = Image.fromarray(pixels)
            if i % 7 == 3:
                image = image.convert("L") if i % 2 else image.resize((32, 24))
            image.save(folder / name / ("more" if i % 5 == 0 else "") / f"{i}.{'png' if i % 2 else 'jpg'}")
    return folder


def spoil(folder: Path) -> set[str]:
    """Cut one PNG and one JPEG, empty one file, put text into another; their names."""
    for name, keep in (("cat/1.png", 0.7), ("cat/2.jpg", 0.5)):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])
    (folder / "dog" / "4.jpg").write_bytes(b"")
    (folder / "dog" / "6.jpg").write_bytes(b"this is no picture")
    return {"cat/1.png", "cat/2.jpg", "dog/4.jpg", "dog/6.jpg"}


def test_a_folder_as_a_table(tmp_path: Path) -> None:
    write_pets(tmp_path, {"cat": 12, "dog": 6, "red fox": 1})
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.png").write_bytes(b"")
    for name in ("cat/notes.txt", "dog/Thumbs.db", "loose.png"):
        (tmp_path / name).write_bytes(b"")
    source = open_source(tmp_path)
    assert source.columns == ("image", "label", "path") and source.num_rows == 19
    assert source.notes == (f"3 files of {tmp_path} left out: no pictures, or in no sub-folder",)
    table = pa.concat_tables(source.chunks(5))
    assert table.schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = table.to_pylist()
    assert [chunk.num_rows for chunk in source.chunks(5, 8)] == [8, 5, 5, 1]
    assert len({row["path"] for row in rows}) == 19 and {row["label"] for row in rows} == {"cat", "dog", "red fox"}
    for row in rows:
        assert row["path"].startswith(row["label"] + "/") and row["image"]["path"] == row["path"]
        assert row["image"]["bytes"] == (tmp_path / row["path"]).read_bytes()


def test_the_order_mixes_classes_and_depends_on_names_only(tmp_path: Path) -> None:
    for place in ("a", "b"):
        for name, count in {"z": 60, "y": 30, "x": 3}.items():
            (tmp_path / place / name).mkdir(parents=True)
            for i in range(count) if place == "a" else reversed(range(count)):
                (tmp_path / place / name / f"{i}.png").write_bytes(b"")
    tables = [pa.concat_tables(open_source(tmp_path / place).chunks(100)) for place in ("a", "b")]
    assert tables[0]["path"].to_pylist() == tables[1]["path"].to_pylist()
    labels = tables[0]["label"].to_pylist()
    assert set(labels[:3]) == {"x", "y", "z"}  # one of each first
    for start in range(0, 93, 31):
        part = labels[start : start + 31]
        assert abs(part.count("z") - 20) <= 2 and abs(part.count("y") - 10) <= 2 and part.count("x") == 1
    names = [path for path in tables[0]["path"].to_pylist() if path.startswith("z")]
    assert names != sorted(names)


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_the_first_rows_hold_every_class(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    folder = tmp_path_factory.mktemp("classes")
    for code, count in enumerate(counts):
        (folder / f"c{code}").mkdir()
        for i in range(count):
            (folder / f"c{code}" / f"{i}.png").touch()
    found = find_pictures(folder)
    assert found is not None and sorted(found.mixed.tolist()) == list(range(sum(counts)))
    assert set(found.codes[found.mixed][: len(counts)].tolist()) == set(range(len(counts)))
    half = np.bincount(found.codes[found.mixed][: sum(counts) // 2], minlength=len(counts))
    assert (np.abs(half - np.array(counts) / 2) <= len(counts) + 1).all()


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(SourceError, match="holds no CSV or Parquet file, nor a sub-folder of pictures"):
        open_source(tmp_path / "empty")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.png").touch()
    with pytest.raises(SourceError, match="nor a sub-folder of pictures"):
        open_source(tmp_path / "loose")
    for part in ("train", "Test"):
        (tmp_path / "parts" / part / "cat").mkdir(parents=True)
        (tmp_path / "parts" / part / "cat" / "a.png").touch()
    with pytest.raises(
        SourceError, match=r"'Test', 'train', which are parts and no classes; name one of them, as .*Test"
    ):
        open_source(tmp_path / "parts")


def test_a_table_beside_pictures_is_the_source(tmp_path: Path) -> None:
    write_pets(tmp_path, {"cat": 2})
    (tmp_path / "a.csv").write_text("x,label\n1,a\n")
    assert open_source(tmp_path).columns == ("x", "label")


def test_files_that_vanish_or_have_strange_names(tmp_path: Path) -> None:
    write_pets(tmp_path, {"cat": 3, "dog": 3})
    strange = os.fsencode(tmp_path / "dog") + b"/\xe9.png"
    Path(os.fsdecode(strange)).write_bytes((tmp_path / "dog" / "1.png").read_bytes())
    source = open_source(tmp_path)
    (tmp_path / "cat" / "2.jpg").unlink()
    rows = {row["path"]: row["image"]["bytes"] for chunk in source.chunks(9) for row in chunk.to_pylist()}
    assert rows["cat/2.jpg"] is None and rows["dog/\\xe9.png"] == rows["dog/1.png"]


def test_chunks_do_not_wait_for_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelwright.tables import pictures

    write_pets(tmp_path, {"cat": 20, "dog": 20})
    read: list[Path] = []
    content_of = pictures._content
    monkeypatch.setattr(pictures, "_content", lambda path: read.append(path) or content_of(path))  # type: ignore[func-returns-value]
    assert next(open_source(tmp_path).chunks(7)).num_rows == 7 and len(read) == 7
    monkeypatch.setattr(pictures, "PART_BYTES", 1)  # parts of one row
    assert [chunk.num_rows for chunk in open_source(tmp_path).chunks(15)] == [15, 15, 10]


# ---------------------------------------------------------------- encoder


def test_image_shape_is_told_when_pixels_are_all_there_is() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    column = [{"bytes": encoded(pixels), "path": "a"}] * 20
    names = [f"cat/{i} of it.png" for i in range(20)]
    table = pa.table({"image": column, "path": names, "label": ["a", "b"] * 10, "n": np.arange(20.0)})
    alone = Encoder(exclude=["label", "n"]).fit(table)
    assert alone.image_shape == (4, 5, 3) and alone.kinds == {"image": "image", "path": "dropped"}
    np.testing.assert_allclose(alone.transform(table)[7].reshape(4, 5, 3), pixels / 255, rtol=1e-6)
    assert Encoder.from_bytes(alone.to_bytes()).image_shape == (4, 5, 3)
    assert Encoder(exclude=["label"]).fit(table).image_shape is None
    assert Encoder().image_shape is None and Encoder(exclude=["image"]).fit(table).image_shape is None
    two = table.append_column("other", table["image"])
    assert Encoder(exclude=["label", "n"]).fit(two).image_shape is None
    grey = pa.table({"image": [{"bytes": encoded(pixels[..., 0]), "path": "a"}]})
    assert Encoder().fit(grey).image_shape == (4, 5, 1)


def test_names_of_pictures_are_no_features_though_they_tell_the_label() -> None:
    """Few or many, short or long, with repeats or without: the folder's name would give the label away."""
    for names in (
        ["cat/1.jpg"] * 15 + ["dog/2.JPEG"] * 15,
        [f"{['cat', 'dog'][i % 2]}/a b {i}.webp" for i in range(30)],
    ):
        encoder = Encoder().fit(pa.table({"file": names, "n": np.arange(30.0)}))
        assert encoder.kinds["file"] == "dropped"
        assert "file: dropped, names of picture files, which may tell the label" in encoder.describe()


@pytest.mark.parametrize(
    ("size", "shape"),
    [((64, 64), (64, 64)), ((65, 65), (64, 64)), ((640, 320), (32, 64)), ((100, 1000), (64, 8)), ((1000, 5), (5, 64))],
)
def test_large_pictures_are_bounded(size: tuple[int, int], shape: tuple[int, int]) -> None:
    """size: (width, height). shape: (height, width)."""
    table = pa.table({"image": [{"bytes": encoded(np.full((size[1], size[0], 3), 51, np.uint8)), "path": None}]})
    encoder = Encoder().fit(table)
    assert encoder.image_shape == (*shape, 3)
    assert ("resized from" in encoder.describe()[0]) == (max(size) > 64)
    np.testing.assert_allclose(encoder.transform(table), 0.2, rtol=1e-6)


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    deep = np.array([[0, 255 * 256], [128 * 256, 65535]], np.uint16)
    table = pa.table({"image": [{"bytes": encoded(deep), "path": None}]})
    np.testing.assert_allclose(Encoder().fit(table).transform(table)[0] * 255, [0, 255, 128, 255])


def test_truncated_pictures_are_found_and_named(tmp_path: Path) -> None:
    write_pets(tmp_path, {"cat": 12, "dog": 12})
    bad = spoil(tmp_path)
    table = next(open_source(tmp_path).chunks(100))
    encoder = Encoder(exclude=["label"]).fit(table)
    reasons = bad_feature_rows(table, encoder.kinds)
    assert {table["path"][row].as_py() for row in reasons} == bad
    assert set(reasons.values()) == {"image: an image that does not decode", "image: no image"}


def test_images_become_their_path_in_csv(tmp_path: Path) -> None:
    write_table(
        pa.table({"image": [{"bytes": b"abc", "path": "cat/1.png"}, {"bytes": b"abc", "path": None}]}),
        tmp_path / "t.csv",
    )
    assert (tmp_path / "t.csv").read_text().splitlines() == ['"image"', '"cat/1.png"', '"(3 bytes)"']


# ---------------------------------------------------------------- run and audit


def test_run_takes_a_folder_and_sets_bad_pictures_aside(tmp_path: Path) -> None:
    pets = write_pets(tmp_path / "pets", {"cat": 60, "dog": 60, "fox": 20})
    (pets / "dog" / "readme.txt").write_text("")
    bad = spoil(pets)
    state = tmp_path / "state"
    options = ("--label", "label", "--id", "path", "--batch-size", "50", "--classifier", "bayes", "--budget", "2")
    done = call_cli("run", pets, *options, "--state", state, "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["set_aside"] == 4 and summary["classes"] == ["cat", "dog", "fox"]
    judged = sum(summary[word] for word in ("trusted", "rescued", "asked", "corrected", "rejected", "buffered"))
    assert judged == 136
    assert any("1 file of" in told and "left out" in told for told in summary["assumed"])
    aside = {row["id"]: row["reason"] for row in StateFolder(state).history().set_aside()}
    assert set(aside) == bad and aside["cat/1.png"] == "image: an image that does not decode"
    with (state / "questions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["image"] == row["path"] == row["id"]
    again = json.loads(call_cli("run", pets, *options, "--state", state, "--no-report", "--json").stdout)
    assert (again["batches"], again["delivered_again"], again["set_aside"]) == (summary["batches"], 136, 4)
    strict = call_cli("run", pets, *options, "--state", tmp_path / "other", "--strict", "--no-report")
    assert strict.returncode == 2 and "image" in strict.stderr and strict.stderr.count("\n") <= 3


def test_audit_takes_a_folder_and_sets_bad_pictures_aside(tmp_path: Path) -> None:
    pets = write_pets(tmp_path / "pets", {"cat": 60, "dog": 60})
    (pets / "dog" / "7.png").rename(pets / "cat" / "dog7.png")  # a wrong label
    bad = spoil(pets)
    out = tmp_path / "out.csv"
    done = call_cli("audit", pets, "--label", "label", "--id", "path", "--output", out, "--no-report", "--json")
    assert done.returncode == 0, done.stderr
    (note,) = [note for note in json.loads(done.stdout)["notes"] if "does not decode" in note]
    assert note.startswith("4 rows have a picture that does not decode and were set aside: ")
    assert all(name in note for name in bad)
    with out.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 120 and rows["cat/dog7.png"]["is_label_issue"] == "true"
    assert rows["cat/dog7.png"]["predicted_label"] == "dog" and rows["cat/dog7.png"]["image"] == "cat/dog7.png"
    assert all(rows[name]["is_label_issue"] == "false" and not rows[name]["predicted_label"] for name in bad)
    assert all(rows[name]["given_label"] == name.partition("/")[0] for name in bad)
    assert not any("no label" in note for note in json.loads(done.stdout)["notes"])


def test_pictures_that_do_not_decode_get_no_prediction(tmp_path: Path) -> None:
    pets, state = write_pets(tmp_path / "pets", {"cat": 40, "dog": 40}), tmp_path / "state"
    options = (
        "--label",
        "label",
        "--id",
        "path",
        "--batch-size",
        "40",
        "--classifier",
        "bayes",
        "--no-report",
        "--json",
    )
    assert call_cli("run", pets, *options, "--state", state).returncode == 0
    bad = spoil(pets)
    printed = run_cli("predict", pets, "--state", state)
    assert printed.returncode == 0 and printed.stderr.startswith("4 rows have no prediction")
    out = tmp_path / "judged.csv"
    assert call_cli("predict", pets, "--state", state, "--judge", "--output", out).returncode == 0
    with out.open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for name, row in rows.items():
        empty = [not row[cell] for cell in ("predicted_label", "probability", "verdict", "label_score", "likely_label")]
        assert all(empty) if name in bad else not any(empty)


def test_pictures_that_nobody_labelled_are_predicted(tmp_path: Path) -> None:
    """A flat folder, one picture, a sub-folder of a name that is no class; with --judge too, where there is nothing to judge."""
    pets, state, new = write_pets(tmp_path / "pets", {"cat": 30, "dog": 30}), tmp_path / "state", tmp_path / "new"
    assert call_cli("run", pets, "--state", state, "--classifier", "linear", "--batch-size", 30).returncode == 0
    new.mkdir()
    (new / "b.jpg").write_bytes((pets / "dog" / "2.jpg").read_bytes())
    (new / "a.png").write_bytes((pets / "cat" / "1.png").read_bytes())
    (new / "notes.txt").write_text("no picture")
    out = tmp_path / "out.csv"
    for judged in ([], ["--judge"]):
        done = call_cli("predict", new, "--state", state, "--output", out, *judged)
        assert done.returncode == 0, done.stderr
        rows = list(csv.DictReader(out.open()))
        assert [(row["path"], row["predicted_label"]) for row in rows] == [("a.png", "cat"), ("b.jpg", "dog")]
        assert not judged or not any(row["verdict"] or row["label_score"] for row in rows)
    assert call_cli("predict", new / "b.jpg", "--state", state, "--output", out).returncode == 0
    assert [row["predicted_label"] for row in csv.DictReader(out.open())] == ["dog"]
    (new / "unknown").mkdir()
    (new / "a.png").rename(new / "unknown" / "a.png")
    assert call_cli("predict", new, "--state", state, "--judge", "--output", out).returncode == 0
    assert [row["predicted_label"] for row in csv.DictReader(out.open())] == ["cat"]
    done = call_cli("run", new / "b.jpg", "--state", tmp_path / "none")
    assert done.returncode == 2 and "is one picture; name a folder" in done.stderr


def test_arrays_of_pictures_are_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((7, 9), (7, 9, 1), (7, 9, 3)):
        X = rng.integers(0, 256, (10, *shape)).astype(np.uint8)
        np.savez(tmp_path / "p.npz", X=X, y=np.arange(10) % 2, who=np.array(list("abcdefghij")))
        source = open_source(tmp_path / "p.npz")
        assert source.columns == ("image", "label", "who") and source.num_rows == 10
        table = pa.concat_tables(source.chunks(3))
        pixels = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table["image"].to_pylist()]
        np.testing.assert_array_equal(np.array(pixels).reshape(X.shape), X)
        assert table["who"].to_pylist() == list("abcdefghij")
    np.savez(tmp_path / "p.npz", X=X.astype(float), y=np.arange(10) % 2)
    assert open_source(tmp_path / "p.npz").columns == ("x", "label")


def test_links_to_folders_are_counted(tmp_path: Path) -> None:
    pets = write_pets(tmp_path / "pets", {"cat": 3, "dog": 3})
    (tmp_path / "more").mkdir()
    (pets / "cat" / "linked").symlink_to(tmp_path / "more")
    found = find_pictures(pets)
    assert found is not None and found.skipped == 1


def test_a_row_that_was_set_aside_is_explained(tmp_path: Path) -> None:
    pets, state = write_pets(tmp_path / "pets", {"cat": 40, "dog": 40}), tmp_path / "state"
    spoil(pets)
    options = ("--label", "label", "--id", "path", "--batch-size", "40", "--classifier", "bayes", "--no-report")
    assert call_cli("run", pets, *options, "--state", state).returncode == 0
    told = call_cli("explain", "cat/1.png", "--state", state)
    assert (
        told.returncode == 2 and "was set aside and never judged: image: an image that does not decode" in told.stderr
    )


def test_one_odd_picture_does_not_decide_for_all() -> None:
    rng = np.random.default_rng(0)
    usual = [encoded(rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)) for _ in range(9)]
    for odd in (np.zeros((1, 1), np.uint8), np.zeros((900, 2, 3), np.uint8), np.zeros((12, 16), np.uint8)):
        column = pa.array([{"bytes": content, "path": ""} for content in (encoded(odd), *usual)])
        assert Encoder().fit(pa.table({"image": column})).image_shape == (12, 16, 3)


def test_more_classes_than_half_of_the_rows_when_they_are_named(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(60) % 30 + 0.1, "label": [f"c{at % 30}" for at in range(60)]})
    write_table(table, tmp_path / "t.parquet")
    options = ("--label", "label", "--batch-size", "30", "--classifier", "bayes", "--no-report")
    told = call_cli("run", tmp_path / "t.parquet", *options, "--state", tmp_path / "a")
    assert told.returncode == 2 and "take a larger --first-batch" in told.stderr
    named = ",".join(f"c{at}" for at in range(30))
    done = call_cli(
        "run", tmp_path / "t.parquet", *options, "--clean-rows", "30", "--classes", named, "--state", tmp_path / "b"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("LABELWRIGHT_DATA" not in os.environ, reason="needs the folder of benchmark files")
def test_image_sets_by_name() -> None:
    from labelwright.cli.run import source_of

    table = next(source_of("gtsrb", None).chunks(50))
    assert table.column_names == ["image", "label"] and Encoder().fit(table.select(["image"])).image_shape == (
        32,
        32,
        3,
    )
