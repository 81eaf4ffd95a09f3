"""Another noise pattern, and noise that fluctuates: what retraining CopyNet's Expert alone is worth (methods section 4).

The Amateur stays as it learned under symmetric noise. The Expert alone is retrained with a tenth of the truth and a tenth of
the epochs, beside a CopyNet trained from nothing on the new pattern, and Bayes' rule with a matrix counted on the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwright.bench.imitation import Drawn, Setting, accuracy, classifier, draw, find_setting
from labelwright.bench.imitation_figures import transfer_figure
from labelwright.bench.pieces import USUAL, How, Job, Tick, mean_and_interval, run_all, written
from labelwright.bench.provenance import provenance
from labelwright.bench.workers import only_one
from labelwright.copynet import cover_pattern
from labelwright.learners.torch_classifier import TorchClassifier
from labelwright.noise import asymmetric, pair_flip, sparse_pairs, superclass, symmetric
from labelwright.noise.checks import Corruption
from labelwright.noise.models import CIFAR10_PAIRS, MNIST_PAIRS
from labelwright.noise.schedules import bursts
from labelwright.posterior import NoiseModel
from labelwright.types import NO_LABEL, Floats, Ints

PATTERNS = ("pair", "asymmetric", "sparse")
PUBLISHED = {"mnist": MNIST_PAIRS, "cifar10": CIFAR10_PAIRS}
BUDGETS = (0.02, 0.1)
"""Share of the new pattern's rows whose truth may be asked for; the aim is at most a tenth."""
STREAM = (12, 500)
"""Batches and rows of the stream whose noise fluctuates."""
BASE, BURST = 0.2, 0.6
VERSION = 2
"""Of what a piece holds: those of another are not read back."""
EXPERTS = ("fusing", "dense")
"""Run one after the other; the result is written after each."""


def corruption(pattern: str, setting: Setting, classes: int, rate: float | None = None) -> Corruption:
    """A noise pattern by name, at the setting's rate when none is given."""
    rate = setting.noise if rate is None else rate
    if pattern == "symmetric":
        return symmetric(rate, classes=classes)
    if pattern == "pair":
        return pair_flip(rate, classes)
    if pattern == "sparse":
        return sparse_pairs(rate, classes, pairs=11)
    return superclass(rate) if setting.dataset == "cifar100" else asymmetric(rate, PUBLISHED[setting.dataset])


def patterns_of(dataset: str) -> tuple[str, ...]:
    """The patterns of a set: "asymmetric" only where somebody published which classes are taken for each other."""
    return tuple(p for p in PATTERNS if p != "asymmetric" or dataset in PUBLISHED or dataset == "cifar100")


def run_transfer(dataset: str, how: How = USUAL) -> dict[str, Any]:
    """Writes ``transfer-<dataset>-<profile>.json`` and ``.png`` into ``output``; finished pieces are not run again."""
    setting = find_setting(dataset, how.profile)
    seeds = how.range(setting.seeds)
    folder = how.pieces(f"transfer-{dataset}")
    patterns = patterns_of(dataset)
    groups = [*((p, m) for p in patterns for m in ("adapted", "anew")), ("fluctuating", "stream")]
    jobs = [Job(s, group, f"{method}-{expert}") for expert in EXPERTS for s in seeds for group, method in groups]
    piece = partial(_piece, setting=setting, folder=folder, device=how.device, data_dir=how.data_dir)
    command = how.command("transfer", dataset, len(seeds))
    result: dict[str, Any] = {
        "experiment": "transfer", "dataset": dataset, "profile": how.profile, "seeds": len(seeds), "noise": setting.noise,
        "patterns": {pattern: {} for pattern in patterns}, "stream": {}, "provenance": provenance(command, how.device),
    }  # fmt: skip
    for expert in EXPERTS:
        some = [job for job in jobs if job.method.endswith(f"-{expert}")]
        found = run_all(
            some, piece, folder=folder, steps=1, settings=f"{setting.settings} {VERSION}", workers=how.workers,
            progress=how.progress,
        )  # fmt: skip
        for pattern in patterns:
            both = zip(found[pattern, f"adapted-{expert}"], found[pattern, f"anew-{expert}"], strict=True)
            result["patterns"][pattern][expert] = _averaged([{**adapted, **anew} for adapted, anew in both])
        result["stream"][expert] = _mean_stream(found["fluctuating", f"stream-{expert}"])
        written(result, how.file(f"transfer-{dataset}"), transfer_figure)
    return result


