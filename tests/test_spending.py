"""One budget in money: the value of an answer against enumeration, what is bought first, accuracies, limits."""

from __future__ import annotations

import numpy as np
import pytest

from labelwright.bench.live import Person
from labelwright.bench.money import run_money, simulated, sources
from labelwright.bench.pieces import How
from labelwright.errors import SettingsError
from labelwright.spending import Source, spend


def enumerated(belief: np.ndarray, source: Source) -> float:
    """The expected drop of 1 - sum p^2, answer by answer."""
    k, top = len(belief), int(belief.argmax())
    answers = (0, 1) if source.check else range(k)
    after = 0.0
    for said in answers:
        if source.check:
            seen = np.where(
                np.arange(k) == top,
                source.right if said else 1 - source.right,
                1 - source.right if said else source.right,
            )
        else:
            seen = np.where(np.arange(k) == said, source.right, (1 - source.right) / (k - 1))
        joint = belief * seen
        after += (joint**2).sum() / joint.sum()
    return after - (belief**2).sum()


@pytest.mark.parametrize(
    "source", [Source("expert", 1.0, 0.9), Source("crowd", 0.1, 0.6, times=3), Source("check", 0.3, 0.8, check=True)]
)
def test_the_worth_of_an_answer_is_the_expected_drop_of_the_risk(source):
    for belief in (np.array([0.5, 0.3, 0.2]), np.array([0.05, 0.9, 0.03, 0.02]), np.array([0.5, 0.5])):
        assert source.worth(belief[None])[0] == pytest.approx(max(enumerated(belief, source), 0.0))


def test_an_answer_is_taken_in_by_bayes_rule():
    belief = np.array([[0.6, 0.3, 0.1]])
    sure = spend(belief, [Source("expert", 1.0, 0.9)], lambda name, row, about: 1, 1.0)
    expected = belief[0] * np.array([0.05, 0.9, 0.05])
    assert sure.belief[0] == pytest.approx(expected / expected.sum())
    no = spend(belief, [Source("check", 1.0, 0.8, check=True)], lambda name, row, about: 0, 1.0)
    expected = belief[0] * np.array([0.2, 0.8, 0.8])
    assert no.belief[0] == pytest.approx(expected / expected.sum()) and no.label[0] == 1


def test_money_is_never_exceeded_and_goes_where_it_is_worth_most():
    belief = np.array([[0.99, 0.01], [0.55, 0.45], [0.7, 0.3]])
    order: list[int] = []

    def ask(name: str, row: int, about: int) -> int:
        order.append(row)
        return 0

    spent = spend(belief, [Source("expert", 1.0, 0.95)], ask, 2.5)
    assert order == [1, 2] and spent.cost == 2.0 and spent.asked.tolist() == [False, True, True]
    assert spend(belief, [Source("expert", 1.0, 0.95)], ask, 0.5).cost == 0.0
    order.clear()
    cheap = spend(belief, [Source("expert", 1.0, 0.95), Source("crowd", 0.1, 0.8, times=2)], ask, 0.45)
    assert cheap.counts == {"expert": 0, "crowd": 4} and cheap.cost == pytest.approx(0.4)


def test_a_source_is_asked_about_a_row_at_most_as_often_as_allowed():
    belief, asked = np.full((5, 3), 1 / 3), list[int]()

    def ask(name: str, row: int, about: int) -> int:
        asked.append(row)
        return len(asked) % 3

    spent = spend(belief, [Source("crowd", 1.0, 0.5, times=3)], ask, 1000.0)
    assert np.bincount(asked).tolist() == [3] * 5 and spent.counts == {"crowd": 15}


def test_how_good_sources_are_is_learned_from_their_answers():
    rng = np.random.default_rng(0)
    y, belief = rng.integers(4, size=600), np.full((600, 4), 0.25)

    def ask(name: str, row: int, about: int) -> int:
        right = rng.random() < (0.9 if name == "good" else 0.4)
        return int(y[row]) if right else int((y[row] + rng.integers(1, 4)) % 4)

    spent = spend(belief, [Source("good", 1.0, 0.7, times=2), Source("bad", 1.0, 0.7, times=2)], ask, 2000.0)
    assert spent.accuracy["good"] > 0.8 and spent.accuracy["bad"] < 0.6
    assert (spent.label == y).mean() > 0.85


def test_settings_that_cannot_be_are_one_sentence():
    with pytest.raises(SettingsError, match="cost=0"):
        Source("free", 0, 0.9)
    with pytest.raises(SettingsError, match="accuracy=1"):
        Source("god", 1, 1.5)
    for bad in ([], [Source("expert", 1.0, 0.9)]):
        with pytest.raises(SettingsError, match="a budget of"):
            spend(np.ones((1, 1)), bad, lambda *_: 0, -1.0)


def test_the_experiment_runs_and_the_split_is_no_worse_than_its_parts(tmp_path, monkeypatch):
    from labelwright.bench import money

    monkeypatch.setattr(money, "ROWS", 500)
    result = run_money("digits", How(seeds=1, output=tmp_path))
    assert (tmp_path / "money-digits-compact.json").exists() and (tmp_path / "money-digits-compact.png").exists()
    for found in result["cells"].values():
        wrong = {name: cell["wrong"]["mean"] for name, cell in found.items()}
        assert wrong["all, by value per cost"] <= wrong["expert, rows at random"] and min(wrong.values()) >= 0
    assert len(money.table(result)) == 10


def test_simulated_people_err_as_often_as_they_should():
    y, crowd = np.zeros(2000, np.int64), type("C", (), {"low": 0.6, "high": 0.6, "price": 0.1})()
    ask = simulated(y, 5, crowd, 0)
    assert np.mean([ask("crowd", row, 0) == 0 for row in range(2000)]) == pytest.approx(0.6, abs=0.04)
    assert np.mean([ask("check", row, 0) for row in range(2000)]) == pytest.approx(0.98, abs=0.01)
    assert [s.name for s in sources(("expert", "crowd"), crowd)] == ["expert", "crowd"]


def test_the_scripted_person_is_swayed_by_suggestions_as_written():
    truth = ["a"] * 4000
    alone = Person(truth, ["a", "b", "c"], 0)
    errors = np.mean([alone.choose(row, None) != "a" for row in range(4000)])
    assert errors == pytest.approx(0.05, abs=0.012) and alone.wrong / alone.answers == errors
    right = np.mean([Person(truth, ["a", "b", "c"], 0).choose(row, "a") != "a" for row in range(2000)])
    led = np.mean([Person(truth, ["a", "b", "c"], 0).choose(row, "b") == "b" for row in range(2000)])
    assert right == 0.0 and led == pytest.approx(0.145, abs=0.025)
