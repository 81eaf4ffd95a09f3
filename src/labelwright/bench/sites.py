"""Eight sites that clean real digits together, each in a process of its own, against pooled training and each site alone.

500 MNIST rows a site (where MNIST is not at hand: 200 of scikit-learn's digits), each site with its own noise pattern, 20 to
60 % of the labels wrong. Pooled and alone are the best of their ways: as given, one noise matrix, and where rows are pooled
also one matrix for each source. Then with one site that flips every label (as honest software would learn from them, and
vouching for them), and in network namespaces cut in two for ten rounds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.bench.pieces import USUAL, How, mean_and_interval, written
from labelwright.bench.provenance import provenance
from labelwright.bench.sites_world import Found, namespaces_work, together
from labelwright.datasets import available, load
from labelwright.errors import SettingsError
from labelwright.noise import MNIST_PAIRS, asymmetric, instance_dependent, pair_flip, sparse_pairs, symmetric
from labelwright.noise.checks import Corruption
from labelwright.posterior import NoiseModel
from labelwright.sites import Member, Plan, Site
from labelwright.sites.message import most_bytes
from labelwright.sites.model import learned, softmax
from labelwright.types import NO_LABEL, Floats, Ints

SITES, ROWS, SMALL, K = 8, 500, 200, 10
PATTERNS: tuple[tuple[str, Corruption], ...] = (
    ("symmetric 20 %", symmetric(0.2, classes=K)),
    ("pair flip 40 %", pair_flip(0.4, K)),
    ("asymmetric 45 %", asymmetric(0.45, {**MNIST_PAIRS, 0: 6, 1: 7, 4: 9, 8: 3, 9: 4})),
    ("symmetric 60 %", symmetric(0.6, classes=K)),
    ("sparse pairs 50 %", sparse_pairs(0.5, K)),
    ("instance-dependent 30 %", instance_dependent(0.3, K)),
    ("symmetric 40 %", symmetric(0.4, classes=K)),
    ("sparse pairs 30 %", sparse_pairs(0.3, K, share=0.2)),
)
LIAR = SITES - 1
WITHOUT, FLIPS, VOUCHED = "without the eighth", "a site flips every label", "and vouches for them"
CUT = "cut in two for ten rounds"


@dataclass(frozen=True)
class World:
    """Every site's rows, (SITES, n, d) and (SITES, n), and the test rows."""

    X: Floats
    y: Ints
    given: Ints
    X_test: Floats
    y_test: Ints

    def lying(self) -> World:
        """With every label of the last site flipped, each class to the next."""
        given = self.given.copy()
        given[LIAR] = (self.y[LIAR] + 1) % K
        return World(self.X, self.y, given, self.X_test, self.y_test)


def world(dataset: str, seed: int, data_dir: str | None = None) -> World:
    """Draw the sites' rows and noise."""
    data, rng = load(dataset, data_dir), np.random.default_rng([seed, 5])
    order = rng.permutation(len(data))
    rows = ROWS if len(data) > SITES * ROWS else SMALL
    top = float(data.X.max())
    mine, rest = order[: SITES * rows].reshape(SITES, rows), order[SITES * rows :]
    X, y = data.X[mine] / top, data.y[mine]
    given = np.stack(
        [flip(y[at], X[at], np.random.default_rng([seed, 6, at])) for at, (_, flip) in enumerate(PATTERNS)]
    )
    if data.X_test is None or data.y_test is None:
        return World(X, y, given, data.X[rest] / top, data.y[rest])
    return World(X, y, given, data.X_test / top, data.y_test)


def plan_of(world: World, *, seed: int = 0, **changes: Any) -> Plan:
    """Of eight sites, without addresses."""
    width = world.X.shape[2]
    bandwidth = 1.0 / (width * float(world.X[0].var()))
    members = {f"site-{at}": Member("127.0.0.1:0") for at in range(SITES)}
    return Plan(tuple("0123456789"), width, id="id", bandwidth=bandwidth, seed=seed, members=members, **changes)


class _BySource:
    """A noise matrix for each source, learned from pooled rows: what no site can have. sources: (n,) of each row."""

    def __init__(self, sources: Ints):
        self.sources, self.models = sources, {int(s): NoiseModel.start(K) for s in np.unique(sources)}

    def updated(self, proba: Floats, given: Ints) -> None:
        for source in self.models:
            here = self.sources == source
            self.models[source] = NoiseModel.start(K).updated(proba[here], given[here], rounds=3)

    def believed(self, proba: Floats, given: Ints, known: Ints) -> Floats:
        out = np.empty_like(proba)
        for source, model in self.models.items():
            here = self.sources == source
            untempered = NoiseModel(model.counts, model.answered, 1.0)
            out[here] = untempered.believed(proba[here], given[here], known[here])
        return out


