"""Several experts: the estimates against a slow, separate implementation, simulated raters of known skill, bad input."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from helpers import call_cli
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from labelwright.consensus import MODELS, Ratings
from labelwright.errors import DataError, SettingsError


def simulated(
    skills: list[float], n: int = 400, k: int = 3, each: int | None = None, seed: int = 0
) -> tuple[Ratings, np.ndarray]:
    """Raters of known skill, wrong ones evenly; each row is rated by ``each`` of them, all when None."""
    rng = np.random.default_rng(seed)
    true = rng.integers(k, size=n)
    row, rater, label = [], [], []
    for at in range(n):
        for who in rng.permutation(len(skills))[:each]:
            said = true[at] if rng.random() < skills[who] else (true[at] + rng.integers(1, k)) % k
            row.append(at), rater.append(int(who)), label.append(int(said))
    return Ratings.of(row, rater, label, classes=range(k)), true


def slow_dawid_skene(ratings: Ratings, rounds: int) -> np.ndarray:
    """Dawid and Skene 1979, equations 2.3 to 2.5, with loops and without smoothing but for the prevalence."""
    n, raters, k = ratings.shape
    triples = list(zip(ratings.row.tolist(), ratings.rater.tolist(), ratings.label.tolist(), strict=True))
    proba = np.zeros((n, k))
    for row, _, label in triples:
        proba[row, label] += 1
    proba /= proba.sum(axis=1, keepdims=True)
    for _ in range(rounds):
        confusion = np.zeros((raters, k, k))
        for row, rater, label in triples:
            for true in range(k):
                confusion[rater, true, label] += proba[row, true]
        confusion /= confusion.sum(axis=2, keepdims=True)
        prevalence = (proba.sum(axis=0) + 1) / (n + k)
        new = np.tile(prevalence, (n, 1))
        for row, rater, label in triples:
            for true in range(k):
                new[row, true] *= confusion[rater, true, label]
        proba = new / new.sum(axis=1, keepdims=True)
    return proba


def test_dawid_skene_is_what_the_loops_say():
    ratings, _ = simulated([0.9, 0.7, 0.6, 0.5], n=60)
    for rounds in (1, 5):
        found = ratings.consensus("dawid-skene", prior=0.0, rounds=rounds)
        np.testing.assert_allclose(found.proba, slow_dawid_skene(ratings, rounds), atol=1e-9)
        assert found.rounds == rounds


def test_one_coins_first_round_by_hand():
    ratings = Ratings.of([0, 0, 0, 1, 1, 1], list("abc") * 2, [0, 0, 1, 1, 1, 1])
    votes = np.array([[2 / 3, 1 / 3], [0.0, 1.0]])
    skill = np.array([(2 / 3 + 1) / 2, (2 / 3 + 1) / 2, (1 / 3 + 1) / 2])
    prevalence = (votes.sum(axis=0) + 1) / 4
    wanted = np.empty((2, 2))
    for row, labels in enumerate(([0, 0, 1], [1, 1, 1])):
        for true in range(2):
            chances = [s if said == true else 1 - s for s, said in zip(skill, labels, strict=True)]
            wanted[row, true] = prevalence[true] * np.prod(chances)
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ratings.consensus("one-coin", prior=0.0, rounds=1).proba, wanted, atol=1e-9)


def test_skills_are_found_and_used():
    skills = [0.95, 0.9, 0.6, 0.55, 0.5, 0.45]
    ratings, true = simulated(skills, n=1500)
    right = {model: (ratings.consensus(model).proba.argmax(axis=1) == true).mean() for model in MODELS}
    assert right["dawid-skene"] > right["majority"] + 0.02 and right["one-coin"] > right["majority"] + 0.02
    for model in ("dawid-skene", "one-coin"):
        found = ratings.consensus(model)
        np.testing.assert_allclose(found.skill, skills, atol=0.04)
        low, high = found.skill_interval()
        assert ((low < found.skill) & (found.skill < high)).all()


def test_probabilities_mean_what_they_say():
    ratings, true = simulated([0.8, 0.7, 0.6, 0.6, 0.55], n=3000, each=3)
    found = ratings.consensus("one-coin")
    sure = found.probability
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        here = (sure >= low) & (sure < high)
        assert abs((found.proba.argmax(axis=1) == true)[here].mean() - sure[here].mean()) < 0.06


def test_a_spammer_moves_nothing_and_an_enemy_helps():
    honest, true = simulated([0.7] * 5, n=1000)
    rows, k = np.arange(1000), 3
    enemy = [(int(t) + 1) % k for t in true]  # always the next class: as good as an oracle
    both = Ratings.of(
        [*honest.row.tolist(), *rows.tolist()], [*honest.rater.tolist(), *[9] * 1000], [*honest.label.tolist(), *enemy]
    )
    found = both.consensus("dawid-skene")
    assert (found.proba.argmax(axis=1) == true).mean() > 0.99
    assert found.skill[list(both.raters).index(9)] < 0.02


def test_raters_with_few_answers_are_taken_for_average_ones():
    ratings, true = simulated([0.75] * 60, n=300, each=5)
    shrunk, free = ratings.consensus(), ratings.consensus(prior=0.0)
    accuracy = [(c.proba.argmax(axis=1) == true).mean() for c in (shrunk, free)]
    assert accuracy[0] >= accuracy[1]
    assert np.abs(shrunk.skill - 0.75).mean() < np.abs(free.skill - 0.75).mean()


def test_disputes_come_first_and_agreement_is_counted():
    ratings = Ratings.of([0, 0, 1, 1, 2, 2], ["a", "b"] * 3, ["x", "x", "x", "y", "y", "y"])
    found = ratings.consensus("majority")
    assert found.disputed(1).tolist() == [1] and found.label[[0, 2]].tolist() == ["x", "y"]
    np.testing.assert_allclose(found.agreement, [1.0, 0.5, 1.0])
    assert found.answers.tolist() == [3, 3]


@settings(max_examples=30, deadline=None)
@drawn(st.integers(0, 10**6), st.sampled_from(MODELS))
def test_order_and_names_change_nothing(seed, model):
    rng = np.random.default_rng(seed)
    ratings, _ = simulated([0.9, 0.6, 0.5], n=25, seed=seed)
    shuffled, flipped = rng.permutation(len(ratings.row)), ratings.consensus(model)
    again = Ratings.of(
        ratings.row[shuffled].tolist(), ratings.rater[shuffled].tolist(), (2 - ratings.label[shuffled]).tolist(),
        classes=range(3),
    ).consensus(model)  # fmt: skip
    np.testing.assert_allclose(again.proba[:, ::-1], flipped.proba, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ratings.of([1], ["a"], []), "lengths"),
        (lambda: Ratings.of([1, 2], ["a", "a"], [None, float("nan")]), "nobody has said anything"),
        (lambda: Ratings.of([], [], []), "nobody has said anything"),
        (lambda: Ratings.of([1], ["a"], ["owl"], classes=["cat"]), "'owl' is no class"),
        (lambda: Ratings.of([1, 1], ["a", "a"], ["x", "y"]), "said two things"),
        (lambda: Ratings.of([1, None], ["a", "a"], ["x", "y"]), "1 answers name no row or no rater"),
        (lambda: Ratings.of([1], ["a"], ["x"]).consensus("best"), "unknown"),
        (lambda: Ratings.of([1], ["a"], ["x"]).consensus(prior=-1.0), "negative"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, words):
    with pytest.raises((DataError, SettingsError), match=words):
        make()


def test_one_rating_and_one_class_are_enough():
    found = Ratings.of([7], ["a"], ["x"]).consensus()
    assert found.label.tolist() == ["x"] and found.proba.tolist() == [[1.0]]


# ---------------------------------------------------------------- on the command line


def csv_of(tmp_path, text: str):
    path = tmp_path / "ratings.csv"
    path.write_text(text)
    return path


def test_the_command_agrees_and_says_who_is_good(tmp_path):
    ratings, true = simulated([0.95, 0.9, 0.4], n=300)
    lines = ["id,expert,label"] + [
        f"r{row},{'abc'[rater]},class {label}"
        for row, rater, label in zip(ratings.row, ratings.rater, ratings.label, strict=True)
    ]
    path = csv_of(tmp_path, "\n".join([*lines, "r0,d,unsure", "r1,d,"]))
    done = call_cli("consensus", path, "--output", tmp_path / "agreed.csv", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == 300 and told["answers"] == 900 and len(told["raters"]) == 3 and len(told["disputed"]) == 5
    skills = {one["name"]: one["skill"] for one in told["raters"]}
    assert skills["a"] > 0.9 and skills["c"] < 0.5
    with (tmp_path / "agreed.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = [int(row["label"].split()[1]) == true[int(row["id"][1:])] for row in rows]
    assert list(rows[0]) == ["id", "label", "probability", "agreement", "answers"] and np.mean(right) > 0.9
    shown = call_cli("consensus", path, "--model", "one-coin").stdout
    assert "900 answers of 3 people about 300 rows" in shown and "least settled" in shown


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("id,expert,label\n", [], "no complete row"),
        ("id,who,label\n1,a,x\n", [], "expert"),
        ("id,expert,label\n1,a,x\n1,a,y\n", [], "said two things"),
        ("id,expert,label\n1,a,unsure\n", [], "nobody has said anything"),
        ("id,expert,label\n1,a,x\n", ["--model", "best"], "unknown"),
    ],
)
def test_the_command_refuses_in_one_sentence(tmp_path, text, options, words):
    done = call_cli("consensus", csv_of(tmp_path, text), *options)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
