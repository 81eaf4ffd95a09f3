"""Sealed data sets and models: AES-256-GCM chunks that the host stores and cannot read, under a manifest that the owner signs.

Opening needs NumPy and cryptography only. :mod:`~labelwright.trust.seal.tables` turns what ``labelwright run`` takes into
rows to seal, on the owner's side.
"""

from labelwright.trust.seal.arrays import packed, unpacked
from labelwright.trust.seal.chunks import (
    Sealer,
    about,
    check,
    open_bytes,
    open_chunk,
    open_model,
    reader,
    seal_bytes,
    seal_model,
)
from labelwright.trust.seal.data import seal_data
from labelwright.trust.seal.manifest import NAME, Manifest
from labelwright.trust.seal.signing import jwk_of, key_of, new_key, thumbprint
from labelwright.trust.seal.stores import Folder, Memory, Remote, Store, as_store

__all__ = [
    "NAME",
    "Folder",
    "Manifest",
    "Memory",
    "Remote",
    "Sealer",
    "Store",
    "about",
    "as_store",
    "check",
    "jwk_of",
    "key_of",
    "new_key",
    "open_bytes",
    "open_chunk",
    "open_model",
    "packed",
    "reader",
    "seal_bytes",
    "seal_data",
    "seal_model",
    "thumbprint",
    "unpacked",
]
