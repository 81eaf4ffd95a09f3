"""The report says what the ledger holds: numbers counted by hand, nothing fetched, nothing unescaped."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from labelwright.errors import LedgerError
from labelwright.ledger import SqlLedger
from labelwright.ledger.change import erase_rows
from labelwright.posterior import NoiseModel
from labelwright.report import report_data, write_report
from labelwright.report.page import page
from labelwright.report.tally import FATES, binned
from labelwright.runner import StateFolder
from labelwright.types import Answer, Answers, Batch, Corrections, Queries, Rows, Split, Verdict

EVIL = "<script>alert(1)</script>"
NAMES = ("cat", "dog & <b>$x^2$</b>")
COLUMNS = {"label": "label", "id": "id", "truth": "true", "trusted": None, "source": None, "drop": []}
T, R, A, C, X, B = (
    Verdict.TRUSTED,
    Verdict.RESCUED,
    Verdict.ASKED,
    Verdict.CORRECTED,
    Verdict.REJECTED,
    Verdict.BUFFERED,
)


class Hand:
    """A ledger written by hand, batch by batch."""

    def __init__(self, path: Path, names: tuple[str, ...] = NAMES):
        self.state, self.names, self.rows = StateFolder(path), names, 0
        self.state.claim()
        self.ledger = SqlLedger(self.state.url, settings={"columns": COLUMNS, "budget": 1, "seed": 0}, classes=names)

    def add(
        self,
        verdicts: list[Verdict],
        given: list[int],
        true: list[int],
        sure: list[float],
        *,
        fixed: dict[int, int] | None = None,
        stored: bool = True,
        text: str = EVIL,
    ) -> Batch:
        """sure: P(given label) by the models, before the noise is considered. fixed: position -> corrected class."""
        n, k, number = len(given), len(self.names), self.ledger.next_number
        ids = np.array([f"r{self.rows + i}" for i in range(n)], object)
        self.rows += n
        label, truth = ([self.names[c] for c in codes] for codes in (given, true))
        table = pa.table({"id": ids.tolist(), "text": [text] * n, "label": label, "true": truth})
        y = np.array(given)
        clean = np.zeros(n, bool)
        batch = Batch(f"b{number}", number, np.zeros((n, 1)), y, clean, ids, table if stored else None)
        proba = np.repeat((1 - np.array(sure))[:, None] / (k - 1), k, axis=1)
        proba[np.arange(n), y] = sure
        noise = NoiseModel(np.full((k, k), 1.0) + 9 * np.eye(k), np.zeros((k, k)))
        split = Split(batch.rows, np.array(verdicts), y, batch.clean, proba, proba, noise, {X: "quality model"})
        asked = batch.rows.take(np.array(verdicts) == A)
        m = len(asked)
        self.ledger.record(batch, split, Queries(asked, np.ones(m), (asked.y + 1) % k, np.full(m, 0.75), "margin"))
        rows = batch.rows.take(np.array(sorted(fixed or {}), np.int64))
        new = Rows(rows.X, np.array([(fixed or {})[i] for i in sorted(fixed or {})], np.int64), rows.keys)
        self.ledger.commit(batch, split, Answers.none(1), Corrections(new, np.full(len(new), 0.97)), {})
        return batch

    def answer(self, batch: Batch, at: int, label: int) -> None:
        """The expert's answer about row ``at`` of ``batch``, for a later commit to take in: :attr:`late`."""
        rows = batch.rows.take(np.array([at]))
        self.ledger.note(Answer(int(rows.keys[0]), label, "Ann", 1.0))
        self.late = Answers(rows, np.array([label]), ("Ann",), np.ones(1))


def small(path: Path) -> Hand:
    """Nine rows in two batches; r1, r3 and r6 came with a wrong label. r1 is answered, r8 is an open question."""
    hand = Hand(path)
    first = hand.add([T, A, R, X], [0, 0, 1, 1], [0, 1, 1, 0], [0.9, 0.4, 0.6, 0.01])
    hand.answer(first, 1, 1)
    commit, late = hand.ledger.commit, hand.late

    def with_answer(batch: Batch, split: Split, answers: Answers, fixed: Corrections, parts: Any) -> None:
        commit(batch, split, late, fixed, parts)

    hand.ledger.commit = with_answer  # type: ignore[method-assign]
    hand.add([T, T, C, B, A], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0], [0.9, 0.9, 0.2, 0.1, 0.3], fixed={2: 1})
    hand.ledger.set_aside("b9", [(0, "bad1", "no label", EVIL), (1, "bad2", "label 'cow' is none of them", "x")])
    hand.ledger.measured(1, {"test_accuracy": 0.875, "test_rows": 8})
    return hand


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StateFolder, dict[str, Any], str]:
    state = small(tmp_path_factory.mktemp("small")).state
    return state, report_data(state), write_report(state).read_text(encoding="utf-8")


