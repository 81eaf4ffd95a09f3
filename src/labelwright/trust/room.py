"""What a confined learner has around it: sealed things by name, keys by name, and places for what it seals itself.

The same work runs in a room of the real run (:mod:`labelwright.trust.inside`) and of the rehearsal before confinement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from labelwright.errors import RefusedError, SealError
from labelwright.experts import Expert, NoExpert
from labelwright.trust.broker import Client, Version
from labelwright.trust.chain import SealedLedger
from labelwright.trust.names import Names
from labelwright.trust.seal import NAME, Manifest, Sealer, open_chunk, open_model
from labelwright.trust.seal.arrays import Array
from labelwright.trust.seal.chunks import MODEL_CHUNK, about
from labelwright.trust.seal.signing import PrivateKey
from labelwright.trust.workload import Workload

Read = Callable[[str, str], bytes | None]
Write = Callable[[str, str, bytes], None]


class Keys(Protocol):
    """Whose keys open and sign what."""

    def key(self, id: str) -> bytes:
        """The 32 bytes that seal ``id``."""

    def signer(self, id: str) -> Mapping[str, str]:
        """The public key, a JWK, of who signs its manifests."""

    def signing_key(self, id: str) -> PrivateKey:
        """The key by which a learner signs what it seals as ``id``."""

    def version(self, id: str) -> Version:
        """The newest good version."""

    def advance(self, manifest: Manifest) -> None:
        """Make this one the newest."""


class BrokerKeys:
    """Keys from the broker, for an attested session."""

    def __init__(self, client: Client):
        self.client = client

    def key(self, id: str) -> bytes:
        """See :class:`Keys`."""
        return self.client.resource(f"default/key/{id}")

    def signer(self, id: str) -> Mapping[str, str]:
        """See :class:`Keys`."""
        return dict(json.loads(self.client.resource(f"default/signer/{id}")))

    def signing_key(self, id: str) -> PrivateKey:
        """See :class:`Keys`."""
        from labelwright.trust.broker.keyfolder import key_from

        return key_from(self.client.resource(f"default/signing-key/{id}"))

    def version(self, id: str) -> Version:
        """See :class:`Keys`."""
        return self.client.version(id)

    def advance(self, manifest: Manifest) -> None:
        """See :class:`Keys`."""
        self.client.advance(manifest)


@dataclass
class Room:
    """One learner's surroundings. read, write: (sealed thing, blob's name) -> ciphertext, by the host."""

    workload: Workload
    keys: Keys
    read: Read
    write: Write
    expert: Expert = field(default_factory=NoExpert)
    names: Names = field(default_factory=Names)
    used: list[dict[str, Any]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)

    def manifest(self, id: str) -> Manifest:
        """The manifest of a sealed thing, not older than the broker says. Raises SealError, RefusedError."""
        newest = self.keys.version(id)
        text = self.read(id, NAME)
        if text is None:
            raise SealError(f"the host has no manifest of {id!r}; have its owner seal it, and name its store in [host]")
        signer = self.keys.signer(id)
        manifest = Manifest.read(bytes(text), signer)
        if (
            manifest.version < newest.number
        ):  # a learner was killed after its version was counted, before it was put in place
            later = self.read(id, f"v{newest.number}-{NAME}")
            manifest = manifest if later is None else Manifest.read(bytes(later), signer)
        if manifest.id != id:
            raise SealError(f"the host gave the manifest of {manifest.id!r} for {id!r}; name the right store in [host]")
        manifest.check_newest(newest.number, newest.digest)
        self.used.append({"id": id, "version": manifest.version, "manifest": manifest.digest.hex()})
        return manifest

    def chunks(self) -> tuple[Manifest, Iterator[tuple[int, dict[str, Array]]]]:
        """(manifest, (number, arrays) of each chunk of the data, in order)."""
        id = self.workload.table("data")["id"]
        manifest, key = self.manifest(id), self.keys.key(id)
        said = about(manifest, key)
        self.names.classes = tuple(said.get("classes", ()))
        opened = (
            (index, _scaled(open_chunk(manifest, key, index, self.read(id, manifest.chunk(index))), said.get("scale")))
            for index in range(manifest.count)
        )
        return manifest, opened

    def model(self, id: str) -> bytes:
        """The bytes of a sealed model."""
        manifest = self.manifest(id)
        return open_model(manifest, self.keys.key(id), lambda index: self.read(id, manifest.chunk(index)))

    def ledger(self, count: int) -> tuple[SealedLedger, Callable[[], None]]:
        """(a ledger of ``count`` entries, what ends it)."""
        sealer = self._sealer(self.workload.table("result")["ledger"], count, "ledger")
        ledger = SealedLedger(sealer, lambda index, chunk: self.write(sealer.id, _chunk(sealer, index), chunk))

        def end() -> None:
            self._finished(sealer.id, ledger.done(self.keys.signing_key(sealer.id), classes=self.names.classes))

        return ledger, end

    def seal_model(self, content: bytes) -> None:
        """Seal the learned model as the result, its next version."""
        pieces = [content[at : at + MODEL_CHUNK] for at in range(0, len(content), MODEL_CHUNK)]
        sealer = self._sealer(self.workload.table("result")["model"], len(pieces), "model")
        for index, piece in enumerate(pieces):
            self.write(sealer.id, _chunk(sealer, index), sealer.add(piece))
        self._finished(sealer.id, sealer.done(self.keys.signing_key(sealer.id)))

    def _sealer(self, id: str, count: int, kind: str) -> Sealer:
        return Sealer(id, self.keys.version(id).number + 1, key=self.keys.key(id), count=count, kind=kind)

    def _finished(self, id: str, manifest: Manifest) -> None:
        """The manifest is with the host before the broker counts it, and in its place after: a kill in between loses nothing."""
        self.write(id, f"v{manifest.version}-{NAME}", manifest.text)
        try:
            self.keys.advance(manifest)
        except RefusedError as error:
            raise RefusedError(
                f"version {manifest.version} of {id!r} was sealed, but another run came first ({error})"
            ) from error
        self.write(id, NAME, manifest.text)
        self.made.append({"id": id, "version": manifest.version, "manifest": manifest.digest.hex()})


def _scaled(arrays: dict[str, Array], scale: float | None) -> dict[str, Array]:
    """Pictures are sealed as whole numbers; the models see them from 0 to 1, as ``labelwright run`` shows them."""
    return arrays if scale is None else {**arrays, "X": arrays["X"] * np.float32(scale)}


def _chunk(sealer: Sealer, index: int) -> str:
    return f"v{sealer.version}-{index:08d}.chunk"
