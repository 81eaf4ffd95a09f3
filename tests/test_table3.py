"""Table III, Fig. 7 and transfer on made-up pictures: same rows for all, finished pieces read back, plain errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import call_cli, run_through_kills
from test_torch_classifier import bars

torch = pytest.importorskip("torch")

from labelwright.bench import deep, imitation, table3, transfer  # noqa: E402
from labelwright.bench.imitation import Setting, balanced_half, draw, steady  # noqa: E402
from labelwright.bench.pieces import How  # noqa: E402
from labelwright.errors import DataError, SettingsError  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Setting("bars", "compact", rows=240, held=60, epochs=2, network="compact-small", augment="none", seeds=1)


def made_pictures(dataset: str = "bars", data_dir: str | None = None) -> deep.Pictures:
    X, y = bars(400)
    X_test, y_test = bars(200, seed=1)
    return deep.Pictures(X.reshape(400, -1), y, X_test.reshape(200, -1), y_test, (16, 16, 3), 3)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(imitation, "pictures", made_pictures)
    monkeypatch.setattr(deep, "pictures", made_pictures)
    monkeypatch.setattr(imitation, "SETTINGS", {("bars", "compact"): TINY})
    monkeypatch.setattr(transfer, "STREAM", (3, 60))
    return TINY


def test_rows_are_wrong_exactly_as_often_as_it_says_and_the_half_is_balanced(tiny):
    drawn = draw(tiny, 0, None)
    for true, given in ((drawn.true, drawn.given), (drawn.y_test, drawn.test_given)):
        assert int((true != given).sum()) == int(0.3 * len(true))
    half = draw(tiny, 0, None, half=True)
    counts, halves = np.bincount(drawn.true), np.bincount(half.true)
    np.testing.assert_array_equal(halves, (counts + 1) // 2)
    whole = {row.tobytes(): given for row, given in zip(drawn.X, drawn.given, strict=True)}
    assert all(whole[row.tobytes()] == given for row, given in zip(half.X, half.given, strict=True))
    assert not {row.tobytes() for row in drawn.X_held} & set(whole)
    np.testing.assert_array_equal(draw(tiny, 0, None).given, drawn.given)
    assert len(balanced_half(np.repeat([0, 1], [4, 10]), np.random.default_rng(0))) == 7


def test_steady_is_when_it_stays_near_its_end():
    assert steady([90.0] * 5) == 1
    assert steady([10.0, 89.5, 80.0, 89.6, 90.0, 90.0, 90.0, 90.0, 90.0, 90.0]) == 4


def test_table3_runs_every_method_and_reads_finished_pieces_back(tiny, tmp_path, monkeypatch):
    seen = []
    result = table3.run_table3(
        "bars", How(output=tmp_path, progress=lambda what, done, total: seen.append((done, total)))
    )
    assert set(result["methods"]) == set(table3.METHODS) and seen[-1][0] == seen[-1][1]
    for name, row in result["methods"].items():
        assert ("half" in row) == (name not in table3.WHOLE_ONLY)
        assert ("own" in row["all"]) == name.startswith("copynet")
        assert len(row["all"]["curve"]) == 2 and row["all"]["cost"] > 0
        shares = row["all"]["shares"]["fused"]
        assert shares[0] == pytest.approx(row["all"]["alone"]["mean"], abs=0.01)
        assert shares[-1] == pytest.approx(row["all"]["fused"]["mean"], abs=0.01)
    truth = {name: row["all"]["truth"] for name, row in result["methods"].items()}
    assert truth["copynet-fusing 10 %"] == 24 and truth["glc 10 %"] == 24 and truth["d2l"] == 0
    assert (tmp_path / "table3-bars-compact.png").stat().st_size > 20_000
    rows = table3.table(result)
    assert len({len(row) for row in rows}) == 1 and rows[1][:1] == ["copying the label"]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a finished piece was run again")

    monkeypatch.setattr(table3, "run_piece", fail)
    again = table3.run_table3("bars", How(output=tmp_path))
    assert again["methods"] == result["methods"]


def test_a_piece_run_again_gives_the_same_numbers(tiny, tmp_path):
    names = ("plain", "copynet-fusing", "co-teaching")
    first = table3.run_table3("bars", How(output=tmp_path / "a"), methods=names)
    part = table3.run_table3("bars", How(output=tmp_path / "b"), methods=names[:2])
    assert set(part["methods"]) == set(names[:2])
    second = table3.run_table3("bars", How(output=tmp_path / "b"), methods=names)
    for name in names:
        for share in ("all", "half"):
            one, other = first["methods"][name][share], second["methods"][name][share]
            assert one["alone"] == other["alone"] and one["curve"] == other["curve"]


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_table3
from labelwright.bench import deep, imitation, table3, transfer
from labelwright.bench.pieces import How
deep.pictures = imitation.pictures = test_table3.made_pictures
imitation.SETTINGS = {{("bars", "compact"): test_table3.TINY}}
transfer.STREAM = (3, 60)
table3.run_table3("bars", How(output=Path(sys.argv[1])), methods=test_table3.SOME)
transfer.run_transfer("bars", How(output=Path(sys.argv[1])))
"""
SOME = ("plain", "copynet", "d2l", "co-teaching", "forward", "dividemix", "disc")


