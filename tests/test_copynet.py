"""CopyNet's estimator: what it predicts with and without labels, another noise pattern, saving, bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import clone

torch = pytest.importorskip("torch")

from labelwright.copynet import CopyNet, cover_pattern  # noqa: E402
from labelwright.errors import DataError, SettingsError  # noqa: E402
from labelwright.learners.torch_classifier import TorchClassifier  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = np.array(["cat", "dog", "owl"])


def blobs(n: int = 1200, *, rate: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three clouds that overlap, labels by name: a cat is called a dog, a dog an owl, an owl a cat."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = np.eye(3)[y] * 2.0 + rng.normal(size=(n, 3))
    given = np.where(rng.random(n) < rate, (y + 1) % 3, y)
    return X.astype(np.float32), NAMES[y], NAMES[given]


def turned(n: int = 3000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same clouds, mislabelled the other way round."""
    X, y, _ = blobs(n, seed=3)
    at = np.searchsorted(NAMES, y)
    return X, y, NAMES[np.where(np.random.default_rng(0).random(n) < 0.3, (at + 2) % 3, at)]


def model(**options) -> CopyNet:
    return CopyNet(TorchClassifier(epochs=20, precision="float32"), random_state=0, **options)


@pytest.fixture(scope="module")
def fitted() -> CopyNet:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    X, y, given = blobs()
    out = model().fit(X, given, np.where(np.arange(len(y)) % 2 == 0, y, None))
    torch.set_num_threads(before)
    return out


def bayes(X: np.ndarray, given: np.ndarray | None, rate: float = 0.3, shift: int = 1) -> np.ndarray:
    """The best that can be done: the clouds' true densities, and the true noise matrix."""
    logp = -0.5 * ((X[:, None, :] - 2.0 * np.eye(3)) ** 2).sum(axis=2)
    if given is not None:
        T = (1 - rate) * np.eye(3) + rate * np.roll(np.eye(3), shift, axis=1)
        logp = logp + np.log(T[:, np.searchsorted(NAMES, given)].T + 1e-9)
    return NAMES[logp.argmax(axis=1)]


def test_a_label_helps_as_much_as_bayes_rule_says(fitted):
    X, y, given = blobs(4000, seed=1)
    alone, best_alone = (fitted.predict(X) == y).mean(), (bayes(X, None) == y).mean()
    helped, best = (fitted.predict(X, given) == y).mean(), (bayes(X, given) == y).mean()
    assert best_alone - 0.02 < alone <= best_alone + 0.01
    assert best - 0.02 < helped <= best + 0.01 and best > best_alone + 0.04


def test_rows_without_a_label_are_predicted_by_the_amateur(fitted):
    X, _, given = blobs(50, seed=2)
    some = np.where(np.arange(50) < 25, given.astype(object), None)
    proba = fitted.predict_proba(X, some)
    np.testing.assert_array_equal(proba[25:], fitted.predict_proba(X[25:]))
    np.testing.assert_allclose(proba[:25], fitted.predict_proba(X[:25], given[:25]), atol=1e-6)
    np.testing.assert_array_equal(fitted.predict_proba(X, np.full(50, np.nan, object)), fitted.predict_proba(X))
    masked = np.ma.array(given, mask=np.arange(50) >= 25)
    np.testing.assert_allclose(fitted.predict_proba(X, masked), proba, atol=1e-6)


def test_the_paper_s_expert_learns_too():
    X, y, given = blobs()
    dense = model(expert="dense").fit(X, given, y)
    X, y, given = blobs(3000, seed=1)
    assert (dense.predict(X, given) == y).mean() > (bayes(X, given) == y).mean() - 0.03


def test_another_pattern_is_learned_by_the_expert_alone(fitted, tmp_path):
    fitted.save(tmp_path / "c.safetensors")
    again = CopyNet.load(tmp_path / "c.safetensors")
    X, y, given = turned()
    before, alone = (again.predict(X, given) == y).mean(), again.predict_proba(X)
    again.adapt(X, given, np.where(np.arange(3000) < 300, y, None), epochs=30)
    after = (again.predict(X[300:], given[300:]) == y[300:]).mean()
    best = (bayes(X[300:], given[300:], shift=2) == y[300:]).mean()
    assert after > before + 0.02 and after > best - 0.02
    np.testing.assert_array_equal(again.predict_proba(X), alone)


@pytest.mark.parametrize(
    ("expert", "changing"), [("fusing", {"table"}), ("dense", {"layers.6.weight", "layers.6.bias"})]
)
def test_the_last_layer_alone_can_be_retrained(expert, changing):
    X, y, given = blobs(200, seed=4)
    some = CopyNet(TorchClassifier(epochs=1), expert=expert, random_state=0).fit(X, given, y)
    part = some.amateur_.trainer_.network.expert
    before = {name: w.detach().clone() for name, w in part.named_parameters()}
    some.adapt(X, given, y, layers="last")
    assert {name for name, w in part.named_parameters() if not torch.equal(w, before[name])} == changing
    assert all(w.requires_grad for w in part.parameters())
    with pytest.raises(SettingsError, match="all or last"):
        some.adapt(X, given, y, layers="first")


