"""The queue that people answer from: order, leases, undo, overlap, late answers, many people at once, a kill in the middle."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from labelwright.errors import DataError, SettingsError
from labelwright.learners import Learners, as_learner
from labelwright.ledger.queue import ExpertQueue
from labelwright.ledger.queue_view import close_reviews, decide, pending_reviews, progress, review
from labelwright.loop import System
from labelwright.queries import FixedBudget
from labelwright.selection import QualityOnly
from labelwright.types import NO_LABEL, Batch, Queries, Rows, Verdict


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def asked(values: list[float], *, first: int = 0, X: np.ndarray | None = None) -> Queries:
    n = len(values)
    X = np.random.default_rng(first).normal(size=(n, 8)) if X is None else X
    rows = Rows(X, np.zeros(n, np.int64), first + np.arange(n))
    return Queries(rows, np.array(values, float), np.ones(n, np.int64), np.full(n, 0.7))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same tests on both."""
    return f"sqlite:///{tmp_path}/queue.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


def queue(url: str, **options) -> ExpertQueue:
    return ExpertQueue(url, **{"classes": 3, "clock": Clock(), **options})


def filled(url: str, values: list[float], **options) -> ExpertQueue:
    out = queue(url, **options)
    assert list(out.ask(asked(values))) == []
    return out


def keys(items) -> list[int]:
    return [item.key for item in items]


def test_the_most_valuable_first_and_two_people_never_the_same(url):
    q = filled(url, [1.0, 5.0, 3.0, 4.0])
    assert keys(q.serve("ann", 2)) == [1, 3]
    assert keys(q.serve("bob", 2)) == [2, 0]
    assert q.serve("cem") == []
    assert keys(q.serve("ann", 2)) == [1, 3]  # a page that is loaded again shows the same


def test_values_follow_the_models_and_answered_rows_never_come_back(url):
    q = filled(url, [1.0, 2.0, 3.0])
    assert q.say("ann", 2, label=0) == "taken"
    list(q.ask(asked([9.0, 1.0, 9.0])))  # asked again, after a crash or with better models
    assert keys(q.serve("ann", 3)) == [0, 1]


def test_a_lease_that_ran_out_goes_to_others_and_its_late_answer_still_counts(url):
    q = filled(url, [1.0], lease=60.0)
    assert keys(q.serve("ann")) == [0]
    assert q.serve("bob") == []
    q.clock.now += 61
    assert keys(q.serve("bob")) == [0]
    assert q.say("ann", 0, label=2) == "taken"
    assert q.say("bob", 0, label=1) == "late"
    assert [(a.label, a.expert) for a in q.collect(asked([1.0]))] == [(2, "ann")]


def test_ones_own_leases_that_ran_out_come_back(url):
    q = filled(url, [3.0, 2.0, 1.0], lease=60.0)
    assert keys(q.serve("ann", 3)) == [0, 1, 2]
    q.clock.now += 61
    assert keys(q.serve("ann", 3)) == [0, 1, 2] and keys(q.serve("bob")) == []


def test_a_leads_word_is_heard_and_stays(url):
    q = filled(url, [3.0, 2.0], overlap=2)
    q.say("ann", 0, label=1)
    q.say("bob", 0, label=2)
    decide(q.engine, "eve", 0, 0, 3)
    assert q.undo("bob") is None and q.say("ann", 0, label=2) == "late"
    q.say("ann", 1, label=1)
    q.say("ann", 1, kind="skip")
    with pytest.raises(DataError, match="not disputed"):
        decide(q.engine, "eve", 1, 0, 3)  # nobody has answered it
    assert [(a.key, a.label, a.expert) for a in q.collect(asked([1.0] * 2))] == [(0, 0, "ann, bob, eve (lead)")]
    assert progress(q.engine, q.clock())["waiting"] == 1


def test_a_take_back_of_one_is_not_undone_by_the_right_of_another(url):
    q = filled(url, [1.0])
    assert review(q.engine, "ann", {7: "given", 8: "drop", 9: "right"}, 1.0) == 3
    assert review(q.engine, "bob", {7: "right", 8: "right", 9: "drop"}, 2.0) == 1
    words = {word["key"]: (word["expert"], word["verdict"]) for word in pending_reviews(q.engine)}
    assert words == {7: ("ann", "given"), 8: ("ann", "drop"), 9: ("bob", "drop")}
    close_reviews(q.engine, [{"key": 7, "verdict": "given"}, {"key": 8, "verdict": "given"}])
    assert {word["key"] for word in pending_reviews(q.engine)} == {8, 9}
    assert review(q.engine, "bob", {7: "drop"}, 3.0) == 0  # it was carried out


