"""``workload.toml``: what runs inside, on what, with how much memory; its digest is what the evidence speaks for.

Everything but the table ``[host]`` counts for the digest: where ciphertext lies and how the broker is reached is the host's affair.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import labelwright
from labelwright.errors import RefusedError, SettingsError
from labelwright.toml import tables_of
from labelwright.trust.files import read_text

MODES = ("judge", "rad-duo", "qal", "predict")
ENTRY = "labelwright.trust.inside:main"
MEGABYTE = 1 << 20
LEAST_MEMORY = 48 * MEGABYTE
_SIZE = re.compile(r"(\d{1,7}) ?(MB|GB)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TABLES = {
    "workload": {"name", "mode", "code", "entry", "memory", "threads", "seed"},
    "data": {"id", "classes"},
    "models": {"quality", "classifier"},
    "learn": {"epochs", "later_epochs", "batch_size", "kernel", "C", "buffer", "questions", "rows"},
    "result": {"model", "ledger"},
    "broker": {"key"},
    "expert": {"key"},
    "host": {"data", "models", "broker", "cafile", "expert", "evidence", "tsm", "collateral", "certs", "tpm", "tcti"},
}
_COUNT = (lambda value: isinstance(value, int) and 0 <= value <= 1 << 31, "a whole number from 0 on")
_LEAST = (lambda value: isinstance(value, int) and 1 <= value <= 1 << 31, "a whole number from 1 on")
_LEARN: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": _LEAST,
    "later_epochs": _LEAST,
    "batch_size": _LEAST,
    "rows": _LEAST,
    "kernel": (lambda value: value in ("rbf", "linear"), "'rbf' or 'linear'"),
    "C": (lambda value: isinstance(value, (int, float)) and 0 < value < 1e9, "a number above 0"),
}
_NEEDED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "judge": {"models": ("quality", "classifier"), "result": ("ledger",)},
    "rad-duo": {"result": ("model", "ledger")},
    "qal": {"result": ("model", "ledger"), "expert": ("key",)},
    "predict": {"models": ("classifier",), "result": ("ledger",)},
}
_ALWAYS: Mapping[str, tuple[str, ...]] = {"data": ("id", "classes"), "broker": ("key",)}


@dataclass(frozen=True)
class Workload:
    """One workload. tables: what the file says, by table. memory: bytes. classes: K.

    >>> workload = Workload.from_toml(EXAMPLE)
    >>> workload.mode, workload.memory >> 20, len(workload.digest)
    ('judge', 64, 32)
    >>> workload.digest == Workload.from_toml(EXAMPLE.replace("sealed/wards", "elsewhere")).digest
    True
    >>> workload.digest == Workload.from_toml(EXAMPLE.replace("64 MB", "65 MB")).digest
    False
    """

    name: str
    mode: str
    code: str
    memory: int
    classes: int
    threads: int = 1
    seed: int = 0
    entry: str = ENTRY
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Workload:
        """Read a file. Raises SettingsError when it cannot be read or says something unknown."""
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"the workload {path} cannot be read ({why}); check the path") from error
        return cls.from_toml(text, name=str(path))

    @classmethod
    def from_toml(cls, text: str, *, name: str = "the workload") -> Workload:
        """The workload that ``text`` describes. Raises SettingsError naming what is wrong."""
        return cls.of(tables_of(text, name), name=name)

    @classmethod
    def of(cls, tables: Mapping[str, Any], *, name: str = "the workload") -> Workload:
        """The workload of parsed tables. Raises SettingsError naming what is wrong."""
        _known(tables, name)
        head = tables.get("workload", {})
        mode = head.get("mode")
        if mode not in MODES:
            raise SettingsError(f"{name} has mode = {_shown(mode)}; expected one of {', '.join(MODES)}")
        _named(tables, mode, name)
        return cls(
            name=_text(head, "name", name),
            mode=mode,
            code=_digest_text(head, name),
            memory=_memory(head.get("memory"), name),
            classes=_whole(tables["data"], "classes", name, least=2, most=10_000),
            threads=_whole(head, "threads", name, default=1, least=1, most=256),
            seed=_whole(head, "seed", name, default=0, least=0, most=1 << 31),
            entry=_entry(head.get("entry", ENTRY), name),
            tables=tables,
        )

    def table(self, name: str) -> Mapping[str, Any]:
        """A table of the file, empty where it has none."""
        return self.tables.get(name, {})

    @property
    def canonical(self) -> bytes:
        """What the digest is of: all tables but ``[host]``, as JSON with one spelling."""
        kept = {name: table for name, table in self.tables.items() if name != "host"}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def digest(self) -> bytes:
        """SHA-256, 32 bytes."""
        return hashlib.sha256(self.canonical).digest()

    def check_code(self) -> None:
        """Raise RefusedError unless the package that runs is the one that the workload names."""
        here = code_digest()
        if self.code != here:
            raise RefusedError(
                f"the workload {self.name!r} names the code {self.code[:23]}…, but this package is {here[:23]}…; install that one, or "
                f'write code = "{here}" and let the policy name the new workload'
            )


def code_digest(root: Path | None = None) -> str:
    """``sha256:`` and the digest of the package's Python files: their names and contents, in order.

    >>> code_digest() == code_digest() and len(code_digest())
    71
    """
    root = root or Path(labelwright.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _shown(value: Any) -> str:
    """A value in a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _known(tables: Mapping[str, Any], name: str) -> None:
    for table, values in tables.items():
        if table not in _TABLES or not isinstance(values, dict):
            raise SettingsError(
                f"{name} has {_shown(table)}, which is no table of a workload; expected {', '.join(_TABLES)}"
            )
        unknown = sorted(set(values) - _TABLES[table])
        if unknown:
            raise SettingsError(
                f"{name} says {_shown(unknown[0])} in [{table}]; expected {', '.join(sorted(_TABLES[table]))}"
            )