def central(plan: Plan, X: Floats, given: Ints, sources: Ints | None) -> Floats:
    """Weights of the same model on rows in one place. sources: (n,) for a matrix each; None: the labels as given."""
    F, known = plan.make_features()(X), given if sources is None else np.full(len(given), NO_LABEL)
    weights: Floats = np.zeros((F.shape[1], K), np.float32)
    noise: Any = NoiseModel.start(K) if sources is None else _BySource(sources)
    for round_ in range(plan.rounds):
        if sources is not None and round_ >= plan.warm:
            noise.updated(softmax(F @ weights), given)
        weights = learned(weights, F, given, noise, known, steps=plan.steps, rate=plan.rate, decay=plan.decay)
    return weights


def in_process(plan: Plan, world: World, who: list[int], change: Any = None) -> tuple[Floats, dict[int, Site]]:
    """The same rounds without a network: weights after them, and the sites. change: (site, word) -> word, for liars."""
    sites = {at: Site(plan, world.X[at], world.given[at], seed=at) for at in who}
    for _ in range(plan.rounds):
        words = {at: site.learn() for at, site in sites.items()}
        if change is not None:
            words = {at: change(at, word) for at, word in words.items()}
        for site in sites.values():
            site.combine({f"site-{at}": word for at, word in words.items()})
    return next(iter(sites.values())).weights, sites


class Scale:
    """Accuracy in percent on the test rows."""

    def __init__(self, plan: Plan, world: World):
        self.F, self.y = plan.make_features()(world.X_test), world.y_test

    def __call__(self, weights: Floats) -> float:
        return 100 * float(((self.F @ weights).argmax(axis=1) == self.y).mean())


def controls(plan: Plan, world: World, scale: Scale) -> dict[str, Any]:
    """Pooled and alone, each way."""
    X, given = world.X.reshape(-1, plan.width), world.given.reshape(-1)
    source = np.repeat(np.arange(SITES), world.X.shape[1])
    pooled = {
        "as given": scale(central(plan, X, given, None)),
        "one noise matrix": scale(central(plan, X, given, np.zeros_like(source))),
        "a noise matrix for each source": scale(central(plan, X, given, source)),
    }
    alone = []
    for at in range(SITES):
        X, given = world.X[at], world.given[at]
        alone.append(
            max(scale(central(plan, X, given, None)), scale(central(plan, X, given, np.zeros(len(given), int))))
        )
    return {"pooled": pooled, "alone": alone}


def verdicts(world: World, plan: Plan, states: Mapping[int, Any]) -> list[dict[str, float]]:
    """Of each site: share of wrong labels told and true, precision and recall of "kept", corrections and how many are right."""
    from labelwright.types import Batch

    out = []
    for at, state in states.items():
        site = Site(plan, world.X[at], world.given[at])
        site.restore(state)
        split, fixed = site.judge(Batch.of(0, world.X[at], world.given[at]))
        right, kept = world.given[at] == world.y[at], split.kept
        true = world.y[at][fixed.rows.keys]
        out.append({
            "wrong": float(1 - right.mean()), "wrong_told": site.noise.rate,
            "precision": float(right[kept].mean()), "recall": float(kept[right].mean()), "corrected": len(fixed),
            "corrected_right": float((fixed.rows.y == true).mean()) if len(fixed) else 1.0,
        })  # fmt: skip
    return out