def test_saved_and_loaded_is_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "c.safetensors")
    again = CopyNet.load(tmp_path / "c.safetensors")
    X, _, given = blobs(100, seed=5)
    np.testing.assert_array_equal(fitted.predict(X, given), again.predict(X, given))
    TorchClassifier(epochs=1).fit(X, given).save(tmp_path / "t.safetensors")
    with pytest.raises(SettingsError, match="no CopyNet"):
        CopyNet.load(tmp_path / "t.safetensors")


def test_clones_and_repeats():
    X, y, given = blobs(200)
    first = model()
    np.testing.assert_array_equal(
        clone(first).fit(X, given, y).predict_proba(X, given), first.fit(X, given, y).predict_proba(X, given)
    )
    assert first.get_params()["amateur__epochs"] == 20


# ---------------------------------------------------------------- bad input


def test_no_trusted_row_is_one_sentence(fitted):
    X, _, given = blobs(60)
    for nobody in (np.full(60, None), np.full(60, np.nan), None):
        with pytest.raises(DataError, match="no row has a true label"):
            model().fit(X, given, nobody)
        with pytest.raises(DataError, match="no row has a true label"):
            fitted.adapt(X, given, nobody)


def test_a_class_without_trusted_rows_is_taken_at_its_word(tmp_path):
    X, y, given = blobs(900)
    with pytest.warns(UserWarning, match="no trusted row has the true label"):
        some = model().fit(X, given, np.where(y != "owl", y, None))
    assert some.unvouched_.tolist() == ["owl"]
    owls = given == "owl"
    np.testing.assert_array_equal(some.predict_proba(X[owls], given[owls]), some.predict_proba(X[owls]))
    assert (some.predict(X[y == "owl"]) == "owl").mean() > 0.5
    some.save(tmp_path / "c.safetensors")
    again = CopyNet.load(tmp_path / "c.safetensors")
    assert again.unvouched_.tolist() == ["owl"]
    np.testing.assert_array_equal(again.predict_proba(X, given), some.predict_proba(X, given))


def test_true_labels_that_contradict_themselves_are_not_trusted():
    X, y, given = blobs(100)
    X[1], true = X[0], y.astype(object)
    true[0], true[1] = "cat", "dog"
    with pytest.warns(UserWarning, match="2 trusted rows are alike"):
        both = model().fit(X, given, true)
    true[0] = true[1] = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neither = model().fit(X, given, true)
    np.testing.assert_array_equal(both.predict_proba(X), neither.predict_proba(X))


def test_a_label_that_was_never_seen_is_named(fitted):
    X, _, _ = blobs(3)
    with pytest.raises(DataError, match="fish"):
        fitted.predict(X, ["cat", "fish", "owl"])
    with pytest.raises(DataError, match="one a row"):
        fitted.predict(X, ["cat"])


def test_a_true_label_that_nobody_gave_is_a_class_too():
    X, y, given = blobs(300)
    true = y.astype(object)
    true[:30] = "bat"
    with pytest.warns(UserWarning, match="new classes"):
        out = model().fit(X, given, true)
    assert out.classes_.tolist() == ["bat", "cat", "dog", "owl"]


def test_rows_that_cover_a_pattern_are_of_every_pair():
    rng = np.random.default_rng(0)
    best = rng.integers(4, size=9000)
    given = np.where(rng.random(9000) < 0.03, rng.integers(4, size=9000), best)
    rows = cover_pattern(np.eye(4)[best], given, 64, rng)
    pairs = np.bincount(best[rows] * 4 + given[rows], minlength=16)
    assert len(np.unique(rows)) == 64 and pairs.min() >= 3
    assert len(cover_pattern(np.eye(4)[best], given, 50_000, rng)) == 9000


# ------------------------------------------------------------ what people pass instead


