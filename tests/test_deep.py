"""Networks in the loop: soft labels, states that come back, streams that were killed, pictures from a folder to a report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import call_cli, run_through_kills
from test_torch_classifier import bars

torch = pytest.importorskip("torch")

from labelwright.bench import deep, framework, profiles, qactor, table2  # noqa: E402
from labelwright.bench.pieces import How  # noqa: E402
from labelwright.bench.profiles import Profile, Way, find_profile  # noqa: E402
from labelwright.errors import DataError, SettingsError  # noqa: E402
from labelwright.imitation import SoftImitator  # noqa: E402
from labelwright.learners import Deep, Learners, RowMemory, as_learner  # noqa: E402
from labelwright.learners.torch_classifier import TorchClassifier  # noqa: E402
from labelwright.loop import System, training_rows  # noqa: E402
from labelwright.posterior import NoiseModel  # noqa: E402
from labelwright.selection import RadDuo  # noqa: E402
from labelwright.types import Answers, Batch, Rows, Split, Verdict  # noqa: E402

TINY = Profile("bars", "compact", 90, 3, 60, 6, Way(2), Way(2, 60, 300), augment="crop1", mirror=False, seeds=1)


pytestmark = pytest.mark.usefixtures("one_thread")


def made_pictures(dataset: str = "bars", data_dir: str | None = None) -> deep.Pictures:
    X, y = bars(400)
    X_test, y_test = bars(100, seed=1)
    return deep.Pictures(X.reshape(400, -1), y, X_test.reshape(100, -1), y_test, (16, 16, 3), 3)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(deep, "pictures", made_pictures)
    monkeypatch.setattr(profiles, "PROFILES", {("bars", "compact"): TINY})
    return TINY


def network(seed: int = 0, **options) -> TorchClassifier:
    return TorchClassifier(
        image_shape=(16, 16, 3),
        epochs=4,
        later_epochs=2,
        batch_size=32,
        random_state=seed,
        precision="float32",
        **options,
    )


def rows_of(n: int, seed: int = 0) -> Rows:
    X, y = bars(n, seed=seed)
    return Rows(X.reshape(n, -1), y, np.arange(n) + 1000 * seed)


# ------------------------------------------------------------ soft labels


def test_rows_with_shares_join_rows_without():
    sure, soft = rows_of(2), rows_of(3, 1)
    soft = Rows(soft.X, soft.y, soft.keys, np.full((3, 3), 1 / 3, np.float32))
    both = sure.plus(soft)
    np.testing.assert_allclose(both.share, [*np.eye(3)[sure.y], *np.full((3, 3), 1 / 3)], rtol=1e-6)
    assert sure.plus(rows_of(3, 1)).share is None
    np.testing.assert_allclose(both.take(np.array([4])).share, [[1 / 3] * 3], rtol=1e-6)
    assert soft.plus(Rows.none()).share is soft.share


def test_memory_keeps_shares_over_a_restart():
    soft = rows_of(6)
    soft = Rows(soft.X, soft.y, soft.keys, np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3))
    memory, again = RowMemory(4), RowMemory(4)
    memory.add(soft)
    again.restore(memory.state(), lambda keys: (keys, soft.X[keys]))
    np.testing.assert_array_equal(memory.rows.share, again.rows.share)


def split_of(posterior: np.ndarray, given: list[int], verdict: list[Verdict], clean: list[bool]) -> Split:
    """A split whose noise model leaves the posterior near the probabilities it is made from."""
    rows = Rows(np.zeros((len(given), 1)), np.array(given), np.arange(len(given)) + 10)
    noise = NoiseModel.start(2, prior_rate=0.5)
    return Split(rows, np.array([int(v) for v in verdict]), rows.y, np.array(clean), posterior, posterior, noise)


def test_soft_imitator_corrects_the_sure_and_lets_the_others_teach():
    posterior = np.array([[0.97, 0.03], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.4, 0.6]])
    verdicts = [Verdict.REJECTED, Verdict.REJECTED, Verdict.TRUSTED, Verdict.TRUSTED, Verdict.ASKED]
    split = split_of(posterior, [1, 1, 1, 0, 0], verdicts, [False, False, False, True, False])
    asked = Answers(split.rows.take(np.array([4])), np.array([1]), ("anna",), np.ones(1))
    fixed = SoftImitator(0.95).correct(split, asked)
    assert fixed.rows.keys.tolist() == [10] and fixed.rows.y.tolist() == [0]
    assert fixed.hints.keys.tolist() == [11, 12]
    np.testing.assert_allclose(fixed.hints.share, split.posterior[[1, 2]], rtol=1e-6)
    learned = training_rows(split, asked, fixed)
    assert sorted(learned.keys.tolist()) == [10, 11, 12, 13, 14]  # each row once
    at = learned.keys.tolist()
    assert learned.y[at.index(14)] == 1 and learned.y[at.index(13)] == 0
    assert learned.share[at.index(14)].tolist() == [0, 1] and learned.share[at.index(13)].tolist() == [1, 0]


# ------------------------------------------------------------ the learner


def test_a_network_is_recognised_and_its_state_comes_back():
    learner = as_learner(network(), classes=3)
    assert isinstance(learner, Deep)
    first, second, third = (rows_of(64, s) for s in range(3))
    soft = Rows(second.X, second.y, second.keys, np.full((64, 3), 1 / 3, np.float32))
    learner.partial_fit(first)
    learner.partial_fit(soft)
    held = {int(k): x for rows in (first, soft) for k, x in zip(rows.keys, rows.X, strict=True)}
    again = as_learner(network(), classes=3)
    again.restore(learner.state(), lambda keys: (keys, np.array([held[int(k)] for k in keys])))
    np.testing.assert_array_equal(learner.proba(third.X), again.proba(third.X))
    for one in (learner, again):
        one.partial_fit(third)
    np.testing.assert_array_equal(learner.proba(first.X), again.proba(first.X))


def test_a_restored_network_keeps_the_settings_it_is_given():
    learner = Deep(network(), classes=3)
    learner.partial_fit(rows_of(64))
    other = Deep(network(mirror=True).set_params(later_epochs=7), classes=3)
    other.restore(learner.state(), lambda keys: (keys, rows_of(64).X[keys]))
    assert other.estimator.later_epochs == 7 and other.estimator.mirror


def test_a_restored_network_computes_where_it_is_told_to():
    """Precision stands for the device here: both are of the trainer, and were as saved whatever the settings said."""
    learner = Deep(network(), classes=3)
    learner.partial_fit(rows_of(64))
    assert learner.estimator.trainer_.precision is torch.float32
    other = Deep(network().set_params(precision="bfloat16"), classes=3)
    other.restore(learner.state(), lambda keys: (keys, rows_of(64).X[keys]))
    assert other.estimator.trainer_.precision is torch.bfloat16


@pytest.mark.parametrize(("device", "words"), [("tpu", "is unknown"), ("mps", "none that networks run on here")])
def test_a_device_that_is_none_is_said_before_any_data_is_read(tmp_path, device, words):
    for name in ("table2", "table3", "framework"):
        done = call_cli("bench", name, "--device", device, "--data-dir", str(tmp_path), "--output", str(tmp_path))
        assert done.returncode == 2 and words in done.stderr


def test_prioritized_replay_rather_takes_rows_that_are_not_learned_yet():
    learner = Deep(network(), classes=3, replay=40, memory=200, prioritized=True)
    learner.partial_fit(rows_of(120))
    known = learner.memory.rows
    wrong = known.keys[known.y == 0][:20]  # of these the network believes something else
    told = np.where(np.isin(known.keys, wrong), 2, known.y)
    learner.memory.rows = Rows(known.X, told, known.keys)
    rng = np.random.default_rng(0)
    drawn = [learner._replayed(rng) for _ in range(10)]
    assert all(len(rows) == 40 and len(np.unique(rows.keys)) == 40 for rows in drawn)
    share = np.mean([np.isin(rows.keys, wrong).mean() for rows in drawn])
    assert share > 1.8 * 20 / 120  # of 80 drawn at random nearly all of them, about 13, and 1/6 would be by chance

    learner.prioritized = False
    assert np.mean([np.isin(learner._replayed(rng).keys, wrong).mean() for _ in range(10)]) < 1.4 * 20 / 120


def test_prioritized_replay_heeds_soft_labels():
    learner = Deep(network(), classes=3, replay=30, memory=200, prioritized=True)
    learner.partial_fit(rows_of(90))
    rows = learner.memory.rows
    believed = learner.proba(rows.X).astype(np.float32)
    half = np.arange(90) < 45
    believed[half] = np.roll(believed[half], 1, axis=1)  # the first half says something else than the network
    learner.memory.rows = Rows(rows.X, believed.argmax(axis=1), rows.keys, believed)
    drawn = learner._replayed(np.random.default_rng(0))
    assert np.isin(drawn.keys, rows.keys[half]).mean() > 0.7  # half would be by chance


def test_both_judge_every_row_when_asked_to():
    one, two = Deep(network(0), classes=3), Deep(network(1), classes=3)
    learners = Learners(one, two)
    learners.partial_fit(rows_of(96))
    batch = Batch.of(1, rows_of(40, 3).X, rows_of(40, 3).y)
    split = RadDuo(learners, both=True).split(batch)
    np.testing.assert_allclose(split.proba, learners.proba(batch.X))
    doubted = one.predict(batch.X) != batch.given
    sparing = RadDuo(learners).split(batch)
    np.testing.assert_allclose(sparing.proba[~doubted], one.proba(batch.X)[~doubted])
    assert (sparing.verdict == split.verdict).all()


# ------------------------------------------------------------ experiments


def test_profiles_are_those_of_the_method():
    found = find_profile("cifar10", "compact")
    assert (found.clean, found.batches, found.rows, found.first_epochs) == (10_000, 20, 2000, 30)
    assert (found.paper.epochs, found.improved.epochs, found.improved.replay) == (10, 4, 4000)
    paper = find_profile("cifar10", "paper")
    assert (paper.clean, paper.batches, paper.rows, paper.first_epochs, paper.paper.epochs) == (
        10_000,
        40,
        1000,
        60,
        10,
    )
    assert (paper.quality, paper.classifier, paper.rate, paper.weight_decay) == ("resnet20", "vgg6", 0.01, 1e-4)
    with pytest.raises(SettingsError, match="expected compact or paper"):
        find_profile("cifar10", "large")
    with pytest.raises(SettingsError, match="has no profile"):
        find_profile("imagenet", "compact")


def test_the_stream_is_wrong_exactly_as_often_as_it_says(tiny):
    stream = deep.draw(tiny, 0, None)
    clean, *dirty = stream.batches
    assert clean.clean.all() and (clean.given == stream.truth.of(clean.keys)).all()
    assert [int((b.given != stream.truth.of(b.keys)).sum()) for b in dirty] == [18, 18, 18]
    other = deep.draw(tiny, 1, None)
    assert not np.array_equal(stream.X, other.X)
    again = deep.draw(tiny, 0, None)
    np.testing.assert_array_equal(stream.given, again.given)
    _, X = stream.fetch(dirty[1].keys[[3, 0]])
    np.testing.assert_array_equal(X, dirty[1].X[[3, 0]])
    with pytest.raises(DataError, match="take fewer batches"):
        deep.draw(tiny, 0, None, batches=30)


def test_a_drawn_split_takes_every_class_in_turn(monkeypatch):
    monkeypatch.setattr(deep, "pictures", made_pictures)
    drawn = Profile("bars", "compact", 90, 3, 60, 6, Way(2), Way(2), split="drawn", test=60)
    stream = deep.draw(drawn, 0, None)
    assert np.bincount(stream.batches[0].given).tolist() == [30, 30, 30]
    assert np.ptp(np.bincount(stream.y_test)) <= 4 and len(stream.y_test) == 60
    rows = np.concatenate([stream.X, stream.X_test])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_table2_runs_every_method_and_reads_finished_pieces_back(tiny, tmp_path, monkeypatch):
    result = table2.run_table2("bars", How(output=tmp_path), ablations=True)
    assert set(result["methods"]) == {
        *(f"paper/{m}" for m in table2.METHODS["paper"]),
        *(f"improved/{m}" for m in (*table2.METHODS["improved"], *table2.ABLATIONS)),
        "d0-only",
    }
    full = result["methods"]["improved/full-clean"]
    assert full["noise_left_mean"] == 0 and full["recovered"]["c"] == 1
    nothing = result["methods"]["improved/no-sel"]
    assert nothing["noise_left_mean"] == 0.3 and nothing["kept_recall"] == 1 and nothing["kept_precision"] == 0.7
    assert (tmp_path / "table2-bars-compact.png").stat().st_size > 10_000
    assert len(nothing["epochs"]) == 3 * 2 and len(nothing["curve"]) == 3
    monkeypatch.setattr(table2, "run_stream", lambda *a, **k: pytest.fail("a finished piece ran again"))
    again = table2.run_table2("bars", How(output=tmp_path), ablations=True)
    assert again["methods"] == result["methods"]
    head, *rows = table2.table(result)
    assert all(len(row) == len(head) for row in rows)


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_deep
from labelwright.bench import deep, profiles, table2
from labelwright.bench.pieces import How
deep.pictures = test_deep.made_pictures
profiles.PROFILES = {{("bars", "compact"): test_deep.TINY}}
table2.run_table2("bars", How(output=Path(sys.argv[1])), recipes=("improved",))
"""


