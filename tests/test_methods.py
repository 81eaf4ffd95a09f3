"""Robust methods: the first step of each on the training loop, worked out by hand; what they keep over a stop; bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_torch_classifier import bars

torch = pytest.importorskip("torch")

from labelwright.baselines import d2l, dividemix  # noqa: E402
from labelwright.baselines.bootstrap import Bootstrap  # noqa: E402
from labelwright.baselines.coteaching import CoTeaching  # noqa: E402
from labelwright.baselines.d2l import D2L  # noqa: E402
from labelwright.baselines.disc import DISC, holed  # noqa: E402
from labelwright.baselines.dividemix import DivideMix  # noqa: E402
from labelwright.baselines.elr import ELR  # noqa: E402
from labelwright.baselines.forward import Forward, anchored  # noqa: E402
from labelwright.baselines.gce import GCE  # noqa: E402
from labelwright.baselines.glc import GLC  # noqa: E402
from labelwright.baselines.sop import SOP  # noqa: E402
from labelwright.errors import DataError, LabelwrightError, SettingsError  # noqa: E402
from labelwright.learners.imitating import Cascade, Imitate  # noqa: E402
from labelwright.learners.objectives import Task, Twins  # noqa: E402
from labelwright.learners.torch_classifier import TorchClassifier  # noqa: E402
from labelwright.learners.training import Inputs, Recipe, Trainer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

X = np.array([[1.0, 0.5], [-0.5, 2.0], [0.3, -1.0], [1.5, 1.0], [-1.0, -0.2], [0.1, 0.9]])
GIVEN = np.array([0, 1, 2, 1, 0, 2])
W0 = np.array([[0.4, -0.3], [0.1, 0.8], [-0.6, 0.2]])
W1 = np.array([[-0.2, 0.5], [0.7, -0.1], [0.0, 0.3]])
RATE = 0.1
EYE = np.eye(3)
METHODS = [Bootstrap("soft"), Bootstrap("hard"), GCE(), ELR(), SOP(), Forward(), GLC(), CoTeaching(gradual=2), D2L(0),
           DivideMix(1), DISC(1), Imitate("dense", (8,)), Imitate("fusing", (8,))]  # fmt: skip


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def linear(weights: np.ndarray) -> torch.nn.Linear:
    layer = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    layer.weight.data = torch.tensor(weights, dtype=torch.float32)
    return layer


def weights_of(layer: torch.nn.Module) -> np.ndarray:
    return layer.weight.detach().numpy().astype(float)


def task(trusted: list[int] | None = None, plain: Callable[[Any], np.ndarray] | None = None, **more: Any) -> Task:
    def unasked(mask: Any = None) -> np.ndarray:
        raise AssertionError("nobody should ask for another network")

    sure = torch.full((6,), -1) if trusted is None else torch.tensor(trusted)
    options = {"epochs": 30, "seed": 0, "plain": plain or unasked, "crossed": unasked, **more}
    return Task(given=torch.tensor(GIVEN), trusted=sure, classes=3, **options)


def step(network: torch.nn.Module, objective: Any, epochs: int = 1) -> None:
    """One epoch of one minibatch by the real loop: plain gradient descent."""
    trainer = Trainer(network, device=torch.device("cpu"), precision=torch.float32)
    values = torch.tensor(X, dtype=torch.float32)
    inputs = Inputs(values, torch.ones(1), torch.zeros(1), torch.device("cpu"))
    recipe = Recipe(epochs, batch_size=6, rate=RATE, momentum=0.0, weight_decay=0.0, final=1.0)
    trainer.run(inputs, torch.tensor(GIVEN), recipe, seed=0, objective=objective)


def moved(weights: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Weights after a step; slope: (n, K) of each row's loss by its logits, averaged over the rows."""
    return weights - RATE * slope.T @ X / len(slope)


def slope_towards(target: np.ndarray, weights: np.ndarray = W0) -> np.ndarray:
    return softmax(X @ weights.T) - target


def check(method: Any, slope: np.ndarray, told: Task | None = None, **state: Any) -> Any:
    network, objective = linear(W0), method.begin(told or task())
    objective.state.update(state)
    step(network, objective)
    np.testing.assert_allclose(weights_of(network), moved(W0, slope), atol=2e-6)
    return objective


