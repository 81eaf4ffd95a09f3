"""The work of each mode, chunk by chunk: judge, learn (RAD Duo with networks, QAL with support vectors), predict.

Each is a configuration of the project's own loop; what is special here is only where rows come from and where decisions go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from labelwright.errors import DataError, SettingsError
from labelwright.learners import RowMemory
from labelwright.loop import Forgetful, Parts, System
from labelwright.trust.chain import SealedLedger
from labelwright.trust.names import Names
from labelwright.trust.room import Room
from labelwright.trust.seal.arrays import Array
from labelwright.trust.tier.judging import Fixed, Judge
from labelwright.trust.tier.saved import of_estimator, read, write
from labelwright.trust.workload import Workload
from labelwright.types import NO_LABEL, Answers, Batch, Corrections, Split, Verdict, row_keys

Tell = Callable[[int, int], None]
"""(chunks done, chunks in all)."""


def work(room: Room, tell: Tell) -> dict[str, Any]:
    """Do what the workload asks. Returns the public figures: rows, verdicts by word, noise rate, questions."""
    return _MODES[room.workload.mode](room, tell)


def rows_of(arrays: Mapping[str, Array], number: int, classes: int) -> Batch:
    """A chunk as a batch. Raises DataError, without any value of a row, when it is none."""
    try:
        X, given = arrays["X"], arrays["given"].astype(np.int64, copy=False)
    except KeyError as error:
        raise DataError(f"the sealed chunks hold no {error}; seal rows with features X and labels given") from error
    if X.ndim < 2 or given.shape != (len(X),):
        raise DataError("the sealed chunks hold no matrix X with a label a row; seal them again")
    if len(given) and not 0 <= given.min() <= given.max() < classes:
        raise DataError(f"chunk {number} holds labels outside 0 to {classes - 1}; correct 'classes' in [data]")
    clean = arrays.get("clean")
    return Batch.of(number, X, given, clean=False if clean is None else clean.astype(bool))


def _judge(room: Room, tell: Tell) -> dict[str, Any]:
    models = [_tier_model(room, name) for name in ("quality", "classifier")]
    judge = Judge(models[0], models[1])
    manifest, chunks = room.chunks()
    ledger, end = room.ledger(manifest.count)
    counts: Counter[int] = Counter()
    for number, arrays in chunks:
        batch = rows_of(arrays, number, room.workload.classes)
        room.names.arrived(number, arrays)
        named = room.names.told(batch.keys)
        judged = judge.judge(number, batch.X, batch.given, keys=named["keys"], clean=batch.clean)
        counts.update(judged.verdict.tolist())
        ledger.add(number, {**named, "given": judged.given, "verdict": judged.verdict, "score": judged.score})
        tell(number + 1, manifest.count)
    end()
    return {**_figures(ledger, counts), "noise_rate": round(judge.noise.rate, 4)}


def _predict(room: Room, tell: Tell) -> dict[str, Any]:
    fixed = Fixed(_tier_model(room, "classifier"))
    manifest, chunks = room.chunks()
    ledger, end = room.ledger(manifest.count)
    for number, arrays in chunks:
        proba = fixed.judge(arrays["X"])[1]
        label = proba.argmax(axis=1)
        room.names.arrived(number, {**arrays, "given": label})
        named = room.names.told(row_keys(number, len(label)))
        ledger.add(number, {**named, "label": label, "proba": proba[np.arange(len(label)), label]})
        tell(number + 1, manifest.count)
    end()
    return _figures(ledger, Counter())


def _learn(room: Room, tell: Tell) -> dict[str, Any]:
    system = _SYSTEMS[room.workload.mode](room)
    manifest, chunks = room.chunks()
    ledger, end = room.ledger(manifest.count)
    system.ledger = _Written(ledger, room.names)
    counts: Counter[int] = Counter()
    for number, arrays in chunks:
        batch = rows_of(arrays, number, room.workload.classes)
        waiting: RowMemory = system.selector.buffer  # type: ignore[attr-defined]  # the recipes' selectors have one
        room.names.arrived(number, arrays, waiting=waiting.rows.keys)
        split = system.step(batch)
        counts.update(split.verdict.tolist())
        tell(number + 1, manifest.count)
    room.seal_model(_content(system))
    end()
    return {
        **_figures(ledger, counts),
        "noise_rate": round(system.selector.noise.rate, 4),
        "questions": int(system.budget.spent),
    }


class _Written(Forgetful):
    """The loop's ledger: decisions go into the sealed one when the batch is committed, models and answers with them."""

    def __init__(self, sealed: SealedLedger, names: Names):
        super().__init__()
        self.sealed, self.names = sealed, names

    def commit(self, batch: Batch, split: Split, answers: Answers, fixed: Corrections, parts: Parts) -> None:
        """One entry: the batch's own rows and those that rejoined it."""
        label = np.where(split.kept, split.label, NO_LABEL)
        told = {int(key): int(said) for key, said in zip(answers.rows.keys, answers.label, strict=True)}
        answered = np.array([told.get(int(key), NO_LABEL) for key in split.rows.keys], np.int64)
        decided = {
            **self.names.told(split.rows.keys),
            "given": split.given,
            "verdict": split.verdict,
            "label": np.where(answered != NO_LABEL, answered, label),
            "answered": answered,
            "score": split.label_score,
        }
        self.sealed.add(batch.number, decided)


