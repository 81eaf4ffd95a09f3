"""A small run on made-up rows before confinement: it imports all that the real one will need, and starts torch's threads."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from labelwright.trust.broker import Version
from labelwright.trust.broker.jwe import decrypted, encrypted
from labelwright.trust.broker.keyfolder import key_bytes, key_from
from labelwright.trust.broker.signature import Exchange, session_of
from labelwright.trust.expert import Channel
from labelwright.trust.room import Room
from labelwright.trust.seal import Manifest, Memory, jwk_of, new_key, seal_data, seal_model
from labelwright.trust.seal.signing import PrivateKey, payload_of, signed_text
from labelwright.trust.tier.models import Linear
from labelwright.trust.tier.saved import write
from labelwright.trust.work import needs_torch, work
from labelwright.trust.workload import Workload
from labelwright.types import Answer, Queries

_WIDTH, _CLASSES = 4, 3
_NOT_NEEDED = ("pandas", "pyarrow", "rich", "matplotlib")
_LEARN = {"epochs": 1, "later_epochs": 1, "rows": 64, "questions": 2}


def rehearse(workload: Workload) -> None:
    """Run a workload of the same mode on made-up rows, with keys of its own."""
    if workload.mode in ("rad-duo", "qal"):
        lean_sklearn()
    if needs_torch(workload):
        lean_torch(workload.threads)
    tables = {
        **workload.tables,
        "data": {"id": "d", "classes": _CLASSES},
        "models": {"quality": "q", "classifier": "c"},
        "result": {"model": "m", "ledger": "l"},
        "learn": {**workload.table("learn"), **_LEARN},
    }
    small = replace(workload, tables=tables, classes=_CLASSES, seed=0)
    owner = new_key()
    stores = {name: Memory() for name in ("d", "q", "c", "m", "l")}
    _sealed(stores, owner)
    room = Room(
        small,
        _Own(owner),
        lambda id, name: stores[id].read(name),
        lambda id, name, b: stores[id].write(name, b),
        _Guess(),
    )
    work(room, lambda done, of: None)
    _messages(owner)


def _sealed(stores: Mapping[str, Memory], owner: Any) -> None:
    rng = np.random.default_rng(0)
    batches = []
    for number in range(3):
        given = np.arange(48) % _CLASSES
        X = (np.eye(_CLASSES, _WIDTH)[given] * 4 + rng.normal(size=(48, _WIDTH))).astype(np.float32)
        given = np.where(rng.random(48) < 0.2, (given + 1) % _CLASSES, given)
        clean = np.full(48, number == 1)
        batches.append({"X": X, "given": given, "keys": np.arange(48), "clean": clean})
    seal_data(batches, stores["d"], key=bytes(32), signing_key=owner, id="d", rows_per_chunk=48, num_rows=144)
    model = write(Linear(np.eye(_WIDTH, _CLASSES, dtype=np.float32), np.zeros(_CLASSES, np.float32)))
    for name in ("q", "c"):
        seal_model(model, stores[name], key=bytes(32), signing_key=owner, id=name, version=1)


def _messages(owner: Any) -> None:
    """Once through everything that talking to broker, expert and host needs."""
    own = key_from(key_bytes(new_key()))
    jwk = jwk_of(own)
    decrypted(own, encrypted(b"x", jwk))
    session_of("kbs-session-id=a; Path=/")
    exchange = Exchange("GET", "/", "", "", b"", 200, "", b"")
    exchange.is_from(own.public_key(), exchange.signed(own))
    Channel(own, jwk_of(owner), learner=True).seal(b"x")
    payload_of(own.public_key(), signed_text(own, b"{}", "x"), "x", "x")


class _Own:
    """Keys of the rehearsal's own."""

    def __init__(self, owner: Any):
        self._owner = owner

    def key(self, id: str) -> bytes:
        return bytes(32)

    def signer(self, id: str) -> Mapping[str, str]:
        return jwk_of(self._owner)

    def signing_key(self, id: str) -> PrivateKey:
        key: PrivateKey = self._owner
        return key

    def version(self, id: str) -> Version:
        return Version(1 if id in "dqc" else 0)

    def advance(self, manifest: Manifest) -> None:
        pass


class _Guess:
    """Answers every question with the class that is suggested."""

    def ask(self, queries: Queries) -> Iterator[Answer]:
        for key, label in zip(queries.rows.keys, queries.suggestion, strict=True):
            yield Answer(int(key), int(label), "rehearsal")

    def collect(self, outstanding: Queries) -> Iterator[Answer]:
        return iter(())


def lean_sklearn() -> None:
    """scikit-learn without the frames that it reads where they are installed: 70 MB less."""
    absent = [name for name in _NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        import sklearn.model_selection
        import sklearn.svm  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]


def lean_torch(threads: int) -> None:
    """Torch without its compiler, which optimisers import for a hint to it: 260 MB less, and no code is generated inside."""
    import torch

    torch.set_num_threads(threads)
    if "torch._dynamo" in sys.modules:
        return
    hints: Any = types.ModuleType("torch._dynamo")
    hints.graph_break = lambda *a, **k: None
    hints.disable = lambda fn=None, *a, **k: fn if fn is not None else (lambda f: f)
    hints.is_compiling = lambda: False
    sys.modules["torch._dynamo"] = torch._dynamo = hints
    code: Any = types.ModuleType("torch._inductor")
    code.config = types.ModuleType("torch._inductor.config")
    sys.modules.update({"torch._inductor": code, "torch._inductor.config": code.config})
    torch._inductor = code
    torch.ones(1 << 20).exp().sum()  # large enough to start every thread
