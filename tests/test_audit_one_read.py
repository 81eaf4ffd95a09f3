"""The compiled read of many classes against the plain one."""

import numpy as np
import pytest

from labelwright.auditing import passes
from labelwright.auditing.evidence import Narrow
from labelwright.auditing.one_read import compiled, look
from labelwright.auditing.reading import SLACK, Probabilities
from labelwright.errors import DataError


def table(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(k, 0.1), n).astype(np.float32)
    proba[: n // 4] = np.round(proba[: n // 4], 1)  # ties, also between the given class and another
    proba[: n // 4, 0] += 1 - proba[: n // 4].sum(axis=1)
    given = np.where(rng.random(n) < 0.5, proba.argmax(axis=1), rng.integers(k, size=n))
    return np.abs(proba), given


def filled(how, proba: np.ndarray, given: np.ndarray) -> tuple[int, Narrow]:
    n = len(given)
    out = Narrow(np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32))
    strange = how(proba, proba.view(np.uint32), given, out.own, out.other, out.rival, np.float32(SLACK))
    return strange, out


WAYS = [
    pytest.param(lambda: look, id="python"),
    pytest.param(lambda: compiled() or pytest.skip("numba is not installed"), id="compiled"),
]


@pytest.mark.parametrize("way", WAYS)
def test_finds_what_the_plain_reads_find(way):
    proba, given = table(400, 17, 0)
    strange, found = filled(way(), proba, given)
    plain = Narrow.of(proba, given)
    assert strange == int((np.abs(proba.sum(axis=1) - 1) > SLACK).sum())
    np.testing.assert_array_equal(found.own, plain.own)
    np.testing.assert_array_equal(found.other, plain.other)
    np.testing.assert_array_equal(found.rival, plain.rival)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.1, 1.5])
def test_counts_rows_that_are_no_probabilities(way, bad):
    proba, given = np.full((5, 8), 1 / 8, np.float32), np.arange(5)
    proba[3, 6] = bad
    assert filled(way(), proba, given)[0] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_whole_pass_is_the_same_with_and_without(monkeypatch, dtype):
    if compiled() is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(passes, "WORTH_CELLS", 0)
    proba, given = table(600, 300, 1)
    proba = (proba / proba.sum(axis=1, keepdims=True)).astype(dtype)
    proba[5, 5] = -0.0  # a sign bit, but no negative number
    given[50] = -1
    with_it = passes.narrowed(Probabilities(proba), given, block=100)
    monkeypatch.setattr(passes, "compiled", lambda: None)
    without = passes.narrowed(Probabilities(proba), given, block=64)
    for name in ("own", "other", "rival"):
        np.testing.assert_array_equal(getattr(with_it, name), getattr(without, name))


def test_a_bad_row_is_named_as_without(monkeypatch):
    monkeypatch.setattr(passes, "WORTH_CELLS", 0)
    proba, given = np.full((300, 400), 1 / 400, np.float32), np.zeros(300, int)
    proba[222, 1] = -0.5
    with pytest.raises(DataError, match=r"row 222 of the probabilities holds -0\.5, a negative number"):
        passes.narrowed(Probabilities(proba), given)