def _piece(
    job: Job, path: Path, tick: Tick, *, setting: Setting, folder: Path, device: str, data_dir: str | None
) -> dict[str, Any]:
    from labelwright.learners.tensors import write_whole

    record = _measured(setting, job, folder, device, data_dir)
    write_whole(path, json.dumps(record, indent=1).encode())
    tick(path.stem)
    return record


def _measured(setting: Setting, job: Job, folder: Path, device: str, data_dir: str | None) -> dict[str, Any]:
    method, _, expert = job.method.partition("-")
    if method == "anew":
        return _anew(setting, job, expert, device, data_dir)
    model = _source(setting, job.seed, expert, folder, device, data_dir)
    if method == "stream":
        return _stream(setting, model, job.seed, data_dir)
    return _adapted(setting, model, job, data_dir)


def _source(
    setting: Setting, seed: int, expert: str, folder: Path, device: str, data_dir: str | None
) -> TorchClassifier:
    """CopyNet as it learned under symmetric noise, with the truth of all rows; trained once for all pieces."""
    path = folder / f"seed-{seed}" / f"source-{expert}.safetensors"
    with only_one(path):
        if not path.exists():
            drawn = draw(setting, seed, data_dir)
            _trained(setting, drawn, seed, expert, device, np.ones(len(drawn.true), bool)).save(path)
    return TorchClassifier.load(path)


def _trained(setting: Setting, drawn: Drawn, seed: int, expert: str, device: str, sure: Any) -> Any:
    from labelwright.learners.imitating import Imitate

    model = classifier(setting, drawn, seed, Imitate(expert), device)
    true = np.full(len(drawn.true), None, object)
    true[sure] = drawn.true[sure]
    return model.fit(drawn.X, drawn.given, trusted=true)


def _with_labels(model: Any, drawn: Drawn) -> float:
    from labelwright.learners.imitating import expert_proba

    return accuracy(expert_proba(model, model.predict_proba(drawn.X_test), drawn.test_given), drawn.y_test)


def _anew(setting: Setting, job: Job, expert: str, device: str, data_dir: str | None) -> dict[str, float]:
    """A CopyNet trained from nothing on the new pattern, with all its truth and with a tenth."""
    noise = corruption(job.group, setting, _classes(setting, data_dir))
    drawn = draw(setting, job.seed, data_dir, noise=noise)
    rng = np.random.default_rng([job.seed, 9])
    tenth = rng.permutation(len(drawn.true)) < len(drawn.true) // 10
    return {
        f"from nothing, truth of {100 * share:.0f} %": _with_labels(
            _trained(setting, drawn, job.seed, expert, device, sure), drawn
        )
        for share, sure in ((1.0, np.ones(len(drawn.true), bool)), (0.1, tenth))
    }


def _adapted(setting: Setting, model: TorchClassifier, job: Job, data_dir: str | None) -> dict[str, float]:
    """The old Expert as it is; retrained, all of it or the last layer, on chosen or drawn rows; Bayes' rule beside it."""
    noise = corruption(job.group, setting, _classes(setting, data_dir))
    drawn = draw(setting, job.seed, data_dir, noise=noise)
    proba, test = model.predict_proba(drawn.X), model.predict_proba(drawn.X_test)
    out = {
        "Amateur alone": accuracy(test, drawn.y_test),
        "copying the label": 100.0 * float((drawn.test_given == drawn.y_test).mean()),
        "Expert as it was": _with_labels(model, drawn),
    }
    for share in BUDGETS:
        count = round(share * len(drawn.true))
        rng = np.random.default_rng([job.seed, 9])
        rows = {
            "chosen": cover_pattern(proba, drawn.given, count, rng),
            "drawn": np.sort(rng.permutation(len(drawn.true))[:count]),
        }
        for how, some in rows.items():
            for layers in ("last", "all"):
                name = f"{layers} layer(s), {count:,} {how}"
                out[name] = _with_labels(_retrained(model, proba, drawn, some, layers=layers), drawn)
        some = rows["drawn"]
        alone = NoiseModel.start(drawn.classes).updated(proba[some], drawn.given[some], drawn.true[some])
        known = np.full(len(drawn.true), NO_LABEL)
        known[some] = drawn.true[some]
        every = NoiseModel.start(drawn.classes).updated(
            proba, drawn.given, known
        )  # told what the fusing Expert is told
        for counted, what in ((alone, f"{count:,} drawn"), (every, f"all rows, {count:,} drawn")):
            out[f"Bayes' rule, {what}"] = accuracy(counted.posterior(test, drawn.test_given), drawn.y_test)
    return out


