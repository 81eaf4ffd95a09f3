"""Training that was killed goes on from its checkpoint: held-out rows, other data, runs without a seed."""

import numpy as np
import pytest

from labelwright.errors import SettingsError
from labelwright.learners import checkpoint
from labelwright.learners.torch_classifier import TorchClassifier

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(3, size=300)
X = (np.eye(3)[TRUTH] * 3 + RNG.normal(size=(300, 3))).astype(np.float32)
GIVEN = np.where(RNG.random(300) < 0.3, (TRUTH + 1) % 3, TRUTH)


class Killed(Exception):
    """In place of SIGKILL: the file on the disk is the same."""


def killed_at(write: int, model: TorchClassifier, rows=X, labels=GIVEN, **more) -> None:
    """Fit, and die right after the n-th checkpoint."""
    writes, original = 0, checkpoint.Checkpoint.write

    def counted(self, tensors, told):
        nonlocal writes
        original(self, tensors, told)
        writes += 1
        if writes == write:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "write", counted)
        with pytest.raises(Killed):
            model.fit(rows, labels, **more)


def net(path, **options) -> TorchClassifier:
    usual = {"epochs": 6, "batch_size": 50, "random_state": 0, "checkpoint": path, "checkpoint_seconds": 0.0}
    return TorchClassifier(**{**usual, **options})


@pytest.mark.parametrize("write", [3, 13, 22])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_best_epoch_and_the_patience_go_on(tmp_path, write, average):
    watched = {"validation_fraction": 0.3, "keep": "best", "patience": 4, "average": average}
    whole = net(None, **watched).fit(X, GIVEN)
    killed_at(write, net(tmp_path / "ck", **watched))
    again = net(tmp_path / "ck", **watched).fit(X, GIVEN)
    assert again.history_ == whole.history_
    assert again.best_epoch_ == whole.best_epoch_
    np.testing.assert_array_equal(again.predict_proba(X), whole.predict_proba(X))


def epochs_run(model: TorchClassifier, *data, **more) -> list[int]:
    seen: list[int] = []
    model.set_params(on_epoch=lambda epoch: seen.append(epoch)).fit(*data, **more)
    return seen


def test_rows_between_those_looked_at_count_too(tmp_path):
    big = np.repeat(X, 10, axis=0)
    killed_at(350, net(tmp_path / "ck"), big, np.repeat(GIVEN, 10))
    big[np.arange(3000) % 3 != 0] = 0.5
    assert epochs_run(net(tmp_path / "ck"), big, np.repeat(GIVEN, 10)) == [1, 2, 3, 4, 5, 6]


def test_other_weights_or_held_out_rows_are_another_run(tmp_path):
    killed_at(26, net(tmp_path / "ck"))
    assert epochs_run(net(tmp_path / "ck"), X, GIVEN, np.where(GIVEN == 0, 9.0, 1.0)) == [1, 2, 3, 4, 5, 6]
    killed_at(26, net(tmp_path / "ck"))
    assert epochs_run(net(tmp_path / "ck", validation_fraction=0.3), X, GIVEN) == [1, 2, 3, 4, 5, 6]


def test_another_image_shape_is_another_run(tmp_path):
    flat = RNG.integers(0, 255, (60, 192)).astype(np.uint8)
    killed_at(3, net(tmp_path / "ck", image_shape=(8, 8, 3)), flat, GIVEN[:60])
    assert len(epochs_run(net(tmp_path / "ck", image_shape=(8, 24, 1)), flat, GIVEN[:60])) == 6


def test_without_a_seed_it_goes_on_from_the_seed_of_the_checkpoint(tmp_path):
    killed_at(30, net(tmp_path / "ck", random_state=None))
    assert epochs_run(net(tmp_path / "ck", random_state=None), X, GIVEN) == [5, 6]


def test_a_saved_network_is_no_checkpoint_to_be_deleted(tmp_path):
    path = tmp_path / "model.safetensors"
    net(None).fit(X, GIVEN).save(path)
    kept = path.read_bytes()
    for place in (path, tmp_path):
        with pytest.raises(SettingsError, match="is something else"):
            net(place).fit(X, GIVEN)
    assert path.read_bytes() == kept


def test_a_file_that_is_no_checkpoint_is_left_alone(tmp_path):
    mine = tmp_path / "precious.csv"
    mine.write_text("id,label\n" * 1000)
    with pytest.raises(SettingsError, match="is something else"):
        net(mine).fit(X, GIVEN)
    assert mine.read_text().startswith("id,label")


def test_a_checkpoint_of_other_weights_or_classes_is_not_used(tmp_path):
    models = [net(None, later_epochs=6).fit(X, labels) for labels in (GIVEN, (GIVEN + 1) % 3)]
    plain = net(None, later_epochs=6).fit(X, (GIVEN + 1) % 3).partial_fit(X[:99], GIVEN[:99]).predict_proba(X)
    for one in models:
        one.set_params(checkpoint=tmp_path / "ck", checkpoint_seconds=0.0)

    def die(epoch: int) -> None:
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        models[0].set_params(on_epoch=die).partial_fit(X[:99], GIVEN[:99])
    np.testing.assert_array_equal(models[1].partial_fit(X[:99], GIVEN[:99]).predict_proba(X), plain)
    two = np.minimum(GIVEN, 1)
    with pytest.raises(Killed):
        net(tmp_path / "ck", on_epoch=die).partial_fit(X, two, classes=[0, 1, 2])
    np.testing.assert_array_equal(
        net(tmp_path / "ck").fit(X, two).predict_proba(X), net(None).fit(X, two).predict_proba(X)
    )


def test_where_no_checkpoint_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        net(tmp_path / "file" / "ck").fit(X, GIVEN)
    (tmp_path / ".ck.123").write_bytes(b"begun by a run that was killed")
    net(tmp_path / "ck").fit(X, GIVEN)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
