"""Networks behind scikit-learn's face: fitting, shapes, soft labels, checkpoints, saving, bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")

from labelwright.errors import DataError, SettingsError, SourceError, TooLargeError  # noqa: E402
from labelwright.learners.augment import Augment, views  # noqa: E402
from labelwright.learners.networks import NETWORKS, VECTOR_NETWORKS, make_network  # noqa: E402
from labelwright.learners.torch_classifier import TorchClassifier  # noqa: E402
from labelwright.learners.training import Recipe, Trainer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def bars(n: int = 96, *, side: int = 16, channels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with a bright horizontal (0), vertical (1) or no bar (2)."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 120, (n, side, side, channels)).astype(np.uint8), rng.integers(3, size=n)
    at = rng.integers(2, side - 2, size=n)
    for i in range(n):
        if y[i] == 0:
            X[i, at[i]] = 255
        if y[i] == 1:
            X[i, :, at[i]] = 255
    return X, y


def small(**options) -> TorchClassifier:
    return TorchClassifier(**{"epochs": 6, "batch_size": 16, "random_state": 0, "precision": "float32", **options})


# ------------------------------------------------------------ fitting


def test_learns_pictures_and_predicts_new_ones():
    X, y = bars(256)
    names = np.array(["across", "down", "none"])[y]
    model = small(epochs=12).fit(X, names)
    X_new, y_new = bars(128, seed=1)
    assert model.score(X_new, np.array(["across", "down", "none"])[y_new]) > 0.9
    proba = model.predict_proba(X_new)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (model.classes_[proba.argmax(axis=1)] == model.predict(X_new)).all()


def test_flattened_floats_and_bytes_are_the_same_pictures():
    X, y = bars(64)
    bytes_ = small().fit(X, y).predict_proba(X)
    flat = small(image_shape=(16, 16, 3)).fit(X.reshape(64, -1), y).predict_proba(X.reshape(64, -1))
    floats = small().fit(X / 255, y).predict_proba(X / 255)
    np.testing.assert_array_equal(bytes_, flat)
    np.testing.assert_allclose(bytes_, floats, atol=1e-3)


def test_the_same_seed_gives_the_same_network_whatever_torch_drew_before():
    X, y = bars(64)
    first = small(augment="flip+crop2+cutout4").fit(X, y).predict_proba(X)
    torch.rand(17)
    second = small(augment="flip+crop2+cutout4").fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(first, second)
    other = small(augment="flip+crop2+cutout4", random_state=1).fit(X, y).predict_proba(X)
    assert np.abs(first - other).max() > 1e-3


def test_fitting_leaves_torchs_own_randomness_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    small(epochs=1).fit(*bars(32))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rows", [17, 33, 1 + 16 * 3])
def test_a_single_row_left_over_breaks_no_batch_norm(rows):
    X, y = bars(rows)
    assert small(epochs=1).fit(X, y).predict(X).shape == (rows,)


def test_one_row_alone_can_be_learned_from():
    X, y = bars(32)
    model = small(epochs=1).fit(X, y)
    model.partial_fit(X[:1], y[:1])
    assert np.isfinite(model.predict_proba(X)).all()


def test_a_batch_may_lack_classes():
    X, y = bars(64)
    model = small(epochs=1).partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2])
    model.partial_fit(X[y == 2], y[y == 2])
    assert model.predict_proba(X).shape == (64, 3)
    with pytest.raises(ValueError, match="none of the classes"):
        model.partial_fit(X[:4], [0, 1, 2, 9])


def test_soft_targets_that_are_sure_are_hard_ones():
    X, y = bars(64)
    hard = small(epochs=2).partial_fit(X, y).predict_proba(X)
    soft = small(epochs=2).partial_fit(X, y, target=np.eye(3)[y]).predict_proba(X)
    np.testing.assert_allclose(hard, soft, atol=2e-5)


def test_soft_targets_are_what_is_learned():
    X, y = bars(128)
    share = np.tile([0.7, 0.2, 0.1], (128, 1))
    model = small(epochs=12).partial_fit(X, y, target=share)
    np.testing.assert_allclose(model.predict_proba(X).mean(axis=0), [0.7, 0.2, 0.1], atol=0.05)
    with pytest.raises(DataError, match="a share a class"):
        model.partial_fit(X, y, target=share[:, :2])


def test_rows_of_weight_nought_teach_nothing():
    X, y = bars(96)
    given, weight = y.copy(), np.ones(96)
    given[::2], weight[::2] = (y[::2] + 1) % 3, 0.0
    model = small(epochs=16).fit(X, given, sample_weight=weight)
    assert (model.predict(X[::2]) == y[::2]).mean() > 0.75


def test_clones_pipelines_and_vectors():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (60, 5)), rng.normal(3, 1, (60, 5))])
    y = np.repeat([0, 1], 60)
    model = make_pipeline(StandardScaler(), clone(small(epochs=20))).fit(X, y)
    assert model.score(X, y) > 0.95


def test_scikit_learn_checks_it():
    from sklearn.utils.estimator_checks import check_estimator

    model = TorchClassifier(epochs=40, batch_size=16, random_state=0, learning_rate=0.1)
    minibatches = "rows are drawn into minibatches, so a row of weight two is not two rows to the last digit"
    known = dict.fromkeys(
        ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"), minibatches
    )
    results = check_estimator(model, on_fail=None, on_skip=None, expected_failed_checks=known)
    failed = [(r["check_name"], str(r["exception"])[:200]) for r in results if r["status"] == "failed"]
    assert not failed


# ------------------------------------------------------------ early stopping


def test_stops_early_on_held_out_rows_and_keeps_the_best():
    X, y = bars(240)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(240) < 0.3, rng.integers(3, size=240), y)
    model = small(epochs=40, validation_fraction=0.25, patience=3, keep="best").fit(X, given)
    curve = [told["noisy_accuracy"] for told in model.history_]
    assert len(curve) < 40 and model.best_epoch_ == int(np.argmax(curve)) + 1
    last = small(epochs=40, validation_fraction=0.25, patience=3).fit(X, given)
    assert [t["noisy_accuracy"] for t in last.history_] == curve
    assert np.abs(last.predict_proba(X) - model.predict_proba(X)).max() > 0


# ------------------------------------------------------------ parts


def test_averaged_weights_are_the_mean_they_say():
    X, y = bars(32)
    model = small(epochs=1, batch_size=32, average=0.5).fit(X, y)
    model.partial_fit(X, y)
    averaged, now = model.trainer_.averaged, model.trainer_.network.state_dict()
    assert averaged is not None and any(not torch.equal(averaged[n], now[n]) for n in averaged)
    before = model.predict_proba(X)
    again = model.predict_proba(X)  # judging swaps the weights in and out
    np.testing.assert_array_equal(before, again)
    assert all(torch.equal(now[n], value) for n, value in model.trainer_.network.state_dict().items())


def test_the_gathered_pictures_are_shifts_and_mirrors_of_the_original():
    X = torch.arange(2 * 6 * 6, dtype=torch.uint8).view(2, 6, 6, 1)
    torch.manual_seed(0)
    index = torch.zeros(600, dtype=torch.long)
    out = Augment(flip=True, crop=1).gather(X, index)
    padded = torch.nn.functional.pad(X[:1].permute(0, 3, 1, 2).float(), (1, 1, 1, 1), mode="reflect")[0, 0]
    possible = [padded[i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    possible += [picture.flip(1) for picture in possible]
    seen = {next(at for at, p in enumerate(possible) if torch.equal(p, one[0].float())) for one in out}
    assert len(seen) == 18


def test_cutout_covers_a_square_of_the_side_it_says():
    X = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    torch.manual_seed(0)
    holes = (Augment(cutout=8).gather(X, torch.zeros(200, dtype=torch.long)) == 128).sum((1, 2, 3)) // 3
    assert int(holes.max()) == 64 and int(holes.min()) >= 16


def test_views_average_to_the_picture_where_it_is_flat():
    flat = torch.full((1, 3, 8, 8), 7.0)
    assert all(torch.equal(view, flat) for view in views(flat, 5, flip=True))
    assert len(views(flat, 1, flip=False)) == 1


@pytest.mark.parametrize("text", ["turn", "crop2+flop", "crop-2"])
def test_an_unknown_augmentation_is_named(text):
    with pytest.raises(SettingsError, match="is unknown; expected flip"):
        Augment.named(text)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - VECTOR_NETWORKS))
@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (56, 46, 1)])
def test_every_network_reads_pictures_of_any_size(name, shape):
    net = make_network(name, shape=shape, width=0, classes=7)
    out = net(torch.zeros(2, shape[2], *shape[:2]))
    assert out.shape == (2, 7)
    out.sum().backward()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet20", 269_722), ("resnet44", 658_586), ("compact", 242_474)],
)
def test_networks_have_the_published_numbers_of_weights(name, parameters):
    """He et al. 2016, table 6: 0.27 and 0.66 million; the compact network by hand:
    27*32 + 288*64 + 576*128 + 1152*128 + 2*(32+64+128+128) + 1290 = 242,474."""
    net = make_network(name, shape=(32, 32, 3), width=0, classes=10)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_depths_are_what_the_paper_says():
    def layers(name: str, **options) -> int:
        net = make_network(name, shape=(32, 32, 3), width=20, classes=10)
        return sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in net.modules())

    assert layers("resnet20") == 20 and layers("resnet44") == 44
    assert layers("vgg6") == 6 + 1 and layers("expert") == 4
    pools = [
        m
        for m in make_network("cnn12", shape=(32, 32, 3), width=0, classes=10).modules()
        if "MaxPool" in type(m).__name__
    ]
    assert layers("cnn12") + len(pools) == 12


# ------------------------------------------------------------ checkpoints

CHILD = """
import sys, numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_torch_classifier import bars, small
X, y = bars(256)
model = small(epochs=25, augment="flip+crop2", average=0.9, checkpoint=sys.argv[1], checkpoint_seconds=0.02)
model.fit(X, y)
np.save(sys.argv[2], model.predict_proba(X))
"""


def run_child(folder: Path) -> subprocess.Popen[bytes]:
    code = CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "c.safetensors"), str(folder / "p.npy")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_killed_mid_epoch_and_started_again_ends_with_the_same_numbers(tmp_path):
    X, y = bars(256)
    whole = small(epochs=25, augment="flip+crop2", average=0.9).fit(X, y).predict_proba(X)
    kills = 0
    for _ in range(20):
        child, seen = run_child(tmp_path), None
        while child.poll() is None and kills < 3:
            stamp = (tmp_path / "c.safetensors").stat().st_mtime_ns if (tmp_path / "c.safetensors").exists() else None
            if stamp is not None and seen is not None and stamp != seen:  # it wrote at least twice since it started
                child.send_signal(signal.SIGKILL)
                kills += 1
                break
            seen = seen or stamp
            time.sleep(0.005)
        if child.wait() == 0:
            break
    assert kills == 3
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), whole)
    assert not (tmp_path / "c.safetensors").exists()


def test_a_checkpoint_of_other_data_or_settings_is_not_used(tmp_path):
    X, y = bars(64)
    path = tmp_path / "c.safetensors"
    plain = small().fit(X, y).predict_proba(X)

    class Stop(Exception):
        pass

    def stop_after(steps):
        calls = 0
        original = Trainer._average

        def counted(self, decay, state):
            nonlocal calls
            calls += 1
            if calls > steps:
                raise Stop
            original(self, decay, state)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_average", stop_after(5))
        with pytest.raises(Stop):
            small(average=0.9, checkpoint=path, checkpoint_seconds=0.0).fit(X, y)
    assert path.exists()
    np.testing.assert_array_equal(small(checkpoint=path).fit(X, y).predict_proba(X), plain)


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_checkpoint_is_begun_anew(tmp_path, content):
    X, y = bars(48)
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    np.testing.assert_array_equal(small(checkpoint=path).fit(X, y).predict_proba(X), small().fit(X, y).predict_proba(X))


# ------------------------------------------------------------ saving


def test_saved_and_loaded_is_the_same_and_goes_on_the_same(tmp_path):
    X, y = bars(64)
    model = small(average=0.9, augment="flip+crop2").fit(X, np.array(["a", "b", "c"])[y])
    model.save(tmp_path / "m.safetensors")
    again = TorchClassifier.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    for one in (model, again):
        one.partial_fit(X, np.array(["a", "b", "c"])[y])
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))


def test_weights_of_another_architecture_are_refused_in_one_sentence(tmp_path):
    from labelwright.learners.saved import take_weights
    from labelwright.learners.tensors import from_bytes

    X, y = bars(48)
    other = small(epochs=1, network="compact-small").fit(X, y)
    model = small(epochs=1).fit(X, y)
    tensors, _ = from_bytes(other.to_bytes(), "other.safetensors")
    with pytest.raises(SettingsError, match=r"other\.safetensors holds the weights of another architecture"):
        take_weights(model, tensors, "other.safetensors")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"m\.safetensors is no"):
        TorchClassifier.load(path)
    with pytest.raises(SourceError, match="cannot be read"):
        TorchClassifier.load(tmp_path / "nowhere")


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": "lenet"}, "'lenet' is unknown"),
        ({"network": "resnet20"}, "reads images, but the rows are vectors of 12 numbers"),
        ({"device": "abacus"}, "'abacus' is unknown"),
        ({"precision": "half"}, "precision='half' is unknown"),
        ({"image_shape": (2, 2, 1)}, "asks for 4; correct one of them"),
        ({"image_shape": (2, 2, 3)}, "needs images of 8 x 8 pixels or more"),
        ({"validation_fraction": 1.5}, "is no share"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(options, words):
    with pytest.raises((SettingsError, DataError), match=words):
        small(**options).fit(np.random.default_rng(0).random((20, 12)), np.arange(20) % 2)


def test_out_of_memory_says_which_setting_to_lower(monkeypatch):
    X, y = bars(48)

    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_epoch", full)
    with pytest.raises(TooLargeError, match="too small for minibatches of 16 rows; lower batch_size"):
        small().fit(X, y)


def test_minibatches_are_even():
    assert [len(p) for p in torch.arange(129).tensor_split(Recipe(batch_size=128).steps(129))] == [65, 64]


# ------------------------------------------------------------ settings and numbers that make no sense


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"batch_size": 0}, "batch_size=0 is no count"),
        ({"epochs": 1.5}, "epochs=1.5 is no count"),
        ({"learning_rate": -0.1}, "no rate"),
        ({"average": 2.0}, "average=2.0 is no share"),
        ({"augment": None}, "augment=None is no text"),
        ({"augment": "crop30"}, "out of sight"),
        ({"keep": "bestt"}, "keep='bestt' is unknown"),
        ({"keep": "best"}, "set validation_fraction"),
        ({"image_shape": (8, 8)}, "is no shape"),
        ({"device": "meta"}, "expected auto, cpu or cuda"),
        ({"learning_rate": 1e6, "augment": "none"}, "lower the learning rate"),
    ],
)
def test_a_setting_that_makes_no_sense_is_said_in_one_sentence(option, words):
    X, y = bars(40)
    with pytest.raises((SettingsError, DataError), match=words):
        small(**option).fit(X, y)


def test_numbers_that_float32_cannot_hold_are_refused():
    X = np.random.default_rng(0).normal(size=(40, 3))
    X[0, 0] = 1e39
    with pytest.raises(DataError, match="more than float32 can"):
        TorchClassifier(epochs=1).fit(X, np.arange(40) % 2)


@pytest.mark.parametrize("weight", [np.nan, -1e3])
def test_weights_that_are_no_weights_are_refused(weight):
    X, y = bars(40)
    weights = np.ones(40)
    weights[3] = weight
    with pytest.raises(ValueError, match="negative or no numbers"):
        small().fit(X, y, weights)


def test_a_first_call_that_fails_leaves_nothing_behind():
    X, y = bars(40)
    model = small()
    with pytest.raises(DataError, match="target has shape"):
        model.partial_fit(X, y, target=np.ones((3, 3)))
    assert not hasattr(model, "trainer_")
    with pytest.raises(DataError, match="no numbers"):
        model.partial_fit(X, y, target=np.full((40, 3), np.nan))


def test_pictures_of_another_shape_are_refused():
    X, y = bars(40)
    model = small().fit(X, y)
    shape = X.shape[1:]
    for other in (X.reshape(40, shape[0] * 2, -1), X[:, :4], X.reshape(40, -1)):
        with pytest.raises(DataError, match="has learned from"):
            model.predict(other)


@pytest.mark.parametrize("network", ["mlp", "expert"])
def test_networks_of_vectors_take_pictures_as_vectors(network):
    X = np.random.default_rng(0).random((40, 4, 4))
    model = TorchClassifier(network, epochs=1, random_state=0).fit(X, np.arange(40) % 2)
    assert TorchClassifier.from_bytes(model.to_bytes()).predict_proba(X).shape == (40, 2)


def test_holes_in_float_pictures_are_of_the_mean():
    X, y = bars(120)
    floats = X.astype(np.float32) / 255
    score = small(epochs=6, augment="cutout4").fit(floats, y).score(floats, y)
    assert score > 0.9 * small(epochs=6, augment="cutout4").fit(X, y).score(X, y)


def test_settings_as_numpy_has_them_are_saved():
    X, y = bars(40)
    model = small(batch_size=np.int64(16), learning_rate=np.float32(0.1)).fit(X, y)
    np.testing.assert_array_equal(TorchClassifier.from_bytes(model.to_bytes()).predict(X), model.predict(X))


def test_what_was_learned_on_a_gpu_is_loaded_without_one():
    X, y = bars(40)
    model = small().fit(X, y)
    model.device = "cuda"
    content = model.to_bytes()
    assert TorchClassifier.from_bytes(content).predict(X).shape == (40,)


# ------------------------------------------------------------ what readers found


def vectors(n=60):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], n // 3)
    X = rng.normal(size=(n, 5))
    X[:, 0] += 3 * y
    return X, y


def test_numbers_may_be_tiny():
    X, y = vectors()
    usual = small(epochs=20, augment="none").fit(X, y).score(X, y)
    assert small(epochs=20, augment="none").fit(1e-9 * X, y).score(1e-9 * X, y) > usual - 0.05 > 0.7


def test_the_names_of_columns_are_saved():
    pd = pytest.importorskip("pandas")
    X, y = vectors()
    frame = pd.DataFrame(X, columns=list("abcde"))
    again = TorchClassifier.from_bytes(small(augment="none").fit(frame, y).to_bytes())
    assert again.random_state == 0
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[list("edcba")])


def test_answers_that_are_no_numbers_are_an_error():
    X, y = bars(48)
    model = small(epochs=1).fit(X, y)
    with torch.no_grad():
        for weight in model.trainer_.network.parameters():
            weight.fill_(1e38)  # a number, but what it makes of a picture is none
    with pytest.raises(SettingsError, match=r"answers are no numbers"):
        model.predict(X)
    with pytest.raises(SettingsError, match=r"blew up|no numbers"):
        small(network="mlp", learning_rate=1e6, augment="none").fit(X.reshape(48, -1).astype(float), y).predict(
            X.reshape(48, -1)
        )


def test_shares_sum_to_one():
    X, y = bars(48)
    with pytest.raises(DataError, match=r"48 rows of target do not sum to one, as row 0 with 5"):
        small().partial_fit(X, y, target=5.0 * np.eye(3)[y])


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"later_epochs": 0}, {"later_rate": -1}, {"later_rate": float("nan")}, {"keep": "bset"}, {"weight_decay": -1},
     {"checkpoint_seconds": "a"}, {"on_epoch": 3}, {"random_state": "a"}, {"nesterov": "x"}, {"image_shape": "8x8"}],
)  # fmt: skip
def test_settings_are_looked_at_at_every_call(wrong):
    X, y = bars(48)
    model = small(epochs=1).fit(X, y).set_params(**wrong)
    if "image_shape" not in wrong:
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            model.partial_fit(X, y)
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        model.fit(X, y)


def test_other_classes_later_are_refused():
    X, y = bars(48)
    model = small(epochs=1).partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="are not those of the first call"):
        model.partial_fit(X, y, classes=[0, 1, 2, 3])


def test_large_pictures_are_judged_a_few_at_once():
    from labelwright.learners.training import Inputs

    one, home = torch.ones(3), torch.device("cpu")
    assert Inputs(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), one, one, home).at_once == 1000
    assert Inputs(torch.zeros(2, 512, 512, 3, dtype=torch.uint8), one, one, home).at_once == 15
