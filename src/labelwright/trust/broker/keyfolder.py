"""Where keys rest: a folder of files that the broker alone can read, each wrapped by a key that is not in the folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from labelwright.errors import RefusedError, SealError, SettingsError
from labelwright.trust.broker.versions import Version
from labelwright.trust.files import SMALL, read_bytes
from labelwright.trust.seal.signing import Jwk, jwk_of, new_key

PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_NAME = re.compile(rf"{PART}/{PART}/{PART}")
_PRIVATE = ("_owner", "_broker")
REPOSITORY = "default"
SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}


@dataclass(frozen=True)
class Resource:
    """A secret and the workloads (hexadecimal SHA-256) that may have it; none named: every workload of the policy."""

    content: bytes
    workloads: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Resource({len(self.content)} bytes)"  # so that no log ever shows it


class KeyFolder:
    """Secrets by name ``repository/type/tag``, wrapped at rest, and the counters of sealed things.

    path: made with mode 0700, files with 0600. passphrase: from the environment, a file elsewhere or a TPM; scrypt makes the
    wrapping key of it. Several processes may use one folder. Raises SettingsError for another passphrase, or a folder that others
    can read.

    >>> import tempfile
    >>> folder = KeyFolder(Path(tempfile.mkdtemp()) / "keys", "correct horse")
    >>> folder.put("default/key/reviews", bytes(32))
    >>> folder.get("default/key/reviews"), folder.names()
    (Resource(32 bytes), ['default/key/reviews'])
    """

    def __init__(self, path: str | Path, passphrase: str | bytes):
        self.path = Path(path)
        if not passphrase:
            raise SettingsError("the passphrase of the keys is empty; give one of 16 characters or more")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.path.stat().st_mode & 0o077:
                raise SettingsError(f"others can enter {self.path}, which holds keys; run: chmod 700 {self.path}")
            self._cipher = AESGCM(self._wrapping_key(passphrase))
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be used for keys ({error.strerror}); check the path") from error
        self.versions = Versions(self)

    # ------------------------------------------------------------ secrets

    def put(self, name: str, content: bytes, *, workloads: tuple[str, ...] = ()) -> None:
        """Keep a secret under ``repository/type/tag``; replaces an earlier one. Raises SettingsError for a bad name."""
        self._keep(checked_name(name), Resource(content, workloads))

    def get(self, name: str) -> Resource | None:
        """The secret, or None when there is none."""
        return self._kept(checked_name(name))

    def names(self) -> list[str]:
        """Names of all secrets, sorted."""
        found = (file.name.removesuffix(".wrapped").replace("~", "/") for file in self.path.glob("*~*.wrapped"))
        return sorted(name for name in found if _NAME.fullmatch(name) and "/version/" not in name)

    def data_key(self, id: str, *, workloads: tuple[str, ...] = ()) -> bytes:
        """The key of a sealed thing, 32 bytes, made when first asked for."""
        signer = json.dumps(
            self.owner_jwk
        ).encode()  # before the lock, which it takes too when there is no owner's key yet
        with self.locked():
            held = self.get(f"{REPOSITORY}/key/{id}")
            if held is None:
                held = Resource(os.urandom(32), workloads)
                self.put(f"{REPOSITORY}/key/{id}", held.content, workloads=workloads)
                self.put(f"{REPOSITORY}/signer/{id}", signer, workloads=workloads)
        return held.content

    def prepare_model(self, id: str, *, workloads: tuple[str, ...] = ()) -> None:
        """Keys for a model that a learner will seal: ``default/key/ID``, ``default/signing-key/ID`` (PKCS #8) and its public
        part as ``default/signer/ID``. Does nothing when they exist; raises SettingsError for what the owner has sealed before."""
        if self.get(f"{REPOSITORY}/signing-key/{id}") is None and self.versions.current(id).number:
            raise SettingsError(f"{id!r} is sealed by its owner, not by learners; choose another name for the model")
        self.data_key(id, workloads=workloads)
        with self.locked():
            if self.get(f"{REPOSITORY}/signing-key/{id}") is None:
                key = new_key()
                self.put(f"{REPOSITORY}/signer/{id}", json.dumps(jwk_of(key)).encode(), workloads=workloads)
                self.put(f"{REPOSITORY}/signing-key/{id}", key_bytes(key), workloads=workloads)

    def signer(self, id: str) -> Jwk:
        """The public key that signs the manifests of ``id``: the owner's, or the learner's for a prepared model."""
        held = self.get(f"{REPOSITORY}/signer/{id}")
        return dict(json.loads(held.content)) if held else self.owner_jwk

    @property
    def owner_key(self) -> ec.EllipticCurvePrivateKey:
        """Signs the owner's manifests. Never given out."""
        return self._own_key("_owner")

    @property
    def owner_jwk(self) -> Jwk:
        """Its public part."""
        return jwk_of(self.owner_key)

    @property
    def broker_key(self) -> ec.EllipticCurvePrivateKey:
        """Signs the broker's responses and tokens; learners pin its public part."""
        return self._own_key("_broker")

    def _own_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        held = self._kept(name)
        if held is None:
            with self.locked():
                held = self._kept(name) or Resource(key_bytes(new_key()))
                self._keep(name, held)
        return key_from(held.content)

    # ------------------------------------------------------------ files

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time, and one thread of it; not to be nested."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _keep(self, name: str, held: Resource) -> None:
        head = json.dumps({"workloads": held.workloads}).encode()
        self.write(name, head + b"\n" + held.content)

    def _kept(self, name: str) -> Resource | None:
        plain = self.read(name)
        if plain is None:
            return None
        head, _, content = plain.partition(b"\n")
        return Resource(content, tuple(json.loads(head)["workloads"]))

    def write(self, name: str, plain: bytes) -> None:
        """Wrap and write a file whole or not at all; on disk before this returns."""
        nonce = os.urandom(12)
        write_private(self._file(name), nonce + self._cipher.encrypt(nonce, plain, name.encode()))

    def read(self, name: str) -> bytes | None:
        """What :meth:`write` wrote. Raises SealError when the file was altered or is another's."""
        try:
            sealed = read_bytes(self._file(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(
                f"{self._file(name)} cannot be read ({error.strerror}); check its permissions"
            ) from error
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], name.encode())
        except (InvalidTag, ValueError):
            raise SealError(f"{self._file(name)} was altered, or put in another's place; restore it") from None

    def _file(self, name: str) -> Path:
        return self.path / f"{name.replace('/', '~')}.wrapped"

    def _wrapping_key(self, passphrase: str | bytes) -> bytes:
        raw = passphrase.encode("utf-8", "surrogateescape") if isinstance(passphrase, str) else passphrase
        file = self.path / "wrapping.json"
        with self.locked():
            if not file.exists():
                if any(self.path.glob("*.wrapped")):
                    raise SettingsError(f"{file} is missing, and the keys cannot be read without it; restore it")
                salt = os.urandom(16)
                key = _scrypt(raw, {**SCRYPT, "salt": salt.hex()})
                check = AESGCM(key).encrypt(bytes(12), b"", b"labelwright keys 1")
                write_private(file, json.dumps({**SCRYPT, "salt": salt.hex(), "check": check.hex()}).encode())
        try:
            told = json.loads(read_bytes(file, SMALL))
            key = _scrypt(raw, told)
            AESGCM(key).decrypt(bytes(12), bytes.fromhex(told["check"]), b"labelwright keys 1")
        except InvalidTag:
            raise SettingsError(
                f"the passphrase is not the one of {self.path}; give the one it was made with"
            ) from None
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise SettingsError(f"{file} is damaged; restore it") from error
        return key


class Versions:
    """Counters of sealed things, one file each: they only rise, and are on disk before anybody is told.

    >>> import tempfile
    >>> versions = KeyFolder(Path(tempfile.mkdtemp()) / "keys", "x").versions
    >>> versions.advance("model", 1, bytes(32)).number, versions.current("model").number
    (1, 1)
    >>> versions.advance("model", 1, bytes(32))
    Traceback (most recent call last):
    ...
    labelwright.errors.RefusedError: version 1 of 'model' was offered where 2 comes next; fetch the newest and go on from there
    """

    def __init__(self, folder: KeyFolder):
        self._folder = folder

    def current(self, id: str, repository: str = REPOSITORY) -> Version:
        """The newest version."""
        plain = self._folder.read(self._name(id, repository))
        if plain is None:
            return Version()
        told = json.loads(plain)
        return Version(told["version"], bytes.fromhex(told["digest"]))

    def advance(self, id: str, number: int, digest: bytes, repository: str = REPOSITORY) -> Version:
        """Make ``number`` the newest. Raises RefusedError unless it is the next."""
        with self._folder.locked():
            now = self.current(id, repository)
            if number != now.number + 1:
                raise RefusedError(
                    f"version {number} of {id!r} was offered where {now.number + 1} comes next; fetch the newest and go on "
                    "from there"
                )
            told = json.dumps({"version": number, "digest": digest.hex()})
            self._folder.write(self._name(id, repository), told.encode())
        return Version(number, digest)

    def _name(self, id: str, repository: str) -> str:
        return checked_name(f"{repository}/version/{id}")


def checked_name(name: str) -> str:
    """``repository/type/tag`` of letters, digits, dots, dashes and underscores. Raises SettingsError for another."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"the name {name[:80]!r} is none of a secret; expected repository/type/tag of letters, digits, '.', '-' and '_'"
        )
    return name


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, DER. Only ever written wrapped."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def key_from(content: bytes) -> ec.EllipticCurvePrivateKey:
    """What :func:`key_bytes` made. Raises SealError for anything else."""
    try:
        key = load_der_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise SealError("the signing key is damaged; restore it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SealError("the signing key is of another kind than EC P-256; restore it")
    return key


def write_private(path: Path, content: bytes) -> None:
    """A file for its owner alone (0600), whole or not at all, on disk before this returns."""
    other = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        other.replace(path)
    except BaseException:
        other.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _scrypt(passphrase: bytes, told: dict[str, Any]) -> bytes:
    n, r, p = int(told["n"]), int(told["r"]), int(told["p"])
    if not (2 <= n <= 1 << 20 and 1 <= r <= 32 and 1 <= p <= 16 and n * r * p <= 1 << 20):  # well below a second
        raise ValueError("scrypt")
    return hashlib.scrypt(
        passphrase, salt=bytes.fromhex(told["salt"]), n=n, r=r, p=p, maxmem=256 * n * r + (1 << 20), dklen=32
    )
