"""Secure aggregation: of a group of sites only the sum is seen.

Every two sites of a group share a mask that one adds and the other takes away, so that the masks vanish in the sum (Bonawitz
et al., *Practical Secure Aggregation*, CCS 2017, section 4, without its recovery of those who drop out: when a member is
absent, its group sits the round out). Groups are drawn anew each round; robust aggregation works on the groups' means
(Karimireddy, He, Jaggi, *Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing*, ICLR 2022), so it needs at
least three groups to outvote one bad site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from labelwright.sites.keys import Identity, Words
from labelwright.types import Floats

SCALE = 2.0**14
"""Fixed point: a step of 6e-5, values up to 131,072 over the whole group."""


def groups(names: Sequence[str], size: int, plan: str, round_: int) -> list[list[str]]:
    """Who is with whom in a round: drawn from the plan's digest, the same at every site; the rest joins the last groups.

    >>> [len(one) for one in groups([f"s{i}" for i in range(8)], 3, "plan", 0)]
    [4, 4]
    """
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"{plan}|{round_}|{name}".encode()).digest())
    count = max(len(drawn) // size, 1)
    return [sorted(drawn[at::count]) for at in range(count)]


def masked(vector: Floats, me: str, identity: Identity, others: Mapping[str, str], plan: str, round_: int) -> Words:
    """(size,) uint32: the vector in fixed point, hidden by the masks shared with ``others`` (name -> public keys)."""
    out = np.round(np.clip(np.asarray(vector, np.float64), -6e4, 6e4) * SCALE).astype(np.int64).astype(np.uint32)
    for name, public in others.items():
        low, high = sorted((me, name))
        mask = identity.mask(public, f"{plan}|{round_}|{low}|{high}", len(out))
        out = out + mask if me == low else out - mask
    return out


def unmasked(words: Sequence[Words]) -> Floats:
    """(size,) the mean of a whole group's vectors. Nonsense when a member is missing.

    >>> one, two = Identity(bytes(32)), Identity(bytes([1] * 32))
    >>> a = masked(np.array([1.5, -2.0]), "a", one, {"b": two.public}, "plan", 3)
    >>> b = masked(np.array([0.5, 1.0]), "b", two, {"a": one.public}, "plan", 3)
    >>> unmasked([a, b]).tolist(), bool(abs(unmasked([a])).max() > 100)
    ([1.0, -0.5], True)
    """
    total = np.zeros(len(words[0]), np.uint32)
    for one in words:
        total = total + one
    return np.asarray(total.astype(np.int32).astype(np.float64) / SCALE / len(words))