def test_killed_anywhere_and_started_again_an_experiment_ends_with_the_same_numbers(tiny, tmp_path):
    whole = table2.run_table2("bars", How(output=tmp_path / "whole"), recipes=("improved",))
    run_through_kills(CHILD.format(tests=str(Path(__file__).parent)), tmp_path / "cut", kills=2)
    found = json.loads((tmp_path / "cut" / "table2-bars-compact.json").read_text())
    for name, row in whole["methods"].items():
        for figure in ("c", "mean", "curve", "epochs", "noise_left_mean", "noise_estimate"):
            assert found["methods"][name].get(figure) == row.get(figure), (name, figure)


LATER = CHILD.replace("table2.run_table2", "framework.run_framework").replace("table2\n", "framework, qactor\n", 1)
LATER = (
    LATER.replace('recipes=("improved",)', 'noises=("bursty",)')
    + 'qactor.run_qactor("bars", How(output=Path(sys.argv[1])))\n'
)


def test_killed_anywhere_the_framework_and_qactor_end_with_the_same_numbers(tiny, tmp_path):
    whole = {
        "framework": framework.run_framework("bars", How(output=tmp_path / "whole"), noises=("bursty",)),
        "qactor": qactor.run_qactor("bars", How(output=tmp_path / "whole")),
    }
    run_through_kills(LATER.format(tests=str(Path(__file__).parent)), tmp_path / "cut", kills=3)
    for experiment, result in whole.items():
        found = json.loads((tmp_path / "cut" / f"{experiment}-bars-compact.json").read_text())
        for noise, rows in result["noise"].items():
            for name, row in rows.items():
                for figure in ("c", "mean", "curve", "asked", "noise_left_mean", "gain"):
                    assert found["noise"][noise][name].get(figure) == row.get(figure), (experiment, noise, name, figure)


