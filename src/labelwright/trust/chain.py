"""The sealed ledger and its public shadow: what was decided about each row is sealed; the digests that stand in the public report
hash-chain to it, so that neither can be altered alone.

A digest is salted, and the salt is sealed: without the key it says nothing about the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labelwright.errors import SealError, TrustError
from labelwright.trust.seal import Manifest, Sealer, open_bytes, packed, unpacked
from labelwright.trust.seal.arrays import Array
from labelwright.trust.seal.signing import PrivateKey

START = "0" * 64
SALT = 16


def link(previous: str, fields: Sequence[Any]) -> str:
    """The next link: SHA-256 over the previous one and the entry's fields, as :func:`labelwright.ledger.chain.entry_chain`.

    >>> link(START, [0, "batch"])[:8]
    'c4fcf2bf'
    """
    text = json.dumps([previous, *fields], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class SealedLedger:
    """One run's entries: each sealed as a chunk, and told in public as a digest and a link.

    sealer: of ``count`` chunks, one an entry. put: takes each sealed chunk's index and bytes away.
    """

    def __init__(self, sealer: Sealer, put: Callable[[int, bytes], None]):
        self._sealer, self._put = sealer, put
        self.head = START
        self.entries: list[dict[str, Any]] = []

    def add(self, batch: int, arrays: Mapping[str, Array], *, version: str = "") -> None:
        """Seal one batch's decisions. arrays: (n,) each. version: digest of the models after the batch."""
        content = os.urandom(SALT) + bytes(packed(arrays))
        seq, rows = len(self.entries), len(next(iter(arrays.values())))
        digest = hashlib.sha256(content).hexdigest()
        self.head = link(self.head, [seq, batch, rows, digest, version])
        told = {"seq": seq, "batch": batch, "rows": rows, "digest": digest, "models": version, "chain": self.head}
        self.entries.append(told)
        self._put(seq, self._sealer.add(content))

    def done(self, signing_key: PrivateKey, *, classes: Sequence[str] = ()) -> Manifest:
        """The signed manifest, with the head of the chain. classes: what the owner calls the classes; sealed with it."""
        return self._sealer.done(signing_key, about={"head": self.head, "classes": list(classes)})


def opened(manifest: Manifest, key: bytes, read: Callable[[int], bytes | None]) -> list[tuple[str, dict[str, Array]]]:
    """(digest, arrays) of each entry of a sealed ledger, for its owner. Raises SealError naming the chunk that is not right."""
    found = []
    for index in range(manifest.count):
        content = open_bytes(manifest, key, index, read(index))
        found.append((hashlib.sha256(content).hexdigest(), unpacked(memoryview(content)[SALT:])))
    return found


def check(report: Mapping[str, Any], digests: Sequence[str]) -> None:
    """Raise TrustError unless the public report tells of exactly these sealed entries. digests: of :func:`opened`, in order."""
    try:
        entries, head = list(report["entries"]), START
        for seq, (entry, digest) in enumerate(zip(entries, digests, strict=True)):
            if entry["seq"] != seq or entry["digest"] != digest:
                raise SealError(
                    f"entry {seq} of the report is not the sealed one; the report or the ledger is another's"
                )
            head = link(head, [seq, entry["batch"], entry["rows"], digest, entry["models"]])
            if entry["chain"] != head:
                raise SealError(f"the report's chain does not hold from entry {seq} on; it was altered")
        if report["head"] != head:
            raise SealError("the report's head is not the end of its chain; entries were taken away or added")
    except (KeyError, TypeError, ValueError) as error:
        raise TrustError(
            f"the report tells of other entries than the sealed ledger's {len(digests)}; it was altered"
        ) from error
