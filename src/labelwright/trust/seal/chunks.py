"""Sealing and opening: AES-256-GCM chunks under one key a shard, each bound to its data set, version, place and number."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hmac import compare_digest
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from labelwright.errors import SealError, SettingsError
from labelwright.trust.seal.arrays import Array, Piece, unpacked
from labelwright.trust.seal.manifest import KINDS, MOST_CHUNK, NAME, TAG, Manifest
from labelwright.trust.seal.signing import PrivateKey
from labelwright.trust.seal.stores import Store, as_store

KEY = 32
SHARD = 256  #: chunks under one derived key
MODEL_CHUNK = 8 << 20
_ABOUT = b"about"


class Sealer:
    """Seals one version of one thing, chunk by chunk; :meth:`done` signs what was sealed.

    Memory holds one chunk. Raises SettingsError for a key that is not 32 bytes or a name that is none.

    >>> from labelwright.trust.seal.signing import new_key
    >>> sealer = Sealer("reviews", 1, key=bytes(32), count=1)
    >>> chunk = sealer.add(b"plain")
    >>> manifest = sealer.done(new_key())
    >>> bytes(open_bytes(manifest, bytes(32), 0, chunk))
    b'plain'
    """

    def __init__(self, id: str, version: int, *, key: bytes, count: int, kind: str = "data"):
        _checked(id, version, key, kind)
        self.id, self.version, self.kind, self.count, self._key = id, version, kind, count, bytes(key)
        self.salt = os.urandom(32)
        self._sizes: list[int] = []
        self._tags: list[bytes] = []
        self._buffer = memoryview(b"")

    def add(self, plain: bytes | bytearray | memoryview) -> bytes:
        """The next chunk, sealed."""
        index = self._next(len(plain))
        cipher = _cipher(self._key, self.salt, self.id, self.version, index // SHARD)
        sealed = cipher.encrypt(_nonce(index), plain, bound(self.id, self.version, index, self.count))
        self._sizes.append(len(plain))
        self._tags.append(sealed[-TAG:])
        return sealed

    def add_pieces(self, pieces: Sequence[Piece]) -> memoryview:
        """The next chunk out of the pieces of its plaintext, which are not copied; good until the next call."""
        size = sum(map(len, pieces))
        index = self._next(size)
        if len(self._buffer) < size + 2 * TAG:
            self._buffer = memoryview(bytearray(size + 2 * TAG))
        key = _shard_key(self._key, self.salt, self.id, self.version, index // SHARD)
        cipher = Cipher(AES(key), GCM(_nonce(index))).encryptor()
        cipher.authenticate_additional_data(bound(self.id, self.version, index, self.count))
        at = 0
        for piece in pieces:
            at += cipher.update_into(piece, self._buffer[at:])
        cipher.finalize()
        self._buffer[at : at + TAG] = cipher.tag
        self._sizes.append(size)
        self._tags.append(cipher.tag)
        return self._buffer[: at + TAG].toreadonly()

    def _next(self, size: int) -> int:
        index = len(self._sizes)
        if index >= self.count or size > MOST_CHUNK:
            raise SettingsError(
                f"chunk {index} of {self.count} has {size} bytes; give as many chunks as were announced, of at most {MOST_CHUNK} bytes"
            )
        return index

    def done(
        self,
        signing_key: PrivateKey,
        *,
        rows: Iterable[int] = (),
        schema: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
        about: Mapping[str, Any] | None = None,
        key_id: str = "",
    ) -> Manifest:
        """The signed manifest of what was added."""
        if len(self._sizes) != self.count:
            raise SettingsError(f"{len(self._sizes)} chunks were added where {self.count} were announced; add them all")
        said = _seal_about(about or {}, self._key, self.salt, self.id, self.version)
        made = Manifest(
            self.id, self.version, self.kind, tuple(self._sizes), tuple(self._tags), self.salt, tuple(rows), schema or {},
            key_id or f"default/key/{self.id}", said,
        )  # fmt: skip
        return made.signed(signing_key)


def open_bytes(manifest: Manifest, key: bytes, index: int, ciphertext: bytes | bytearray | memoryview | None) -> bytes:
    """The plaintext of chunk ``index``. Raises SealError naming the chunk when the ciphertext is any other; nothing of it is returned."""
    if type(index) is not int or not 0 <= index < manifest.count:
        raise SealError(
            f"{_name(manifest)} has the chunks 0 to {manifest.count - 1}, not {index!r}; ask for one of these"
        )
    if len(key) != KEY:
        raise SettingsError(f"the key has {len(key)} bytes, expected {KEY}; ask the broker for {manifest.key_id}")
    sealed = b"" if ciphertext is None else ciphertext
    size, tag = manifest.sizes[index] + TAG, bytes(sealed[-TAG:])
    if len(sealed) != size or not compare_digest(tag, manifest.tags[index]):
        raise _refused(manifest, index, _why(manifest, index, tag, len(sealed)))
    cipher = _cipher(bytes(key), manifest.salt, manifest.id, manifest.version, index // SHARD)
    try:
        return cipher.decrypt(_nonce(index), sealed, bound(manifest.id, manifest.version, index, manifest.count))
    except InvalidTag:
        raise _refused(manifest, index, "it was altered, or the key is another") from None


def open_chunk(manifest: Manifest, key: bytes, index: int, ciphertext: bytes | None) -> dict[str, Array]:
    """The arrays of chunk ``index`` of a sealed data set: X (n, ...), given (n,), keys (n,), clean (n,), read-only.

    Raises SealError naming the chunk when it was dropped, swapped, repeated, rolled back, truncated or altered, or holds other
    arrays than the manifest says.
    """
    plain = open_bytes(manifest, key, index, ciphertext)
    try:
        arrays = unpacked(plain)
    except SealError:
        raise _refused(manifest, index, "it holds no rows") from None
    rows = manifest.rows[index] if manifest.rows else -1
    held = {name: (a.dtype.str, a.shape) for name, a in arrays.items()}
    if held != {name: (kind, (rows, *shape)) for name, (kind, shape) in manifest.schema.items()}:
        raise _refused(manifest, index, "it holds other arrays than the manifest says")
    return arrays


def about(manifest: Manifest, key: bytes) -> dict[str, Any]:
    """The sealed description: classes, columns, the scale of X and what else the owner said."""
    cipher = AESGCM(_derived(bytes(key), manifest.salt, b"about\0" + bound(manifest.id, manifest.version, 0, 0)))
    try:
        plain = cipher.decrypt(bytes(12), manifest.about, bound(manifest.id, manifest.version, 0, 0) + _ABOUT)
    except (InvalidTag, ValueError):
        raise SealError(f"the description of {_name(manifest)} does not open; the key is another") from None
    try:
        return dict(json.loads(plain))
    except (ValueError, TypeError, RecursionError) as error:
        raise SealError(f"the description of {_name(manifest)} is none; it was sealed by other code") from error


def seal_bytes(
    content: bytes, store: Store | str, *, key: bytes, signing_key: PrivateKey, id: str, version: int, kind: str = "model",
    chunk_bytes: int = MODEL_CHUNK, key_id: str = "", about: Mapping[str, Any] | None = None,
) -> Manifest:  # fmt: skip
    """Seal any bytes in chunks of ``chunk_bytes`` into a store, the manifest last. Options as of :func:`seal_model`."""
    if chunk_bytes < 1:
        raise SettingsError(f"chunks of {chunk_bytes} bytes were asked for; ask for 1 or more")
    to, view = as_store(store), memoryview(content)
    sealer = Sealer(id, version, key=key, count=max(1, -(-len(view) // chunk_bytes)), kind=kind)
    for index in range(sealer.count):
        to.write(f"v{version}-{index:08d}.chunk", sealer.add(view[index * chunk_bytes : (index + 1) * chunk_bytes]))
    manifest = sealer.done(signing_key, key_id=key_id, about=about)
    to.write(NAME, manifest.text)
    return manifest


def seal_model(
    content: bytes, store: Store | str, *, key: bytes, signing_key: PrivateKey, id: str, version: int,
    chunk_bytes: int = MODEL_CHUNK, key_id: str = "", about: Mapping[str, Any] | None = None,
) -> Manifest:  # fmt: skip
    """Seal a model: safetensors, or the arrays of :mod:`labelwright.packing`; never pickle.

    key: 32 bytes. version: 1 and up, greater than every earlier one. store: an fsspec address or a
    :class:`~labelwright.trust.seal.stores.Store`. Raises SettingsError for a pickle.

    >>> from labelwright.trust.seal import Memory, new_key, open_model
    >>> owner, store, model = new_key(), Memory(), (2).to_bytes(8, "little") + b"{}"
    >>> manifest = seal_model(model, store, key=bytes(32), signing_key=owner, id="m", version=1)
    >>> open_model(manifest, bytes(32), store) == model
    True
    """
    _no_pickle(content)
    return seal_bytes(
        content, store, key=key, signing_key=signing_key, id=id, version=version, chunk_bytes=chunk_bytes, key_id=key_id,
        about=about,
    )  # fmt: skip


def open_model(
    manifest: Manifest, key: bytes, chunks: Store | str | Callable[[int], bytes | None], *, version: int | None = None
) -> bytes:
    """The bytes of a sealed model. chunks: the store, or a function from index to ciphertext.

    version: the least that is good, as the broker says. Raises SealError for an older one, or naming the chunk that is not right.
    """
    if version is not None and manifest.version < version:
        raise SealError(f"{_name(manifest)} was rolled back: the broker says version {version}; ask for that")
    read = chunks if callable(chunks) else reader(manifest, chunks)
    return b"".join(open_bytes(manifest, key, index, read(index)) for index in range(manifest.count))


def check(manifest: Manifest, key: bytes, store: Store | str) -> None:
    """Open every chunk and keep nothing. Raises SealError naming the first that is not the one that was sealed."""
    read = reader(manifest, store)
    for index in range(manifest.count):
        open_bytes(manifest, key, index, read(index))


def reader(manifest: Manifest, store: Store | str) -> Callable[[int], bytes | None]:
    """What the untrusted host does: index -> ciphertext, None where the store has none."""
    of = as_store(store)
    return lambda index: of.read(manifest.chunk(index))


def bound(id: str, version: int, index: int, count: int) -> bytes:
    """What a chunk is bound to, unambiguously: id, version, index, count."""
    name = id.encode()
    numbers = b"".join(n.to_bytes(8, "big") for n in (len(name), version, index, count))
    return b"LWS1" + numbers + name


def _checked(id: str, version: int, key: bytes, kind: str) -> None:
    if len(key) != KEY:
        raise SettingsError(f"the key has {len(key)} bytes, expected {KEY}; make one with os.urandom({KEY})")
    if type(version) is not int or not 1 <= version <= 1 << 53:
        raise SettingsError(f"the version is {version!r}, expected a whole number from 1 up")
    if not id or len(id.encode()) > 200 or kind not in KINDS:
        raise SettingsError(f"got the name {id!r} and the kind {kind!r}; expected a short name and one of {KINDS}")


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), KEY, salt, b"labelwright seal 1\0" + info).derive(key)


def _shard_key(key: bytes, salt: bytes, id: str, version: int, shard: int) -> bytes:
    return _derived(key, salt, b"shard\0" + bound(id, version, shard, 0))


@lru_cache(16)
def _cipher(key: bytes, salt: bytes, id: str, version: int, shard: int) -> AESGCM:
    return AESGCM(_shard_key(key, salt, id, version, shard))


def _seal_about(said: Mapping[str, Any], key: bytes, salt: bytes, id: str, version: int) -> bytes:
    place = bound(id, version, 0, 0)
    plain = json.dumps(dict(said), separators=(",", ":")).encode()
    return AESGCM(_derived(key, salt, b"about\0" + place)).encrypt(bytes(12), plain, place + _ABOUT)


def _no_pickle(content: bytes) -> None:
    head = bytes(content[:4])
    if head[:1] == b"\x80" or (head == b"PK\x03\x04" and b".pkl" in bytes(content)):
        raise SettingsError(
            "the model is a pickle, which runs code when loaded; save it as safetensors, for instance with model.save(path)"
        )


def _why(manifest: Manifest, index: int, tag: bytes, size: int) -> str:
    if size == 0:
        return "it was dropped"
    if tag in manifest.tags and tag != manifest.tags[index]:
        return f"it is chunk {manifest.tags.index(tag)}, swapped or repeated"
    if size != manifest.sizes[index] + TAG:
        return f"it has {size} bytes where {manifest.sizes[index] + TAG} were sealed"
    return "it was altered, or is of another version"


def _refused(manifest: Manifest, index: int, why: str) -> SealError:
    return SealError(f"chunk {index} of {_name(manifest)} is not the one that was sealed: {why}; restore the store")


def _name(manifest: Manifest) -> str:
    return f"{manifest.id!r} version {manifest.version}"