def numbers(n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y, given = blobs(n)
    return X, np.searchsorted(NAMES, y), np.searchsorted(NAMES, given)


def quick(**options) -> CopyNet:
    return CopyNet(TorchClassifier(epochs=3, precision="float32", **options), random_state=0)


def test_a_class_that_the_new_truth_vouches_for_is_heeded_after_adapting(tmp_path):
    X, y, given = numbers()
    with pytest.warns(UserWarning, match="no trusted row"):
        out = quick().fit(X, given, np.where(y == 2, None, y))
    assert out.unvouched_.tolist() == [2]
    out.adapt(X, given, y, epochs=20)
    assert out.unvouched_.tolist() == []
    out.save(tmp_path / "m.safetensors")
    assert CopyNet.load(tmp_path / "m.safetensors").unvouched_.tolist() == []


def test_averaged_weights_are_the_experts_too():
    X, y, given = numbers()
    out = quick(average=0.9).fit(X, given, y)
    before = out.predict_proba(X, given)
    with torch.no_grad():  # the weights of the last step alone
        out.amateur_.trainer_.network.expert.table += 1.0 * torch.eye(3)
    np.testing.assert_array_equal(out.predict_proba(X, given), before)
    out.adapt(X, given, y, epochs=5)
    assert np.abs(out.predict_proba(X, given) - before).max() > 1e-6


def test_contradicting_truth_is_not_trusted_when_adapting():
    X, y, given = numbers()
    out = quick().fit(X, given, y)
    with (
        pytest.warns(UserWarning, match="600 trusted rows are alike"),
        pytest.raises(DataError, match="no row has a true"),
    ):
        out.adapt(np.r_[X, X], np.r_[given, given], np.r_[y, (y + 1) % 3])


def test_pandas_missing_values_are_missing():
    import pandas as pd

    X, y, given = numbers()
    true = pd.array([v if at % 3 else pd.NA for at, v in enumerate(y)], dtype="Int64")
    out = quick().fit(X, pd.Series(given, dtype="Int64"), true)
    heeded = pd.array([v if at % 2 else pd.NA for at, v in enumerate(given)], dtype="Int64")
    none = out.predict_proba(X)
    some = out.predict_proba(X, heeded)
    np.testing.assert_array_equal(none[::2], some[::2])
    assert (none[1::2] != some[1::2]).any()


@pytest.mark.parametrize(
    ("true", "words"),
    [
        (lambda y: y + 0.5, "hold 0.5, but the classes are whole numbers|hold 1.5|hold 2.5"),
        (lambda y: np.where(y == 0, -1, y), "None there"),
        (lambda y: np.full(len(y), "x"), "whole numbers"),
        (lambda y: y[:5], "true labels have shape"),
    ],
)
def test_truth_of_another_kind_is_refused(true, words):
    X, y, given = numbers()
    with pytest.raises(DataError, match=words):
        quick().fit(X, given, true(y))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (lambda g: g[:5], "the given labels have shape"),
        (lambda g: np.full(len(g), 1.5), "hold 1.5"),
        (lambda g: np.full(len(g), "x"), "whole numbers"),
        (lambda g: g + 5, "training never saw"),
    ],
)
def test_given_labels_of_another_kind_are_refused(labels, words):
    X, y, given = numbers()
    out = quick().fit(X, given, y)
    with pytest.raises(DataError, match=words):
        out.predict(X, labels(given))
    with pytest.raises(DataError, match=words):
        out.adapt(X, labels(given), y)


def test_rows_without_a_given_label_are_counted():
    X, y, given = numbers()
    with pytest.raises(DataError, match="rows have no given label"):
        quick().fit(X, np.where(given == 0, None, given), y)


def test_unfitted_is_said():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        CopyNet().predict(np.zeros((2, 2)))


def test_adapting_again_on_a_few_rows_keeps_what_was_learned(fitted, tmp_path):
    fitted.save(tmp_path / "c.safetensors")
    again = CopyNet.load(tmp_path / "c.safetensors")
    X, y, given = turned()
    again.adapt(X[:400], given[:400], y[:400])
    before = (again.predict(X[400:], given[400:]) == y[400:]).mean()
    again.adapt(X[:6], given[:6], y[:6])
    assert (again.predict(X[400:], given[400:]) == y[400:]).mean() > before - 0.01


def test_columns_that_are_swapped_are_told(tmp_path):
    import pandas as pd

    X, y, given = blobs(300)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        some = CopyNet(TorchClassifier(epochs=1), random_state=0).fit(frame, given, y)
        some.predict(frame, given)
    some.save(tmp_path / "c.safetensors")
    for one in (some, CopyNet.load(tmp_path / "c.safetensors")):
        assert one.feature_names_in_.tolist() == ["a", "b", "c"]
        with pytest.raises(ValueError, match="feature names"):
            one.predict(frame[["c", "b", "a"]], given)


def test_a_pattern_is_covered_whatever_the_labels_are():
    proba, codes = np.eye(3)[[0, 0, 0, 0, 1, 2]], np.array([0, 0, 0, 1, 1, 0])
    for names in ([0, 1, 2], [-1, 0, 6], ["a", "b", "c"]):
        chosen = cover_pattern(proba, np.array(names)[codes], 4, np.random.default_rng(0)).tolist()
        assert chosen[1:] == [3, 4, 5]
    with pytest.raises(SettingsError, match="count=-5"):
        cover_pattern(proba, codes, -5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"amateur": "mlp"}, "is no network"), ({"hidden": 64}, "are no layers"), ({"hidden": (64, 0)}, "are no layers")],
)
def test_settings_that_make_no_sense(options, words):
    X, y, given = blobs(60)
    with pytest.raises(SettingsError, match=words):
        CopyNet(**options).fit(X, given, y)
    with pytest.raises(SettingsError, match="is no count"):
        CopyNet(TorchClassifier(epochs=1)).fit(X, given, y).adapt(X, given, y, epochs=0)


def test_truth_of_another_kind_than_the_labels_is_told():
    X, _, given = blobs(60)
    for labels in (given, given.astype(object)):
        with pytest.raises(DataError, match="the classes are texts"):
            CopyNet(TorchClassifier(epochs=1)).fit(X, labels, np.zeros(60, int))
