"""An owner with sealed rows, a broker, and hosts to run learners on: what the tests and the benchmark of ``trust run`` share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from broker_help import call

from labelwright.trust.attester import collect
from labelwright.trust.broker import KeyFolder, create_app
from labelwright.trust.broker import keyfolder as keyfolder_module
from labelwright.trust.broker.guard import Limits
from labelwright.trust.host import Host
from labelwright.trust.policy import Policy
from labelwright.trust.seal import Folder, Manifest, jwk_of, new_key, seal_data, seal_model
from labelwright.trust.workload import Workload, code_digest

SIM = 'kinds = ["sim"]\nsim = true\naccept = ["warning"]\nworkloads = ["{digest}"]\n'
REAL = 'kinds = ["tdx", "snp"]\nworkloads = ["{digest}"]\n'


def blobs(n: int, *, classes: int = 3, d: int = 8, noise: float = 0.2, seed: int = 0) -> tuple[Any, Any, Any]:
    """(rows, true classes, given labels): Gaussian clouds, ``noise`` of the labels wrong."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    X = (4 * np.random.default_rng(99).normal(size=(classes, d))[y] + rng.normal(size=(n, d))).astype(np.float32)
    wrong = rng.random(n) < noise
    return X, y, np.where(wrong, (y + rng.integers(1, classes, size=n)) % classes, y)


@dataclass
class Estate:
    """The owner's side and the broker, below a folder. The host gets ``store`` and nothing else."""

    folder: Path
    classes: int = 3
    policy: str = SIM
    expert_key: Any = field(default_factory=new_key)
    tables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keyfolder_module.SCRYPT = {"n": 1 << 8, "r": 8, "p": 1}
        self.keys = KeyFolder(self.folder / "keys", "a passphrase for the tests")
        self.store = self.folder / "host"

    def seal(self, batches: list[dict[str, Any]], *, rows: int, version: int = 1, id: str = "rows") -> Manifest:
        """Seal rows for the host to keep."""
        key = self.keys.data_key(id)
        manifest = seal_data(
            batches,
            Folder(self.store / id),
            key=key,
            signing_key=self.keys.owner_key,
            id=id,
            version=version,
            rows_per_chunk=rows,
        )
        self.keys.versions.advance(id, version, manifest.digest)
        return manifest

    def seal_model(self, id: str, content: bytes) -> None:
        """Seal a model for the host to keep."""
        manifest = seal_model(
            content,
            Folder(self.store / id),
            key=self.keys.data_key(id),
            signing_key=self.keys.owner_key,
            id=id,
            version=1,
        )
        self.keys.versions.advance(id, 1, manifest.digest)

    def workload(self, mode: str, memory: str = "64 MB", **tables: Any) -> Workload:
        """A workload of this estate."""
        told = {
            "workload": {"name": mode, "mode": mode, "code": code_digest(), "memory": memory},
            "data": {"id": "rows", "classes": self.classes},
            "models": {"quality": "quality", "classifier": "classifier"},
            "result": {"model": "learned", "ledger": "decided"},
            "broker": {"key": jwk_of(self.keys.broker_key)},
        }
        if mode == "qal":
            told["expert"] = {"key": jwk_of(self.expert_key)}
        if mode in ("rad-duo", "qal"):
            del told["models"]
        for id in ("learned", "decided"):
            self.keys.prepare_model(id)
        return Workload.of({**told, **tables})

    def broker(self, workload: Workload, **options: Any) -> Any:
        """The broker as an ASGI app that accepts this workload."""
        policy = Policy.from_toml(self.policy.format(digest=workload.digest.hex()))
        return create_app(self.keys, policy, limits=Limits(rate=1e6, burst=10**6), **options)

    def host(self, workload: Workload, **options: Any) -> Host:
        """A host with the sealed things, and a way to the broker."""
        app = options.pop("app", None) or self.broker(workload)
        stores = {id: Folder(self.store / id) for id in ("rows", "quality", "classifier", "learned")}
        outputs = {id: Folder(self.store / id) for id in ("learned", "decided")}
        return Host(
            **{
                "stores": stores,
                "outputs": outputs,
                "send": lambda *request: call(app, *request),
                "collect": lambda data: collect("sim", data),
                **options,
            }
        )

    def opened(self, id: str) -> tuple[Manifest, bytes]:
        """(manifest, key) of a result, as its owner has them."""
        text = Folder(self.store / id).read("manifest.jws")
        assert text is not None
        version = self.keys.versions.current(id).number
        return Manifest.read(text, self.keys.signer(id), version=version), self.keys.data_key(id)


class Tap:
    """What a curious host keeps of all that passes it."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self._lock = threading.Lock()

    def __call__(self, what: str, content: bytes) -> None:
        with self._lock:
            self.kept.append(content)


def now() -> datetime:
    """Now, with a time zone."""
    return datetime.now(UTC)