def test_the_framework_counts_answers_and_gains(tiny, tmp_path):
    result = framework.run_framework("bars", How(output=tmp_path, seeds=1), noises=("changing",))
    found = result["noise"]["changing"]
    assert list(found) == list(framework.STRATEGIES)
    assert found["no-sel"]["asked"] == found["filter"]["asked"] == 0
    assert found["filter+expert fixed margin"]["asked"] == 9  # 5 % of 60 rows, 3 batches
    assert found["filter+expert dynamic cent"]["asked"] <= 9
    gain = found["filter"]["gain"]
    assert gain["over"] == "no-sel" and gain["mean"] == round(
        found["filter"]["c"]["mean"] - found["no-sel"]["c"]["mean"], 3
    )
    assert found["full-clean"]["noise_left_mean"] == 0


# ------------------------------------------------------------ pictures of users


def write_folder(folder: Path, n: int = 240, *, noise: float = 0.2) -> None:
    """A folder per class, some pictures in the wrong one, one broken."""
    from PIL import Image

    X, y = bars(n, side=24)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(n) < noise, (y + 1) % 3, y)
    for i in range(n):
        place = folder / ("across", "down", "none")[given[i]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[i]).save(place / f"{i:03}.png")
    (folder / "down" / "broken.png").write_bytes(
        (folder / "across" / min(os.listdir(folder / "across"))).read_bytes()[:60]
    )