def _rad_duo(room: Room) -> System:
    from labelwright.learners import Deep
    from labelwright.learners.torch_classifier import TorchClassifier
    from labelwright.recipes import rad_duo

    workload, asked = room.workload, room.workload.table("learn")

    def learner(place: int) -> Deep:
        network = TorchClassifier(
            "mlp",
            epochs=int(asked.get("epochs", 10)),
            later_epochs=int(asked.get("later_epochs", 2)),
            batch_size=int(asked.get("batch_size", 256)),
            device="cpu",
            precision="float32",
            random_state=workload.seed + place,
        )
        rows = int(asked.get("rows", 5000))
        return Deep(network, classes=workload.classes, replay=rows, memory=rows, seed=workload.seed + place)

    return rad_duo(learner(0), learner(1), buffer=int(asked.get("buffer", 0)))


def _qal(room: Room) -> System:
    from labelwright.learners import Refit
    from labelwright.learners.kernel import OneVsRestSVC
    from labelwright.queries import FixedBudget, least_distance
    from labelwright.recipes import qal

    workload, asked = room.workload, room.workload.table("learn")
    machine = OneVsRestSVC(str(asked.get("kernel", "rbf")), C=float(asked.get("C", 1.0)))
    learner = Refit(machine, classes=workload.classes, max_rows=int(asked.get("rows", 2000)), seed=workload.seed)
    return qal(learner, FixedBudget(int(asked.get("questions", 10)), measure=least_distance), room.expert)


def _content(system: System) -> bytes:
    """The classifier as a safetensors file that the tier reads too."""
    estimator: Any = system.learners.classifier.estimator
    content: bytes = estimator.to_bytes() if hasattr(estimator, "to_bytes") else write(of_estimator(estimator))
    return content


def _tier_model(room: Room, name: str) -> Any:
    id = room.workload.table("models")[name]
    model, _ = read(room.model(id), f"the sealed model {id!r}")
    if model.classes != room.workload.classes:
        raise SettingsError(
            f"the sealed model {id!r} has {model.classes} classes and the workload {room.workload.classes}; correct one"
        )
    return model


def _figures(ledger: SealedLedger, counts: Mapping[int, int]) -> dict[str, Any]:
    return {
        "entries": ledger.entries,
        "head": ledger.head,
        "rows": sum(entry["rows"] for entry in ledger.entries),
        "verdicts": {Verdict(verdict).word: count for verdict, count in sorted(counts.items())},
    }


def needs_torch(workload: Workload) -> bool:
    """Whether the mode trains networks."""
    return workload.mode == "rad-duo"


_MODES: Mapping[str, Callable[[Room, Tell], dict[str, Any]]] = {
    "judge": _judge,
    "predict": _predict,
    "rad-duo": _learn,
    "qal": _learn,
}
_SYSTEMS: Mapping[str, Callable[[Room], System]] = {"rad-duo": _rad_duo, "qal": _qal}