def test_the_grid_gets_only_rows_with_suggestions_and_hides_none_from_others(url):
    q = filled(url, [float(at) for at in range(40)], blind=0.5, gold=0.5)
    rows = Rows(np.zeros((5, 8)), np.zeros(5, np.int64), 100 + np.arange(5))
    assert q.put_gold(rows) == 5 and q.put_gold(rows) == 0
    shown = q.serve("ann", 12, seeing=True)
    assert len(shown) == 12 and not any(item.blind or item.key >= 100 for item in shown)
    assert progress(q.engine, q.clock())["leased"] == 12


def test_said_again_changed_undone(url):
    q = filled(url, [2.0, 1.0])
    assert q.say("ann", 0, label=1) == "taken"
    assert q.say("ann", 0, label=1) == "again"
    assert q.say("ann", 0, label=2) == "changed"
    assert q.undo("ann") == 0 and keys(q.serve("ann", 2)) == [0, 1]
    assert q.undo("ann") is None
    assert q.say("ann", 0, label=2) == "taken"
    list(q.collect(asked([1.0, 1.0])))
    assert q.undo("ann") is None  # the loop has it
    assert q.say("ann", 0, label=1) == "late"
    assert [a.label for a in q.collect(asked([1.0, 1.0]))] == [2]  # heard again by a loop that was cut short


def test_skipped_rows_go_to_others_and_the_kinds_that_name_no_class_count(url):
    q = filled(url, [3.0, 2.0, 1.0, 0.5])
    assert q.say("ann", 0, kind="skip") == "taken"
    assert keys(q.serve("ann", 9)) == [1, 2, 3]
    assert q.say("ann", 1, kind="unsure") == "taken"
    assert q.say("ann", 2, kind="none") == "taken"
    assert q.say("ann", 3, kind="broken") == "taken"
    assert keys(q.serve("bob", 9)) == [0]
    assert {a.key: a.label for a in q.collect(asked([1.0] * 4))} == dict.fromkeys((1, 2, 3), NO_LABEL)
    assert q.undo("ann") is None  # broken is with the loop
    told = progress(q.engine, q.clock())
    assert told["waiting"] == 1 and told["answered"] == 3 and told["leased"] == 1
    assert told["experts"]["ann"] == {"skip": 1, "unsure": 1, "none": 1, "broken": 1, "seconds": None}


def test_a_skip_can_be_undone(url):
    q = filled(url, [3.0, 2.0])
    q.say("ann", 0, kind="skip")
    assert keys(q.serve("ann", 1)) == [1]
    assert q.undo("ann") == 0
    assert set(keys(q.serve("ann", 2))) == {0, 1}
    assert q.say("ann", 0, label=1) == "taken" and progress(q.engine, q.clock())["waiting"] == 1


def test_with_overlap_a_row_waits_for_several_and_hears_the_better_ones(url):
    q = filled(url, [1.0] * 40, overlap=3)
    rng, true = np.random.default_rng(0), np.arange(40) % 3
    assert keys(q.serve("ann", 40)) == keys(q.serve("bob", 40)) == keys(q.serve("cem", 40))
    assert q.serve("dan", 40) == []
    for key in range(40):
        q.say("ann", key, label=int(true[key]))
        q.say("bob", key, label=int(true[key]) if rng.random() < 0.9 else int(true[key] + 1) % 3)
        assert key or not list(q.collect(asked([1.0] * 40)))  # a row waits for all three
        q.say("cem", key, label=int(rng.integers(3)))  # a spammer
    heard = {a.key: a for a in q.collect(asked([1.0] * 40))}
    assert len(heard) == 40 and heard[0].expert == "ann, bob, cem" and heard[0].cost == 3.0
    assert np.mean([heard[key].label == true[key] for key in range(40)]) >= 0.9