def one_seed(dataset: str, seed: int, data_dir: str | None, folder: Path, progress: Any) -> dict[str, Any]:
    """Everything on one draw of rows and noise; accuracies in percent, by site. folder: finished parts are read back."""
    honest, everyone = [*range(LIAR)], [*range(SITES)]
    drawn = world(dataset, seed, data_dir)
    plan = plan_of(drawn, seed=seed)
    scale = Scale(plan, drawn)

    def all_together() -> dict[str, Any]:
        found = together(plan, drawn.X, drawn.given, everyone)
        said = verdicts(drawn, plan, {at: found.states[at]["site"] for at in everyone})
        return {
            "together": _scores(found, scale, everyone),
            "verdicts": said,
            "bytes": found.bytes_each_round(plan.rounds),
        }

    def lying(name: str, vouched: set[int]) -> dict[str, Any]:
        return {name: _scores(together(plan, drawn.X, drawn.lying().given, everyone, vouched=vouched), scale, honest)}

    def cut() -> dict[str, Any]:
        if not namespaces_work():
            return {}
        found = together(plan, drawn.X, drawn.given, everyone, cut=(10, 20))
        return {CUT: _scores(found, scale, everyone), "cut": found.cut}

    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "controls": lambda: controls(plan, drawn, scale),
        "together": all_together,
        "without": lambda: {WITHOUT: [scale(in_process(plan, drawn, honest)[0])] * len(honest)},
        "flips": lambda: lying(FLIPS, set()),
        "vouched": lambda: lying(VOUCHED, {LIAR}),
        "cut": cut,
    }
    told: dict[str, Any] = {}
    for name, part in parts.items():
        told |= kept(folder / f"seed-{seed}" / f"{name}.json", part)
        progress(name)
    return told


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds, or what is made now and written there."""
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps(found))
        path.with_suffix(".new").rename(path)
    return dict(json.loads(path.read_text()))


def _scores(found: Found, scale: Scale, who: list[int]) -> list[float]:
    return [scale(found.weights(at)) for at in who]


def run_sites(dataset: str = "mnist", how: How = USUAL) -> dict[str, Any]:
    """All comparisons; finished parts are not run again. Writes ``sites-<dataset>-<profile>.json`` and ``.png`` into ``output``.
    device and workers are not used.

    Raises SettingsError for a data set that is not of ten digits.
    """
    if dataset == "mnist" and available(how.data_dir)["mnist"] != "ready":
        dataset = "digits"
    if dataset not in ("mnist", "digits", "usps"):
        raise SettingsError(f"the sites hold digits; got {dataset!r}, expected mnist, usps or digits")
    seeds, runs, done = how.range(3), [], 0

    def tick(what: str) -> None:
        nonlocal done
        done += 1
        how.progress(what, done, len(seeds) * 6)

    for one in seeds:
        runs.append(one_seed(dataset, one, how.data_dir, how.pieces(f"sites-{dataset}"), tick))
    plan = plan_of(world(dataset, how.seed, how.data_dir))
    result = {
        "experiment": "sites", "dataset": dataset, "profile": how.profile, "seeds": len(seeds),
        "patterns": [name for name, _ in PATTERNS], "rows_each": int(world(dataset, how.seed, how.data_dir).X.shape[1]),
        "message_bytes": most_bytes(plan.shape), "numbers": plan.shape.numbers,
        "summary": summary(runs), "runs": runs,
        **provenance(how.command("sites", dataset, len(seeds))),
    }  # fmt: skip
    written(result, how.file(f"sites-{dataset}"), figure)
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds: mean accuracy of the sites, and the differences that were asked for. Points are percent."""
    names = [
        "together",
        "without the eighth",
        "a site flips every label",
        "and vouches for them",
        "cut in two for ten rounds",
    ]
    means = {name: [float(np.mean(run[name])) for run in runs] for name in names if name in runs[0]}
    pooled = [max(run["pooled"].values()) for run in runs]
    gain = [min(t - a for t, a in zip(run["together"], run["alone"], strict=True)) for run in runs]
    honest = [float(np.mean(run["together"][:LIAR])) for run in runs]
    out: dict[str, Any] = {name: mean_and_interval(values) for name, values in means.items()}
    out["pooled, best way"] = mean_and_interval(pooled)
    out["alone, mean"] = mean_and_interval([float(np.mean(run["alone"])) for run in runs])
    out["pooled minus together"] = mean_and_interval([p - t for p, t in zip(pooled, means["together"], strict=True)])
    out["least gain of a site over alone"] = mean_and_interval(gain)
    for name in names[2:4]:
        lost = [h - m for h, m in zip(honest, means[name], strict=True)]
        out[f"lost: {name}"] = mean_and_interval(lost)
    if names[4] in means:
        lost = [t - m for t, m in zip(means["together"], means[names[4]], strict=True)]
        out[f"lost: {names[4]}"] = mean_and_interval(lost)
    return out


def figure(result: Mapping[str, Any], path: Path) -> None:
    """Each site alone and together, with pooled training as a line; and what a liar and a partition cost."""
    from matplotlib.figure import Figure

    runs, drawn = result["runs"], Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
    place = np.arange(SITES)
    left.bar(
        place - 0.2, np.mean([run["alone"] for run in runs], axis=0), 0.38, color="#8a929d", label="alone, best way"
    )
    left.bar(place + 0.2, np.mean([run["together"] for run in runs], axis=0), 0.38, color="#2f6aa8", label="together")
    pooled = result["summary"]["pooled, best way"]["mean"]
    left.axhline(pooled, color="#a76d02", lw=1.4, label="rows pooled, best way")
    left.set_xticks(place, result["patterns"], rotation=30, ha="right", fontsize=7)
    left.set(ylabel="accuracy, %", ylim=(0, 100))
    left.legend(fontsize=7, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    names = [name for name in result["summary"] if name in runs[0]]
    for at, name in enumerate(reversed(names)):
        told = result["summary"][name]
        right.plot(told["values"], [at] * len(told["values"]), "o", color="#1c8a78", alpha=0.35, ms=5, mew=0)
        right.plot(told["mean"], at, "|", color="#1c8a78", ms=16, mew=2.5)
    right.axvline(pooled, color="#a76d02", lw=1.4)
    right.set_yticks(range(len(names)), names[::-1])
    right.set(ylim=(-0.6, len(names) - 0.4), xlabel="accuracy of the honest sites, %")
    right.tick_params(labelsize=7)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, dpi=140)


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """The summary, head first."""
    rows = [["method", "percent or points", "± 95 %"]]
    for name, value in result["summary"].items():
        rows.append([name, f"{value['mean']:.2f}", "" if value["ci95"] is None else f"{value['ci95']:.2f}"])
    return rows
