"""The poison watch: each attack is named, honest noise is not, memory is bounded, the loop quarantines, experts settle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import call_cli
from sklearn.neighbors import KNeighborsClassifier

from labelwright import noise
from labelwright.experts import Oracle
from labelwright.learners import Learners, as_learner
from labelwright.loop import System
from labelwright.poison import Alarm, Guarded, SettlingBudget, Watch, inspect, seen
from labelwright.poison.pattern import levels
from labelwright.poison.structure import burst_notice, honest_counts
from labelwright.queries import FixedBudget
from labelwright.selection import QualityOnly
from labelwright.truth import Truth
from labelwright.types import Batch, Verdict

K, D = 10, 12
CENTRES = np.random.default_rng(7).normal(size=(K, D)) * 3
Loop = tuple[System, Guarded, list[Any]]


def rows(n: int, seed: int = 0) -> tuple[Any, Any, np.random.Generator]:
    rng = np.random.default_rng(seed)
    y = rng.integers(K, size=n)
    return (CENTRES[y] + rng.normal(size=(n, D))).astype(np.float32), y, rng


def believing(y: Any) -> Any:
    """Probabilities of a model that is right and sure."""
    return 0.9 * np.eye(K)[y] + 0.01


def kinds(alarms: tuple[Alarm, ...]) -> set[str]:
    return {alarm.kind for alarm in alarms if alarm.attack}


def test_one_pair_is_named_with_its_rows_and_source() -> None:
    X, y, rng = rows(2000)
    who = np.array(["ann", "bob", "eve"], object)[rng.integers(3, size=2000)]
    given = y.copy()
    mine = np.flatnonzero((y == 7) & (who == "eve"))[:40]
    given[mine] = 1
    (alarm, *others) = inspect(X, given, believing(y), sources=who)
    assert (alarm.kind, alarm.true, alarm.given, alarm.source) == ("pair", 7, 1, "eve")
    assert alarm.keys.tolist() == mine.tolist()
    assert [other.kind for other in others] == ["source"]
    assert "'7' came as '1'" in alarm.sentence([str(code) for code in range(K)])


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "instance", "swap"])
def test_honest_noise_raises_no_attack_alarm(kind: str) -> None:
    models = {
        "symmetric": noise.symmetric(0.3, classes=K),
        "asymmetric": noise.asymmetric(0.3, noise.MNIST_PAIRS),
        "instance": noise.instance_dependent(0.3, K),
        "swap": noise.asymmetric(0.2, {3: 5, 5: 3}),  # two classes that look alike are confused both ways
    }
    for seed in range(5):
        X, y, rng = rows(2000, seed)
        who = np.array(["ann", "bob", "cat", "dan"], object)[rng.integers(4, size=2000)]
        given = models[kind](y, X, rng)
        assert not kinds(inspect(X, given, believing(y), sources=who))


def test_a_model_that_is_wrong_about_a_region_is_no_attack() -> None:
    X, y, _ = rows(2000)
    believed = y.copy()
    believed[np.flatnonzero(y == 4)[:60]] = 9  # the model takes many 4s for 9s; their neighbours' labels say 4
    assert not kinds(inspect(X, y, believing(believed)))


def test_one_liar_among_honest_sources() -> None:
    X, y, rng = rows(2000)
    who = np.array([f"s{code}" for code in rng.integers(10, size=2000)], object)
    given = noise.poisoned_source(noise.symmetric(0.3, classes=K), who, "s4")(y, None, rng)
    (alarm,) = inspect(X, given, believing(y), sources=who)
    assert (alarm.kind, alarm.source) == ("source", "s4")
    assert alarm.keys.tolist() == np.flatnonzero(given != y).tolist()


def test_far_flips_are_told_from_flips_anywhere() -> None:
    X, y, rng = rows(2000)
    scores = lambda Z: -((np.asarray(Z)[:, None, :] - CENTRES) ** 2).sum(axis=2)  # noqa: E731
    far = noise.far_first(0.03, scores, classes=K)(y, X, rng)
    found = inspect(X, far, believing(y))
    assert "deep" in kinds(found)
    named = np.unique(np.concatenate([alarm.keys for alarm in found]))
    assert np.isin(np.flatnonzero(far != y), named).mean() > 0.9
    near = noise.near_first(0.03, scores, classes=K)(y, X, rng)
    assert "deep" not in kinds(inspect(X, near, believing(y)))


@pytest.mark.parametrize("plant", [noise.clean_label_backdoor, noise.dirty_label_backdoor])
def test_a_trigger_is_found_whatever_the_labels(plant: Any) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(K, size=1500)
    shapes = rng.random((K, 144)) * 120
    X = np.clip(shapes[y] + rng.normal(size=(1500, 144)) * 40, 0, 200).astype(np.uint8)
    given, stamped = plant(0.02, 3, noise.patch((12, 12)))(y, X, rng)
    (alarm,) = inspect(stamped, given, believing(y))
    bad = np.flatnonzero((stamped != X).any(axis=1))
    assert (alarm.kind, alarm.given) == ("pattern", 3)
    assert alarm.keys.tolist() == bad.tolist() and len(bad) == 30
    inside = {r * 12 + c for r in (8, 9, 10) for c in (8, 9, 10)}
    assert set(alarm.features) <= inside and len(alarm.features) >= 4
    assert not kinds(inspect(X, y, believing(y)))


def test_copies_of_one_row_are_no_trigger() -> None:
    X, y, _ = rows(600)
    X[np.flatnonzero(y == 2)[:20]] = X[0] + 9
    assert not kinds(inspect(X, y, believing(y)))


def test_a_burst_is_noticed_and_is_no_attack() -> None:
    watch = Watch(K)
    for number in range(6):
        X, y, rng = rows(300, number)
        given = noise.symmetric(0.6 if number == 5 else 0.1, classes=K)(y, None, rng)
        keys = np.arange(300) + 1000 * number
        watch.update(watch.look(watch.sight(X, given, believing(y), keys=keys, batch=number)))
    assert [alarm.kind for alarm in watch.alarms] == ["burst"] and not kinds(watch.alarms)
    assert "Burst of noise" in watch.told([str(c) for c in range(K)])["alarms"][0]["sentence"]
    assert burst_notice(watch.window.rows) is not None  # type: ignore[arg-type]


def test_memory_is_bounded_and_slow_poison_adds_up() -> None:
    watch, raised = Watch(K, window=2000), None
    for number in range(14):
        X, y, _ = rows(300, number)
        given = y.copy()
        given[np.flatnonzero(y == 7)[:4]] = 1  # four rows a batch: none of the batches shows it alone
        watch.update(watch.look(watch.sight(X, given, believing(y), keys=np.arange(300) + 1000 * number, batch=number)))
        assert len(watch.window.rows) <= 2000  # type: ignore[arg-type]
        raised = number if raised is None and watch.alarms else raised
    assert raised is not None and 3 <= raised <= 6
    assert watch.alarms[0].first == 0 and len(watch.alarms[0].keys) <= 56
    many = np.array([f"n{i}" for i in range(3000)], object)
    assert len(np.unique(watch.window.code(many, 3000))) == 1001 and len(watch.window.names) == 1000


def test_state_comes_back() -> None:
    X, y, _ = rows(800)
    given = y.copy()
    given[np.flatnonzero(y == 7)[:30]] = 1
    watch, other = Watch(K), Watch(K)
    watch.update(watch.look(watch.sight(X, given, believing(y), sources=np.repeat(np.array(["a", "b"], object), 400))))
    other.restore(watch.state(), lambda keys: (keys[::-1], X[keys[::-1]]))
    assert other.told("0123456789") == watch.told("0123456789") and other.window.names == ["a", "b"]
    assert np.array_equal(other.window.rows.X, X) and np.array_equal(other.window.rows.given, given)  # type: ignore[union-attr]
    other.restore(watch.state(), lambda keys: (keys[:5], X[keys[:5]]))  # the others were erased
    assert len(other.window.rows) == 5  # type: ignore[arg-type]


def test_numbers_by_hand() -> None:
    counts = np.full((4, 4), 2.0) + np.diag([98.0] * 4)
    counts[1, 2] = 42.0
    expected = honest_counts(counts)
    # size of row 0 is 106; the mean rate without the largest tenth is 10 rows of 2/106 (twice 2/146 in row 1), the reverse pair's 2/106
    assert expected[0, 1] == pytest.approx(2 * 106 * (2 / 146) + 1)
    assert expected[2, 1] == pytest.approx(2 * 106 * (42 / 146) + 1)
    assert levels(np.array([[-1.0, 0.0, 0.9, 2.0, np.nan]]), 0.0, 1.0).tolist() == [[0, 0, 7, 7, 0]]


def guarded(attack: bool, *, budget: int = 0, lies: bool = False, seed: int = 0) -> Loop:
    """Ten batches through the loop; from the third on, some 7s come as 1s. lies: the expert says that these labels are right."""
    truth, splits = Truth(), []
    learner = as_learner(KNeighborsClassifier(9), classes=K)
    guard = Guarded(QualityOnly(Learners(learner, learner)), Watch(K))
    settling = SettlingBudget(FixedBudget(budget, total=5 * budget), guard)
    system = System(guard, guard.learners, settling, Oracle(truth))  # type: ignore[arg-type]
    for number in range(10):
        X, y, _ = rows(250, 100 * seed + number)
        given = y.copy()
        if attack and number > 1:
            given[np.flatnonzero(y == 7)[:12]] = 1
        truth.add(number, given if lies else y)
        splits.append(system.step(Batch.of(number, X, given, clean=number == 0)))
    return system, guard, splits


def test_the_loop_quarantines_old_rows_too_and_records_the_alarm() -> None:
    system, guard, splits = guarded(True)
    (alarm,) = guard.watch.alarms
    assert (alarm.kind, alarm.true, alarm.given, alarm.state) == ("pair", 7, 1, "open")
    first = next(split for split in splits if (split.verdict == Verdict.QUARANTINED).any())
    held = first.rows.keys[first.verdict == Verdict.QUARANTINED]
    assert {int(key) >> 32 for key in held} == {2, 3}  # of the batch before too
    assert not first.kept[first.verdict == Verdict.QUARANTINED].any()
    told = first.facts["poison"]["alarms"]
    assert json.loads(json.dumps(told))[0]["true"] == "7" and told[0]["rows"] == len(held)
    memory = system.learners.classifier.memory.rows.keys
    assert not np.isin(alarm.keys, memory).any()


def test_experts_confirm_or_refute_and_never_past_the_budget() -> None:
    system, guard, splits = guarded(True, budget=6)
    (alarm,) = guard.watch.alarms
    assert alarm.state == "confirmed" and (alarm.wrong, alarm.right) >= (4, 0) and system.budget.spent <= 30
    system, guard, splits = guarded(True, budget=6, lies=True)
    (alarm,) = guard.watch.alarms
    assert alarm.state == "refuted" and not alarm.attack and system.budget.spent <= 30
    last = splits[-1]
    assert not (last.verdict == Verdict.QUARANTINED).any()
    system, guard, _ = guarded(False, budget=6)
    assert not guard.watch.alarms


def test_the_command_line_tells(tmp_path: Path) -> None:
    X, y, _ = rows(1800)
    given = y.copy()
    mine = np.flatnonzero(y[400:] == 7)[:60] + 400
    given[mine] = 1
    lines = ["id,who,label," + ",".join(f"x{i}" for i in range(D))]
    lines += [
        f"r{i},{'eve' if i in set(mine.tolist()) else 'ann'},{given[i]}," + ",".join(f"{v:.3f}" for v in X[i])
        for i in range(1800)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    state = tmp_path / "state"
    done = call_cli(
        "run", tmp_path / "rows.csv", "--label", "label", "--id", "id", "--source-column", "who", "--clean-rows", 400,
        "--first-batch", 400, "--batch-size", 350, "--poison", "quarantine", "--classifier", "bayes", "--state", state, "--expert", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Suspected attack" in done.stdout
    status = json.loads(call_cli("status", "--state", state, "--json").stdout)
    alarm = next(alarm for alarm in status["alarms"] if alarm["kind"] == "pair")
    assert (alarm["true"], alarm["given"], alarm["source"]) == ("7", "1", "eve")
    assert status["quarantined"] >= 50
    assert call_cli("verify", "--state", state).returncode == 0
    told = call_cli("explain", f"r{mine[5]}", "--state", state).stdout
    assert "set apart by the poison watch" in told
    assert call_cli("run", tmp_path / "rows.csv", "--label", "label", "--poison", "maybe").returncode == 2


def test_plain_errors() -> None:
    from labelwright.errors import DataError, SettingsError

    with pytest.raises(DataError, match="same rows"):
        seen(np.zeros((3, 1)), np.array([0, 1]), np.eye(2))
    with pytest.raises(DataError, match="NaN"):
        seen(np.zeros((1, 1)), np.array([0]), np.array([[np.nan, 1.0]]))
    with pytest.raises(SettingsError, match="sees nothing"):
        Watch(1)
    with pytest.raises(SettingsError, match="does not fit"):
        noise.patch((4, 4), size=4)
    with pytest.raises(SettingsError, match="corner"):
        noise.patch((4, 4), corner="middle")
    with pytest.raises(DataError, match="made for pictures"):
        noise.patch((4, 4))(np.zeros((1, 9)))
    with pytest.raises(SettingsError, match="fade"):
        noise.clean_label_backdoor(0.1, 0, noise.patch((4, 4), size=2), fade=2.0)