def _named(tables: Mapping[str, Any], mode: str, name: str) -> None:
    """What the mode needs, and names that are names. Sealed things are named; the broker holds their keys under these names."""
    for table, keys in {**_ALWAYS, **_NEEDED[mode]}.items():
        lacking = [key for key in keys if key not in tables.get(table, {})]
        if lacking:
            raise SettingsError(f"{name} lacks {lacking[0]!r} in [{table}], which mode = {mode!r} needs; add it")
    for table in ("data", "models", "result"):
        for key, value in tables.get(table, {}).items():
            if key != "classes" and (not isinstance(value, str) or not _NAME.fullmatch(value)):
                raise SettingsError(
                    f"{name} has {key} = {_shown(value)} in [{table}]; expected a short name of letters, digits, . _ -"
                )
    for table in ("broker", "expert"):
        if table in tables and not _is_jwk(tables[table].get("key")):
            raise SettingsError(
                f'{name} has no public key in [{table}]; write key = {{ kty = "EC", crv = "P-256", x, y }}'
            )
    for key, value in tables.get("learn", {}).items():
        good, wanted = _LEARN.get(key, _COUNT)
        if isinstance(value, bool) or not good(value):
            raise SettingsError(f"{name} has {key} = {_shown(value)} in [learn]; expected {wanted}")
    for key, value in tables.get("host", {}).items():
        if not isinstance(value, str):
            raise SettingsError(f"{name} has {key} = {_shown(value)} in [host]; expected a text")


def _is_jwk(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(part, str) for part in value.values())


def _text(table: Mapping[str, Any], key: str, name: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SettingsError(f"{name} has {key} = {_shown(value)}; expected a short name of letters, digits, . _ -")
    return value


def _digest_text(head: Mapping[str, Any], name: str) -> str:
    code = head.get("code")
    if not isinstance(code, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", code):
        raise SettingsError(
            f"{name} has code = {_shown(code)}; expected 'sha256:' and 64 digits; this package is {code_digest()}"
        )
    return code


def _memory(value: Any, name: str) -> int:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size = int(found[1]) * (MEGABYTE if found[2] == "MB" else MEGABYTE << 10) if found else 0
    if not LEAST_MEMORY <= size <= 1 << 44:
        raise SettingsError(
            f"{name} has memory = {_shown(value)}; expected e.g. '64 MB' or '2 GB', at least {LEAST_MEMORY // MEGABYTE} MB"
        )
    return size


def _whole(table: Mapping[str, Any], key: str, name: str, *, least: int, most: int, default: int | None = None) -> int:
    value = table.get(key, default)
    if type(value) is not int or not least <= value <= most:
        raise SettingsError(f"{name} has {key} = {_shown(value)}; expected a whole number from {least} to {most}")
    return value


def _entry(value: Any, name: str) -> str:
    if value != ENTRY:
        raise SettingsError(
            f"{name} has entry = {_shown(value)}; only {ENTRY!r} runs inside: write that or leave it out"
        )
    return ENTRY


EXAMPLE = f"""\
[workload]
name = "wards"
mode = "judge"
code = "sha256:{"0" * 64}"
memory = "64 MB"

[data]
id = "wards"
classes = 10

[models]
quality = "quality"
classifier = "classifier"

[result]
ledger = "wards-judged"

[broker]
key = {{ kty = "EC", crv = "P-256", x = "…", y = "…" }}

[host]
data = "sealed/wards"
models = "sealed/models"
broker = "http://127.0.0.1:8321"
evidence = "sim"
"""