def test_rows_that_look_alike_do_not_follow_each_other(url):
    rng = np.random.default_rng(1)
    X = np.repeat(rng.normal(size=(3, 8)), 4, axis=0) + 1e-6 * rng.normal(size=(12, 8))
    q = queue(url)
    list(q.ask(asked([float(12 - at) for at in range(12)], X=X)))
    kinds = []
    for _ in range(8):
        item = q.serve("ann")[0]
        kinds.append(item.key // 4)
        q.say("ann", item.key, label=0)
    for last, now in itertools.pairwise(kinds):
        assert last != now


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda q: q.say("ann", 99, label=0), "nobody asked about row 99"),
        (lambda q: q.say("ann", 0, label=3), "0 to 2"),
        (lambda q: q.say("ann", 0), "is no class"),
        (lambda q: q.say("ann", 0, kind="x" * 10**6), "no kind of answer"),
        (lambda q: q.say("", 0, label=1), "a name"),
        (lambda q: q.serve("x" * 10**6), "a name"),
        (lambda q: queue("sqlite://", overlap=0), "overlap=0"),
    ],
)
def test_what_is_no_answer_is_one_sentence(url, say, words):
    q = filled(url, [1.0])
    with pytest.raises((DataError, SettingsError), match=words) as caught:
        say(q)
    assert len(str(caught.value)) < 200 and progress(q.engine, q.clock())["waiting"] == 1


def test_a_name_with_quotes_is_a_name(url):
    q = filled(url, [1.0])
    q.say("'; DROP TABLE queue_items; --", 0, label=1)
    assert [a.expert for a in q.collect(asked([1.0]))] == ["'; DROP TABLE queue_items; --"]


def test_a_name_with_a_comma_is_paid_once(url):
    q = filled(url, [1.0])
    q.say("Lee, Ann", 0, label=1)
    assert [a.cost for a in q.collect(asked([1.0]))] == [1.0]


def test_answers_change_the_models_at_the_next_step(url):
    from sklearn.naive_bayes import GaussianNB

    rng = np.random.default_rng(0)
    y = rng.integers(2, size=90)
    X = rng.normal(size=(90, 2)) + 2.0 * y[:, None]
    learner = as_learner(GaussianNB(), classes=2)
    q = queue(url, classes=2)
    both = Learners(learner, learner)
    system = System(QualityOnly(both), both, FixedBudget(4), q)
    system.step(Batch.of(0, X[:30], y[:30], clean=True))
    split = system.step(Batch.of(1, X[30:60], 1 - y[30:60]))
    waiting = {int(key) for key in split.rows.keys[split.verdict == Verdict.ASKED]}
    assert len(waiting) == 4 and set(keys(q.serve("ann", 9))) == waiting
    truth = dict(zip(split.rows.keys.tolist(), y[30:60].tolist(), strict=True))
    for key in waiting:
        q.say("ann", key, label=truth[key])
    system.step(Batch.of(2, X[60:], y[60:]))
    memory = learner.memory.rows
    learned = {int(k): int(label) for k, label in zip(memory.keys, memory.y, strict=True)}
    assert {key: learned[key] for key in waiting} == {key: truth[key] for key in waiting}


def test_many_people_at_once_lose_and_double_nothing(url):
    filled(url, np.random.default_rng(0).random(300).tolist())
    answered: dict[int, list[str]] = {}

    def work(name: str) -> None:
        mine = ExpertQueue(url, classes=3)
        while items := mine.serve(name, 3):
            for item in items:
                assert mine.say(name, item.key, label=item.key % 3) == "taken"
                answered.setdefault(item.key, []).append(name)

    people = [threading.Thread(target=work, args=(f"person {at}",)) for at in range(8)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert len(answered) == 300 and all(len(names) == 1 for names in answered.values())
    heard = list(queue(url).collect(asked([1.0] * 300)))
    assert {a.key: (a.label, a.expert) for a in heard} == {k: (k % 3, names[0]) for k, names in answered.items()}


CHILD = """
import sys
from labelwright.ledger.queue import ExpertQueue
from labelwright.ledger.queue_view import close_reviews, decide, pending_reviews, progress, review
q = ExpertQueue(sys.argv[1], classes=3)
while items := q.serve("ann"):
    q.say("ann", items[0].key, label=items[0].key % 3)
    print(items[0].key, flush=True)
"""


def test_a_kill_in_the_middle_loses_no_acknowledged_answer(url):
    q = filled(url, [1.0] * 6000)  # more than three rounds can answer
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    acknowledged: set[int] = set()
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout is not None
        acknowledged.add(int(child.stdout.readline()))
        time.sleep(0.15)
        child.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in child.stdout.read().split("\n")[:-1]}
        child.wait()
    heard = {a.key: a.label for a in q.collect(asked([1.0] * 6000))}
    assert len(acknowledged) >= 3 and acknowledged <= set(heard) and len(heard) <= len(acknowledged) + 3
    assert all(label == key % 3 for key, label in heard.items())