def test_killed_anywhere_and_started_again_the_comparison_ends_with_the_same_numbers(tiny, tmp_path):
    whole = table3.run_table3("bars", How(output=tmp_path / "whole"), methods=SOME)
    moved = transfer.run_transfer("bars", How(output=tmp_path / "whole"))
    run_through_kills(CHILD.format(tests=str(Path(__file__).parent)), tmp_path / "cut", kills=3)
    found = json.loads((tmp_path / "cut" / "table3-bars-part-compact.json").read_text())
    for name, parts in whole["methods"].items():
        for part, row in parts.items():
            for figure in ("alone", "fused", "own", "chosen", "curve", "shares", "steady", "rate"):
                assert found["methods"][name][part].get(figure) == row.get(figure), (name, part, figure)
    found = json.loads((tmp_path / "cut" / "transfer-bars-compact.json").read_text())
    assert (found["patterns"], found["stream"]) == (moved["patterns"], moved["stream"])


def test_full_clean_learns_the_truth_and_nobody_else_sees_it(tiny, tmp_path, monkeypatch):
    told = {}

    def watched(setting, drawn, seed, method, path, *, trusted, device, tick):
        told[path.stem] = (int((drawn.given != drawn.true).sum()), trusted)
        raise DataError("seen enough")

    monkeypatch.setattr(table3, "run_piece", watched)
    for name in ("plain", "full-clean", "glc 10 %"):
        with pytest.raises(DataError, match="seen enough"):
            table3.run_table3("bars", How(output=tmp_path), methods=(name,))
    assert told == {"30-all-plain": (72, 0.0), "30-all-full-clean": (0, 1.0), "30-all-glc-10-%": (72, 0.1)}


def test_fig7_has_a_panel_for_each_rate(tiny, tmp_path):
    result = table3.run_fig7("bars", How(output=tmp_path))
    assert list(result["noise"]) == ["20", "30", "40"]
    assert set(result["noise"]["20"]) == {f"{m} {p}" for m in table3.FIG7_METHODS for p in ("all", "half")}
    assert (tmp_path / "fig7-bars-compact.png").exists() and len(table3.fig7_table(result)) == 19


def test_transfer_retrains_the_expert_alone(tiny, tmp_path):
    result = transfer.run_transfer("bars", How(output=tmp_path))
    assert list(result["patterns"]) == ["pair", "sparse"]  # nobody published which bars are taken for each other
    names = set(result["patterns"]["pair"]["fusing"])
    assert {
        "Expert as it was",
        "all layer(s), 24 chosen",
        "from nothing, truth of 100 %",
        "Bayes' rule, 5 drawn",
    } <= names
    alone = {result["patterns"][p]["dense"]["Amateur alone"]["mean"] for p in result["patterns"]}
    assert len(alone) == 1  # the same Amateur for every pattern
    stream = result["stream"]["fusing"]
    assert {len(values) for values in stream.values()} == {3}
    assert (tmp_path / "transfer-bars-compact.png").exists()
    again = transfer.run_transfer("bars", How(output=tmp_path))
    assert again["patterns"] == result["patterns"]


def test_the_sparse_pattern_is_the_same_at_every_call(tiny):
    corrupt = transfer.corruption("sparse", tiny, 10)
    y = np.arange(10).repeat(200)
    pairs = [
        set(zip(y[:n].tolist(), corrupt(y[:n], None, np.random.default_rng(n)).tolist(), strict=True))
        for n in (2000, 1000)
    ]
    assert pairs[1] <= pairs[0] and len(pairs[0]) == 10 * 5


def test_the_commands_print_a_table_and_json(tiny, tmp_path):
    for name in ("fig7", "transfer"):
        done = call_cli("bench", name, "--dataset", "bars", "--output", tmp_path, "--json")
        assert done.returncode == 0, done.output
        assert json.loads(done.stdout)["experiment"] == name
        done = call_cli("bench", name, "--dataset", "bars", "--output", tmp_path)
        assert done.returncode == 0 and f"wrote {tmp_path}" in done.stdout


def test_what_cannot_run_is_one_sentence(tiny, monkeypatch, tmp_path):
    done = call_cli("bench", "table3", "--dataset", "iris")
    assert done.returncode == 2 and "there is no setting for 'iris'" in done.stderr
    done = call_cli("bench", "table3", "--dataset", "bars", "--method", "magic")
    assert done.returncode == 2 and "'magic' is no row of the table" in done.stderr
    with pytest.raises(SettingsError, match="there is no setting"):
        table3.run_table3("bars", How(profile="paper", output=tmp_path))
    monkeypatch.setattr(imitation, "SETTINGS", {("bars", "compact"): Setting("bars", "compact", rows=390, held=60)})
    with pytest.raises(DataError, match="take fewer"):
        table3.run_table3("bars", How(output=tmp_path))