def without(text: str) -> str:
    """The page's text as read: tags gone, spaces plain."""
    return re.sub(r"\s+", " ", re.sub(r"<(style|svg).*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL).replace("\xa0", " "))


def test_numbers_are_those_counted_by_hand(made: Any) -> None:
    _, data, html = made
    assert data["totals"] == {
        "rows": 9, "batches": 2, "kept": 6, "trusted": 3, "rescued": 1, "corrected": 1, "expert": 1, "unanswered": 1,
        "asked": 2, "answered": 1, "rejected": 1, "waiting": 1, "set_aside": 2,
    }  # fmt: skip
    assert [[b[f] for f in FATES] for b in data["batches"]] == [[2, 0, 1, 0, 1, 0], [2, 1, 0, 1, 0, 1]]
    # the noise model's counts are 10 on the diagonal and 1 off it: 2 of 22
    assert "9 rows arrived in 2 batches; about 9.1 % of the labels look wrong" in without(html)
    sentence = "3 are trusted, 1 rescued, 1 corrected and 1 settled by the expert; 1 rejected, 1 waiting for an answer"
    assert sentence + " and 1 still waiting to be judged again." in without(html)
    assert "87.5 % of 8 test rows" in without(html)


def test_truth_is_counted_by_hand_with_its_control(made: Any) -> None:
    truth, html = made[1]["truth"], without(made[2])
    shares = {
        "wrong_share": 3 / 9, "given_share": 6 / 9, "kept_share": 1.0, "kept_given_share": 4 / 6,
        "dropped_precision": 1 / 2, "dropped_recall": 1 / 3, "doubted_precision": 3 / 5, "doubted_recall": 1.0,
        "corrected_share": 1.0, "expert_share": 1.0,
    }  # fmt: skip
    assert {name: truth[name] for name in shares} == pytest.approx(shares)
    assert "66.7 % were right" in html and "1 of 3" in html


def test_questions_classes_and_doubtful_rows(made: Any) -> None:
    data = made[1]
    asked = data["questions"]
    assert (asked["answered"], asked["found_wrong"], asked["per_answer"], asked["found"]) == (1, 1, 1.0, [1])
    assert asked["random"] == pytest.approx(3 / 9) and [q["id"] for q in asked["open"]] == ["r8"]
    classes = {c["class"]: c for c in data["classes"]}
    assert (classes["cat"]["given"], classes["cat"]["trusted_share"]) == (5, 2 / 5)
    assert (classes["cat"]["corrected_to"], classes["cat"]["corrected_times"]) == (NAMES[1], 2)
    assert (classes[NAMES[1]]["given"], classes[NAMES[1]]["corrected_to"]) == (4, None)
    worst = data["doubtful"]
    assert [r["id"] for r in worst[:2]] == ["r3", "r7"] and "r1" not in {r["id"] for r in worst}
    assert worst[0]["given"] == NAMES[1] and worst[0]["belief"]["label"] == "cat" and worst[0]["true"] == "cat"
    assert worst[0]["cells"] == [{"name": "text", "text": EVIL, "picture": None, "photo": False}]
    assert [(r["reason"], r["count"]) for r in data["set_aside"]["reasons"]] == [
        ("no label", 1),
        ("label '…' is none of them", 1),
    ]


def test_page_is_one_file_and_escaped(made: Any) -> None:
    html = made[2]
    assert EVIL not in html and "&lt;script&gt;alert(1)" in html and "<script" not in html
    assert NAMES[1] not in html and "dog &amp; &lt;b&gt;" in html
    assert not re.search(r"""(?:src|href|action|data)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert not re.search(r"url\(\s*[\"']?(?!#)|@import|<link|<iframe|<object", html)
    targets = set(re.findall(r'\bid="([^"]+)"', html))
    assert len(targets) == len(re.findall(r'\bid="', html))  # no id twice
    assert {used for used in re.findall(r'href="#([^"]+)"', html)} <= targets
    assert {used for used in re.findall(r"url\(#([^)]+)\)", html)} <= targets


def test_every_figure_is_a_file(made: Any) -> None:
    folder = made[0].path / "figures"
    assert {p.stem for p in folder.iterdir()} == {"accuracy", "verdicts", "noise", "matrix", "per_answer", "answers"}
    for path in folder.iterdir():
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            with Image.open(path) as image:
                assert image.format == "PNG" and image.width > 300 and len(image.convert("L").getcolors()) > 3
    assert made[2].count('role="img" aria-label="') >= 10  # each in two widths


def test_data_is_json_and_head_is_the_ledgers(made: Any) -> None:
    state, data, html = made
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    ledger = SqlLedger(state.url, settings=state.history().settings)
    assert (data["provenance"]["entries"], data["provenance"]["head"]) == (ledger.seq, ledger.head)
    assert ledger.head in html and "labelwright verify --state" in html


def test_without_truth_it_is_not_shown(tmp_path: Path) -> None:
    state = small(tmp_path / "s").state
    data = report_data(state, truth=False)
    assert data["truth"] is None and all(b["true_noise"] is None for b in data["batches"])
    assert all(r["true"] is None for r in data["doubtful"])
    output = write_report(state, tmp_path / "new" / "there.html", truth=False)
    assert output == tmp_path / "new" / "there.html" and "Against the truth" not in output.read_text()


def test_empty_ledger_and_no_ledger(tmp_path: Path) -> None:
    hand = Hand(tmp_path / "s")
    html = write_report(hand.state).read_text()
    assert (
        "No batch was finished yet." in html
        and "--test FILE" in html
        and not list((tmp_path / "s" / "figures").iterdir())
    )
    with pytest.raises(LedgerError, match="there is no ledger"):
        write_report(StateFolder(tmp_path / "none"))


def test_erased_and_unstored_rows(tmp_path: Path) -> None:
    hand = Hand(tmp_path / "s")
    hand.add([T, X], [0, 1], [0, 0], [0.9, 0.1])
    hand.add([T, X], [0, 1], [0, 0], [0.9, 0.2], stored=False)
    erase_rows(hand.ledger, ["r1"])
    data = report_data(hand.state, models=False)
    assert {r["id"]: r["gone"] for r in data["doubtful"]} == {
        "r0": None,
        "r1": "erased",
        "r2": "not stored",
        "r3": "not stored",
    }
    assert data["truth"]["rows"] == 1  # an erased or unstored row has no known truth
    assert "erased on request" in page(data, {})


def test_two_hundred_classes_make_a_table_of_pairs(tmp_path: Path) -> None:
    hand = Hand(tmp_path / "s", tuple(f"class {i}" for i in range(200)))
    hand.add([X] * 4, [0, 1, 2, 199], [0, 1, 2, 3], [0.01] * 4)
    data = report_data(hand.state, models=False)
    assert data["confusion"]["transition"] is None and len(data["confusion"]["pairs"]) == 15
    html = write_report(hand.state, models=False).read_text()
    assert "The 15 most confused of 200 classes" in html and "another class" in html
    assert not (tmp_path / "s" / "figures" / "matrix.png").exists()


def test_comparison_is_drawn_and_a_broken_one_is_told(tmp_path: Path) -> None:
    hand = Hand(tmp_path / "s")
    hand.add([T, T], [0, 1], [0, 1], [0.9, 0.9])
    path = tmp_path / "s" / "comparison.json"
    path.write_text(json.dumps({"x": "batches", "methods": {"no-sel": {"label": "all $1", "curve": [50, 60]}}}))
    assert "Compared with all $1." in write_report(hand.state).read_text()
    path.write_text("{")
    html = write_report(hand.state).read_text()
    assert "comparison.json cannot be read" in html and not (path.parent / "figures" / "accuracy.png").exists()


def test_many_batches_are_binned() -> None:
    batches = [{"rows": 2, "noise_so_far": i / 1000, **dict.fromkeys(FATES, 0), "kept": 2} for i in range(1000)]
    bins = binned(batches)
    assert len(bins) <= 60 and sum(b["kept"] for b in bins) == 2000
    assert bins[0]["label"] == "1–17" and (bins[-1]["label"], bins[-1]["noise_so_far"]) == ("987–1000", 0.999)