def test_bootstraps_first_step():
    p = softmax(X @ W0.T)
    check(Bootstrap("soft"), slope_towards(0.95 * EYE[GIVEN] + 0.05 * p))
    check(Bootstrap("hard"), slope_towards(0.8 * EYE[GIVEN] + 0.2 * EYE[p.argmax(axis=1)]))


def test_generalised_cross_entropys_first_step():
    p = softmax(X @ W0.T)
    own = p[np.arange(6), GIVEN][:, None] ** 0.7
    check(GCE(0.7), own * (p - EYE[GIVEN]))


def test_early_learning_regularisations_first_step():
    p = softmax(X @ W0.T)
    t = 0.3 * p  # the moving average after one step from nothing
    s = (p * t).sum(axis=1, keepdims=True)
    pull = -(p * (t - s)) / (1 - s)
    objective = check(ELR(0.7, 3.0), (p - EYE[GIVEN]) + 3.0 * pull)
    np.testing.assert_allclose(objective.state["believed"].numpy(), t, atol=1e-6)


T = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])


def forward_slope(p: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    column = matrix[:, GIVEN].T
    said = (p * column).sum(axis=1, keepdims=True)
    return -p * (column - said) / said


def test_forward_corrections_first_step():
    p = softmax(X @ W0.T)
    check(Forward(tuple(map(tuple, T))), forward_slope(p, T))


def test_forward_estimates_its_matrix_from_the_row_surest_below_the_97th_percentile():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 500)
    matrix = anchored(proba, np.full(3, 1 / 3))
    for k in range(3):
        below = proba[proba[:, k] < np.sort(proba[:, k])[int(np.ceil(0.97 * 499))]]
        np.testing.assert_allclose(matrix[k], below[below[:, k].argmax()])
    many = rng.dirichlet(np.ones(100), 300)
    np.testing.assert_allclose(anchored(many, np.full(100, 0.01))[7], many[many[:, 7].argmax()])
    p = softmax(X @ W0.T)
    check(Forward(), forward_slope(p, anchored(p, np.bincount(GIVEN) / 6)), task(plain=lambda mask: p))


def test_a_rare_class_is_anchored_by_its_surest_row():
    """The 97th percentile leaves out every row of a class that is rarer than 3 %."""
    proba = np.eye(3)[np.r_[np.zeros(49, int), np.ones(49, int), 2, 2]] * 0.97 + 0.01
    share = np.array([0.49, 0.49, 0.02])
    np.testing.assert_allclose(anchored(proba, share)[2], proba[-1])


def test_dimensionality_knows_no_copies_and_no_small_group_left_over():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(131, 5)).astype(np.float32)
    values[:12] = 0.0

    class Seen:
        def hidden(self, rows):
            return torch.as_tensor(values)[rows]

    objective = D2L(0).begin(Task(torch.zeros(131, dtype=torch.long), torch.full((131,), -1), 2, 30, 0, None, None))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for epoch in range(8):
            objective.begin_epoch(epoch, Seen())
    assert len(objective.lids) == 8 and max(objective.lids) < 2 * min(objective.lids) < 20


@pytest.mark.parametrize(
    "wrong", [lambda: Forward(0.3), lambda: Forward("auto"), lambda: DISC(0), lambda: DivideMix(-3)]
)
def test_settings_of_methods_that_make_no_sense(wrong):
    with pytest.raises(SettingsError, match="expected"):
        wrong()


def test_gold_loss_corrections_first_step():
    p, trusted = softmax(X @ W0.T), [0, -1, 2, -1, 1, -1]
    masks = []

    def plain(mask: Any) -> np.ndarray:
        masks.append(mask)
        return p

    matrix = np.array([p[0], p[4], p[2]])  # one trusted row a class
    slope = forward_slope(p, matrix)
    for row, true in enumerate(trusted):
        if true >= 0:
            slope[row] = p[row] - EYE[true]
    check(GLC(), slope, task(trusted, plain))
    assert masks[0].tolist() == [False, True, False, True, False, True]