def _retrained(
    model: TorchClassifier,
    proba: Floats,
    drawn: Drawn,
    rows: Ints,
    *,
    layers: str | None = None,
    epochs: int | None = None,
) -> TorchClassifier:
    """layers: as of CopyNet.adapt."""
    from labelwright.learners.imitating import last_alone, retrained

    other = TorchClassifier.from_bytes(model.to_bytes())
    turns = max(1, round(model.epochs / 10)) if epochs is None else epochs
    true = np.full(len(drawn.given), NO_LABEL)
    true[rows] = drawn.true[rows]
    retrained(other, proba, drawn.given, true, last=last_alone(other, layers), epochs=turns)
    return other


def _stream(setting: Setting, model: TorchClassifier, seed: int, data_dir: str | None) -> dict[str, list[float]]:
    """Share of labels right in each batch, in percent, on the rows whose truth nobody told.

    The rate is BASE with bursts of BURST; the pattern changes from symmetric to pairs half-way. A tenth of each batch is
    looked at, chosen by coverage of the pattern.
    """
    from labelwright.learners.imitating import expert_proba, fresh_expert

    batches, rows = STREAM
    data = draw(setting, seed + 100, data_dir, after=seed)  # other rows than the Amateur learned from
    rng = np.random.default_rng([seed, 10])
    schedule = bursts(BASE, BURST, chance=1 / 4, rng=rng)
    told: dict[str, list[float]] = {
        name: [] for name in ("rate", "copying", "as it was", "adapted", "from nothing", "Bayes' rule")
    }
    adapted, noise = model, NoiseModel.start(data.classes)
    for number in range(batches):
        part = slice(number * rows, (number + 1) * rows)
        pattern = "symmetric" if number < batches // 2 else "pair"
        true = data.true[part]
        given = corruption(pattern, setting, data.classes, schedule(number))(true, None, rng)
        batch = Drawn(data.X[part], true, given, *(None,) * 5, data.shape, data.classes)  # type: ignore[arg-type]
        proba = model.predict_proba(batch.X)
        some = cover_pattern(proba, given, rows // 10, rng)
        rest = np.setdiff1d(np.arange(rows), some)
        known = np.full(rows, -1)
        known[some] = true[some]
        noise = NoiseModel.start(data.classes).updated(proba, given, known)
        adapted = _retrained(adapted, proba, batch, some)
        nothing = _retrained(fresh_expert(model), proba, batch, some, layers="all", epochs=model.epochs)
        judge = partial(expert_proba, proba=proba[rest], given=given[rest])
        told["rate"].append(100.0 * float((given != true).mean()))
        told["copying"].append(100.0 * float((given[rest] == true[rest]).mean()))
        for name, one in (("as it was", model), ("adapted", adapted), ("from nothing", nothing)):
            told[name].append(accuracy(judge(one), true[rest]))
        told["Bayes' rule"].append(accuracy(noise.posterior(proba[rest], given[rest]), true[rest]))
    return told


def _classes(setting: Setting, data_dir: str | None) -> int:
    from labelwright.bench.deep import pictures

    return pictures(setting.dataset, data_dir).classes


def _averaged(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {name: mean_and_interval([run[name] for run in runs]) for name in runs[0]}


def _mean_stream(runs: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    return {name: np.mean([run[name] for run in runs], axis=0).round(2).tolist() for name in runs[0]}


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """Head and rows for people: accuracy with given labels on the new pattern, in percent."""
    experts = list(result["stream"])
    rows = [["over", "method", *(f"{expert} Expert" for expert in experts)]]
    for pattern, found in result["patterns"].items():
        for name in found[experts[0]]:
            rows.append([f"symmetric to {pattern}", name, *(f"{found[e][name]['mean']:.2f}" for e in experts)])
    for name in result["stream"][experts[0]]:
        means = [float(np.mean(result["stream"][expert][name])) for expert in experts]
        rows.append(["fluctuating", name, *(f"{mean:.2f}" for mean in means)])
    return rows