def test_a_folder_of_pictures_ends_in_clean_data_a_classifier_and_a_report(tmp_path):
    write_folder(tmp_path / "photos")
    state = tmp_path / "state"
    done = call_cli(
        "run", tmp_path / "photos", "--label", "label", "--id", "path", "--batch-size", 120, "--state", state, "--json"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    verdicts = ("trusted", "rescued", "asked", "corrected", "rejected", "buffered")
    assert sum(summary[word] for word in verdicts) == 240 and summary["set_aside"] == 1
    assert 0.05 < summary["noise_rate"] < 0.4
    from labelwright.runner import reopened
    from labelwright.settings import StateFolder

    run = reopened(StateFolder(state))
    assert isinstance(run.system.learners.classifier, Deep)
    page = (state / "report.html").read_text()
    assert page.count("data:image/png;base64,") > 5 and "broken.png" in page
    exported = call_cli("export", "--state", state, "--output", tmp_path / "clean.parquet")
    assert exported.returncode == 0 and (tmp_path / "clean.parquet").exists()
    predicted = call_cli("predict", tmp_path / "photos", "--state", state, "--output", tmp_path / "p.parquet")
    assert predicted.returncode == 0, predicted.stderr


def test_an_experiment_of_system_parts_needs_learners_that_are_watched(tiny, tmp_path):
    plain = Learners(Deep(network(), classes=3), Deep(network(1), classes=3))
    with pytest.raises(TypeError, match="WatchedLearners"):
        deep.run_stream(
            System(RadDuo(plain), plain), deep.draw(tiny, 0, None), start=None, path=tmp_path / "x.json", tick=print
        )


# ------------------------------------------------------------ commands


def test_qactor_asks_within_its_budget(tiny, tmp_path):
    from labelwright.bench import qactor

    result = qactor.run_qactor("bars", How(output=tmp_path, seeds=1))
    for found in result["noise"].values():
        total = result["questions_a_batch"] * 3
        assert found["fixed margin"]["asked"] == total and found["dynamic cent"]["asked"] <= total
        assert found["q-only"]["asked"] == found["no-sel"]["asked"] == found["opt-sel"]["asked"] == 0
    assert result["noise"]["60 %"]["no-sel"]["noise_left_mean"] == 0.6
    assert (tmp_path / "qactor-bars-compact.png").exists()
    head, *rows = qactor.table(result)
    assert len(rows) == 18 and all(len(row) == len(head) for row in rows)


def test_qactor_is_in_the_published_setting_at_paper_scale():
    from labelwright.bench.qactor import setting_of

    found = setting_of("cifar10", "paper")
    assert (found.clean, found.batches, found.rows, found.first_epochs, found.improved.epochs) == (
        1000,
        50,
        980,
        40,
        10,
    )


def test_the_commands_print_tables_and_json(tiny, tmp_path):
    done = call_cli("bench", "fig2", "--dataset", "bars", "--output", tmp_path)
    assert done.returncode == 0 and "full-clean" in done.stdout and (tmp_path / "fig2-bars-compact.png").exists()
    done = call_cli("bench", "table2", "--dataset", "bars", "--output", tmp_path, "--json")
    assert json.loads(done.stdout)["methods"]["improved/rad-duo+soft"]["c"]["mean"] > 30
    listed = json.loads(call_cli("bench", "--list", "--json", "--output", tmp_path).stdout)
    states = {(r["experiment"], r["dataset"]): r["state"] for r in listed["experiments"]}
    assert "framework" in {name for name, _ in states} and all(states.values())
    settings = json.loads(call_cli("bench", "table1", "--json").stdout)
    assert {"data set", "D0", "noise"} <= set(settings[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table2", "--dataset", "imagenet"), "has no profile"),
        (("table2", "--profile", "huge"), "expected compact or paper"),
        (("framework", "--dataset", "cifar100", "--data-dir", "/nowhere"), "cifar-100-python"),
    ],
)
def test_what_cannot_run_is_one_sentence(arguments, words, tmp_path):
    done = call_cli("bench", *arguments, "--output", tmp_path)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_the_noise_matrix_is_compared_with_that_of_the_whole_stream():
    record, noise = deep.Record(), NoiseModel.start(2)
    truth = deep.Truth({0: np.array([0, 0, 1, 1]), 1: np.array([0, 0, 1, 1])})
    for number, given in enumerate(([0, 1, 1, 1], [0, 0, 1, 1])):
        batch = Batch.of(number, np.zeros((4, 1)), np.array(given))
        half = np.full((4, 2), 0.5)
        split = Split(batch.rows, np.zeros(4, int), batch.given, batch.clean, half, half, noise)
        record.add(batch, split, None, truth, training=0.0, judging=0.0)
    assert record.pairs == [[3, 1], [0, 4]]
    assert record.transition_off_by == pytest.approx((0.05 + 0.2) / 2)  # 0.8 against 0.75, 0.8 against 1
    assert "pairs" not in record.told()


def test_pieces_of_other_settings_are_not_mixed_in(tiny, tmp_path, monkeypatch):
    table2.run_table2("bars", How(output=tmp_path), recipes=("paper",))
    other = Profile(**{**vars(TINY), "noise": 0.5})
    monkeypatch.setattr(profiles, "PROFILES", {("bars", "compact"): other})
    with pytest.raises(SettingsError, match="were made by other settings"):
        table2.run_table2("bars", How(output=tmp_path), recipes=("paper",))


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
def test_a_run_of_pictures_keeps_its_kind_of_model_when_torch_comes_or_goes(tmp_path, monkeypatch, before, after):
    from labelwright import settings

    write_folder(tmp_path / "photos", 120)
    command = ("run", tmp_path / "photos", "--label", "label", "--id", "path", "--batch-size", 200)
    state = ("--state", tmp_path / "state")
    real = settings.find_spec
    monkeypatch.setattr(settings, "find_spec", lambda name: real(name) if before else None)
    assert call_cli(*command, *state, "--json").returncode == 0
    monkeypatch.setattr(settings, "find_spec", lambda name: real(name) if after else None)
    done = call_cli("predict", tmp_path / "photos", *state, "--output", tmp_path / "p.parquet")
    if before:
        assert done.returncode == 2 and "torch is not installed; run: pip install" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_the_quality_model_of_quality_only_is_another_than_the_trees(tmp_path):
    from helpers import write_reviews

    from labelwright.runner import reopened
    from labelwright.settings import StateFolder

    write_reviews(tmp_path / "a.csv", 200)
    done = call_cli(
        "run",
        tmp_path / "a.csv",
        "--label",
        "label",
        "--drop",
        "true",
        "--selector",
        "quality-only",
        "--state",
        tmp_path / "s",
    )
    assert done.returncode == 0, done.stderr
    learners = reopened(StateFolder(tmp_path / "s")).system.learners
    assert [type(one.estimator).__name__ for one in learners] == ["LogisticRegression", "ExtraTreesClassifier"]