def sop_loss(z: np.ndarray, u: np.ndarray, v: np.ndarray) -> float:
    """Equations 3 to 5 of Liu et al. 2022, in NumPy; what is held constant is passed in as it is."""
    p, given = softmax(z), EYE[GIVEN]
    explained = p + u**2 * given - SOP_V**2 * (1 - given)
    explained = np.maximum(explained, 1e-8)
    explained /= explained.sum(axis=1, keepdims=True)
    apart = EYE[SOP_BEST] + u**2 * given - v**2 * (1 - given) - given
    return float(np.mean(-(given * np.log(explained)).sum(axis=1) + (apart**2).sum(axis=1)))


SOP_U = np.array([[0.3], [0.1], [0.2], [0.4], [0.15], [0.25]])
SOP_V = np.random.default_rng(3).uniform(0.02, 0.1, (6, 3))
SOP_BEST = softmax(X @ W0.T).argmax(axis=1)


def slopes(f: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Central differences."""
    out = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        high, low = at.copy(), at.copy()
        high[place], low[place] = at[place] + 1e-5, at[place] - 1e-5
        out[place] = (f(high) - f(low)) / 2e-5
    return out


def test_sparse_over_parameterisations_first_step():
    z = X @ W0.T
    state = {"u": torch.tensor(SOP_U, dtype=torch.float32), "v": torch.tensor(SOP_V, dtype=torch.float32)}
    objective = check(SOP(2.0, 5.0), 6 * slopes(lambda at: sop_loss(at, SOP_U, SOP_V), z), **state)
    down_u, down_v = slopes(lambda u: sop_loss(z, u, SOP_V), SOP_U), slopes(lambda v: sop_loss(z, SOP_U, v), SOP_V)
    np.testing.assert_allclose(objective.state["u"].numpy(), SOP_U - 2.0 * down_u, atol=1e-5)
    np.testing.assert_allclose(objective.state["v"].numpy(), SOP_V - 5.0 * down_v, atol=1e-5)


def test_co_teachings_first_step():
    network = Twins(linear(W0), linear(W1), mean=False)
    objective = CoTeaching(0.4, gradual=1).begin(task())
    step(network, objective, epochs=2)  # the first epoch drops nobody, the second 40 % of six rows
    ways = [W0, W1]
    for keep in (6, 3):
        p = [softmax(X @ w.T) for w in ways]
        loss = [-np.log(one[np.arange(6), GIVEN]) for one in p]
        chosen = [np.argsort(one, kind="stable")[:keep] for one in loss]
        ways = [
            w - RATE * (p[at] - EYE[GIVEN])[chosen[1 - at]].T @ X[chosen[1 - at]] / keep for at, w in enumerate(ways)
        ]
    for member, weights in zip(network.members, ways, strict=True):
        np.testing.assert_allclose(weights_of(member), weights, atol=5e-6)


def test_co_teaching_estimates_the_rate_it_is_not_told():
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=3000)
    given = np.where(rng.random(3000) < 0.3, (true + rng.integers(1, 3, 3000)) % 3, true)
    told = replace(task(crossed=lambda: softmax(6 * EYE[true])), given=torch.tensor(given))
    assert abs(CoTeaching().begin(told).rate - 0.3) < 0.02


def test_dimensionality_is_the_published_estimate():
    points = np.random.default_rng(0).normal(size=(40, 5))
    found = d2l.dimensionality(torch.tensor(points, dtype=torch.float32), 20).numpy()
    for at in range(40):
        near = np.sort(np.linalg.norm(points - points[at], axis=1))[1:21]
        np.testing.assert_allclose(found[at], -20 / np.log(near / near[-1]).sum(), rtol=1e-4)


class Layers:
    """Hidden values that fill ``dims`` dimensions evenly."""

    dims = 2

    def hidden(self, rows: Any) -> Any:
        rng = np.random.default_rng(len(rows))
        return torch.tensor(np.pad(rng.uniform(size=(len(rows), self.dims)), ((0, 0), (0, 8 - self.dims))))


def test_d2l_turns_where_dimensionality_rises_and_then_trusts_itself():
    told = replace(task(), given=torch.zeros(256, dtype=torch.int64))
    objective, layers = D2L(3).begin(told), Layers()
    for epoch in range(12):
        layers.dims = 2 if epoch < 10 else 5
        objective.begin_epoch(epoch, layers)
    assert objective.turned == 10
    lids = objective.lids
    assert 1.5 < lids[0] < 2.6 and lids[11] > 3
    assert float(objective.state["alpha"]) == pytest.approx(np.exp(-(11 / 30) * lids[11] / min(lids)), rel=1e-4)
    early = D2L(3).begin(told)
    for epoch in range(6):
        layers.dims = 2 if epoch < 4 else 6  # rises too early to be looked at
        early.begin_epoch(epoch, layers)
    assert early.turned is None


def test_d2ls_step_after_the_turn():
    p = softmax(X @ W0.T)
    objective = D2L().begin(task())
    objective.begin_epoch = lambda epoch, seen: None
    objective.state["alpha"] = torch.tensor(0.6)
    network = linear(W0)
    step(network, objective)
    target = 0.6 * EYE[GIVEN] + 0.4 * EYE[p.argmax(axis=1)]
    np.testing.assert_allclose(weights_of(network), moved(W0, slope_towards(target)), atol=2e-6)


def test_dividemix_warms_up_on_both_networks():
    network = Twins(linear(W0), linear(W1), mean=True)
    step(network, DivideMix(1).begin(task()))
    for member, weights in zip(network.members, (W0, W1), strict=True):
        np.testing.assert_allclose(weights_of(member), moved(weights, slope_towards(EYE[GIVEN], weights)), atol=2e-6)


def test_dividemixs_targets_and_loss():
    objective = DivideMix(1, unlabelled=25.0).begin(task())
    objective.state["weight"] = torch.tensor(10.0)
    a, b = softmax(X @ W0.T), softmax(X @ W1.T)
    clean = np.array([0.9, 0.2, 0.7, 0.1, 0.8, 0.4])
    shares = [[torch.tensor(one, dtype=torch.float32)] * 2 for one in (a, b)]
    found = objective.targets(shares, 0, torch.tensor(clean, dtype=torch.float32), torch.tensor(GIVEN)).numpy()
    refined = clean[:, None] * EYE[GIVEN] + (1 - clean[:, None]) * a
    wanted = np.where(clean[:, None] > 0.5, refined, (a + b) / 2) ** 2
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    z, sure = X @ W0.T, clean > 0.5
    loss = objective.loss_of(
        torch.tensor(z, dtype=torch.float32), torch.tensor(wanted, dtype=torch.float32), torch.tensor(sure)
    )
    right = -(wanted * np.log(a)).sum(axis=1)[sure].mean()
    guessed = ((a - wanted)[~sure] ** 2).mean()
    spread = (1 / 3 * np.log(1 / 3 / a.mean(axis=0))).sum()
    assert float(loss) == pytest.approx(right + 10 * guessed + spread, rel=1e-5)


def test_dividemix_believes_small_losses():
    rng = np.random.default_rng(0)
    loss = np.concatenate([rng.normal(0.2, 0.05, 700), rng.normal(2.0, 0.3, 300)])
    clean = dividemix.believed(loss)
    assert (clean[:700] > 0.9).mean() > 0.98 and (clean[700:] < 0.1).all()


def test_discs_warm_up_step_and_thresholds():
    p = softmax(X @ W0.T)
    objective = check(DISC(1), p - EYE[GIVEN])  # vectors have no holes: both looks are the same
    np.testing.assert_allclose(objective.state["shares"].numpy(), [p, p], atol=1e-6)
    objective.begin_epoch(1, None)
    wanted = 0.99 ** (200 / 30) / 3 + (1 - 0.99 ** (200 / 30)) * p.max(axis=1)
    np.testing.assert_allclose(objective.state["thresholds"].numpy(), [wanted, wanted], atol=1e-6)
    own = p[np.arange(6), GIVEN] > 1 / 3  # by the thresholds as they were in the epoch
    np.testing.assert_array_equal(objective.state["kind"].numpy() == 1, own)


def test_discs_sets_and_loss():
    objective = DISC(1, margin=0.2).begin(task())
    weak, strong = softmax(3 * X @ W0.T), softmax(2 * X @ W1.T)
    own = [p[np.arange(6), GIVEN] for p in (weak, strong)]
    limits = np.array([[0.3, 0.3, 0.1, 0.35, 0.2, 0.6], [0.2, 0.5, 0.3, 0.1, 0.55, 0.5]])
    shares = torch.tensor(np.array([weak, strong]), dtype=torch.float32)
    found = objective.sets(shares, torch.tensor(limits, dtype=torch.float32), torch.tensor(GIVEN))
    clean, hard, purified, label = (part.numpy() for part in found)
    passed = [one > limit for one, limit in zip(own, limits, strict=True)]
    mean = (weak + strong) / 2
    np.testing.assert_array_equal(clean, passed[0] & passed[1])
    np.testing.assert_array_equal(hard, passed[0] ^ passed[1])
    np.testing.assert_array_equal(purified, ~(passed[0] | passed[1]) & (mean.max(axis=1) > limits.mean(axis=0) + 0.2))
    assert clean.any() and hard.any() and purified.any() and not (clean | hard | purified).all()
    np.testing.assert_array_equal(label, np.where(purified, mean.argmax(axis=1), GIVEN))
    logits = [torch.tensor(np.log(p), dtype=torch.float32) for p in (weak, strong)]
    loss = 0.0
    for p in (weak, strong):
        told = p[np.arange(6), GIVEN]
        loss += 0.5 * (clean * -np.log(told) + hard * (1 - told**0.7) / 0.7).mean()
    kind = torch.tensor(clean + 2 * hard + 3 * purified)
    assert float(objective.loss_of(logits, kind, torch.tensor(GIVEN))) == pytest.approx(loss, rel=1e-5)


def test_a_hole_is_half_as_wide_as_the_picture():
    torch.manual_seed(0)
    empty = (holed(torch.ones(500, 3, 16, 12)) == 0).float()
    assert empty.sum((2, 3)).max() == 8 * 6 and (empty[:, 0] == empty[:, 2]).all()
    assert torch.equal(holed(torch.ones(4, 7)), torch.ones(4, 7))


def expert_weights() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(3, 6)) * 0.3


def test_copynets_first_step_is_the_experts_and_then_the_amateurs():
    trusted = np.array([0, -1, 2, 1, -1, 2])
    network, before = Cascade(linear(W0), linear(expert_weights()), 3), expert_weights()
    step(network, Imitate("dense").begin(task(trusted.tolist())))
    a = softmax(X @ W0.T)
    read, sure = np.concatenate([a, EYE[GIVEN]], axis=1), trusted >= 0
    slope = (softmax(read @ before.T) - EYE[trusted])[sure]
    after = before - RATE * slope.T @ read[sure] / sure.sum()
    np.testing.assert_allclose(weights_of(network.expert), after, atol=2e-6)
    e = softmax(read @ after.T)  # by the Expert as it is after its step
    np.testing.assert_allclose(weights_of(network.amateur), moved(W0, a - e), atol=2e-6)


def test_copynets_amateur_keeps_labels_that_nobody_vouched_for():
    trusted = np.array([0, -1, -1, 1, -1, -1])  # class 2 has no trusted row
    network = Cascade(linear(W0), linear(expert_weights()), 3)
    step(network, Imitate("dense").begin(task(trusted.tolist())))
    a = softmax(X @ W0.T)
    read = np.concatenate([a, EYE[GIVEN]], axis=1)
    e = softmax(read @ weights_of(network.expert).T)
    e[GIVEN == 2] = EYE[2]
    np.testing.assert_allclose(weights_of(network.amateur), moved(W0, a - e), atol=2e-6)


def test_the_fusing_expert_begins_as_bayes_rule():
    network = Imitate("fusing", (8,)).network(lambda: linear(W0), 3)
    a, T8 = softmax(X @ W0.T), np.full((3, 3), 0.1) + 0.7 * EYE
    said = softmax(network.judge(torch.tensor(a, dtype=torch.float32), torch.tensor(GIVEN)).detach().numpy())
    wanted = a * T8[:, GIVEN].T
    np.testing.assert_allclose(said, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-5)


# ---------------------------------------------------------------- on TorchClassifier


def noisy_bars(n: int = 192, rate: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pictures, y = bars(n)
    rng = np.random.default_rng(1)
    return pictures, y, np.where(rng.random(n) < rate, (y + rng.integers(1, 3, n)) % 3, y)


def classifier(method: Any, **options: Any) -> TorchClassifier:
    settings = {"epochs": 4, "batch_size": 48, "precision": "float32", "random_state": 0, **options}
    return TorchClassifier("compact-small", method=method, **settings)


def trust(y: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(y)) % 4 == 0, y, None)


class Stopped(BaseException):
    """Somebody pulled the plug."""


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_stopped_and_started_again_a_method_ends_with_the_same_numbers(method, tmp_path):
    pictures, y, given = noisy_bars(96)
    whole = classifier(method).fit(pictures, given, trusted=trust(y)).predict_proba(pictures)
    options = {"checkpoint": tmp_path / "c.safetensors", "checkpoint_seconds": 0.0}

    def unplug(epoch: int) -> None:
        if epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        classifier(method, on_epoch=unplug, **options).fit(pictures, given, trusted=trust(y))
    assert (tmp_path / "c.safetensors").exists()
    again = classifier(method, **options).fit(pictures, given, trusted=trust(y)).predict_proba(pictures)
    np.testing.assert_array_equal(whole, again)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_saved_method_comes_back_and_goes_on(method, tmp_path):
    pictures, y, given = noisy_bars(96)
    model = classifier(method, epochs=1, later_epochs=1).fit(pictures, given, trusted=trust(y))
    model.save(tmp_path / "m.safetensors")
    again = TorchClassifier.load(tmp_path / "m.safetensors")
    assert again.method == method
    np.testing.assert_array_equal(model.predict_proba(pictures), again.predict_proba(pictures))
    if not isinstance(method, GLC):  # which needs trusted rows, and partial_fit takes none
        model.partial_fit(pictures, given)
        again.partial_fit(pictures, given)
        np.testing.assert_allclose(model.predict_proba(pictures), again.predict_proba(pictures), atol=1e-6)


def test_a_file_that_names_a_method_of_elsewhere_makes_nothing(tmp_path):
    from labelwright.learners import saved

    for kind in ("os:system", "labelwright.baselines.gce:annotations", "labelwright.bench.qal:run_cell"):
        with pytest.raises(SettingsError, match="not of this package"):
            saved._method({"kind": kind, "settings": {}}, "a file")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Bootstrap("firm"), "expected soft or hard"),
        (lambda: Bootstrap(share=0.0), "share"),
        (lambda: GCE(0.0), "q=0.0"),
        (lambda: ELR(1.0), "decay"),
        (lambda: SOP(-1.0), "learning rates"),
        (lambda: CoTeaching(1.0), "share of wrong labels"),
        (lambda: D2L(-1), "number of epochs"),
        (lambda: DivideMix(threshold=1.0), "threshold"),
        (lambda: DISC(decay=1.0), "decay"),
        (lambda: DISC(q=0.0), "q in"),
        (lambda: Imitate("wise"), "dense or fusing"),
        (lambda: classifier("d2l").fit(*bars(12)), "is no method"),
        (lambda: classifier(GCE()).partial_fit(*bars(12), target=np.full((12, 3), 1 / 3)), "not from shares"),
        (lambda: classifier(GCE()).fit(*bars(12), sample_weight=np.ones(12)), "sample_weight"),
        (lambda: classifier(GLC()).fit(*bars(12)), "trusted"),
        (lambda: classifier(Forward(((1.0, 0.0), (0.0, 1.0)))).fit(*bars(12)), r"expected \(3, 3\)"),
        (lambda: classifier(GLC()).fit(*bars(12), trusted=[1]), "one a row"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(make, words):
    with pytest.raises((SettingsError, DataError), match=words) as caught:
        make()
    assert isinstance(caught.value, LabelwrightError) and "\n" not in str(caught.value)
