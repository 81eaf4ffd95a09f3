"""Who answers: always right, sometimes wrong, later by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelwright.errors import DataError, SettingsError
from labelwright.experts import FallibleExpert, FileExpert, NoExpert, Oracle
from labelwright.truth import Truth
from labelwright.types import NO_LABEL, Answer, Queries, Rows, row_keys

TRUTH = Truth({0: np.array([2, 1, 0]), 1: np.arange(200) % 4})


def about(keys: np.ndarray) -> Queries:
    n = len(keys)
    return Queries(Rows(np.zeros((n, 1)), np.zeros(n, np.int64), keys), np.zeros(n), np.zeros(n, int), np.zeros(n))


def test_nobody_answers_nothing() -> None:
    assert list(NoExpert().ask(about(row_keys(0, 3)))) == list(NoExpert().collect(about(row_keys(0, 3)))) == []


def test_oracle_is_right_at_its_price_and_pays_what_is_owed() -> None:
    oracle = Oracle(TRUTH, cost=2.5, name="ann")
    expected = [Answer(2, 0, "ann", 2.5), Answer(0, 2, "ann", 2.5)]
    assert list(oracle.ask(about(row_keys(0, 3)[[2, 0]]))) == expected
    assert list(oracle.collect(about(row_keys(0, 3)[[2, 0]]))) == expected
    assert list(oracle.ask(Queries.none())) == []


def said(expert: FallibleExpert, keys: np.ndarray) -> dict[int, int]:
    return {answer.key: answer.label for answer in expert.ask(about(keys))}


def test_fallible_expert_repeats_itself() -> None:
    keys = row_keys(1, 200)
    first = said(FallibleExpert(TRUTH, classes=4, error_rate=0.3, seed=5), keys)
    # in another order, in other company, after a restart: the same words
    again = FallibleExpert(TRUTH, classes=4, error_rate=0.3, seed=5)
    assert {**said(again, keys[:77:-1]), **said(again, keys[:78])} == first
    assert said(FallibleExpert(TRUTH, classes=4, error_rate=0.3, seed=6), keys) != first


def test_fallible_expert_errs_at_its_rate_to_every_other_class() -> None:
    keys = row_keys(1, 200)
    got = np.array(list(said(FallibleExpert(TRUTH, classes=4, error_rate=0.3), keys).values()))
    true = TRUTH.of(keys)
    wrong = got != true
    assert abs(wrong.sum() - 60) <= 3 * np.sqrt(200 * 0.3 * 0.7)
    assert set((got[wrong] - true[wrong]) % 4) == {1, 2, 3}
    assert said(FallibleExpert(TRUTH, classes=4, error_rate=0.0), keys) == dict(zip(keys.tolist(), true.tolist()))
    all_wrong = said(FallibleExpert(TRUTH, classes=4, error_rate=1.0), keys)
    assert all(label != t and 0 <= label < 4 for label, t in zip(all_wrong.values(), true))
    assert said(FallibleExpert(TRUTH, classes=1, error_rate=1.0), row_keys(0, 3)) == {0: 2, 1: 1, 2: 0}
    with pytest.raises(SettingsError, match="not a share"):
        FallibleExpert(TRUTH, classes=4, error_rate=30)


@pytest.fixture
def by_file(tmp_path: Path) -> FileExpert:
    return FileExpert(tmp_path / "answers.csv", ids={0: "r1", 1: "r2", 2: "r3"}, classes=("cat", "dog"))


def test_file_expert_hears_what_stands_in_the_file_by_now(by_file: FileExpert) -> None:
    open_questions = about(row_keys(0, 4))  # the fourth has no name: its rows were erased
    assert list(by_file.ask(open_questions)) == list(by_file.collect(open_questions)) == []
    by_file.path.write_text("id,label,remark\nr3,dog,\nr1,,not yet\nelsewhere,cat,\n", encoding="utf-8")
    assert list(by_file.collect(open_questions)) == [Answer(2, 1, "expert")]
    by_file.path.write_text("label,id\ndog,r3\n cat ,r1\nUnsure,r2\n", encoding="utf-8")
    rest = about(row_keys(0, 2))  # r3 is answered: it is asked about no more, though it stands in the file
    assert list(by_file.collect(rest)) == [Answer(0, 0, "expert"), Answer(1, NO_LABEL, "expert")]
    assert list(by_file.collect(Queries.none())) == []


@pytest.mark.parametrize(
    ("text", "message"), [("id,label\nr1,bird\n", "'bird' for row 'r1'"), ("id,answer\nr1,cat\n", "'id' and 'label'")]
)
def test_file_expert_refuses_what_it_cannot_read(by_file: FileExpert, text: str, message: str) -> None:
    by_file.path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(by_file.collect(about(row_keys(0, 1))))


def test_a_class_may_be_named_unsure(tmp_path: Path) -> None:
    expert = FileExpert(tmp_path / "a.csv", ids={0: "r1", 1: "r2"}, classes=("sure", "unsure"))
    expert.path.write_text("id,label\nr1,unsure\nr2,UNSURE\n", encoding="utf-8")
    assert [a.label for a in expert.collect(about(row_keys(0, 2)))] == [1, NO_LABEL]
