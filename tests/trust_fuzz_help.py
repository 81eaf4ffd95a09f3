"""Things to bend: an owner's folder with one of everything that the commands read, and ways to bend a file or what stands in its place."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from helpers import call_cli
from test_trust_run import toml
from trust_run_help import SIM, Estate

from labelwright.trust import ear
from labelwright.trust.attester import collect
from labelwright.trust.broker import Client
from labelwright.trust.chain import SealedLedger
from labelwright.trust.evidence import canonical_key, report_data
from labelwright.trust.inside import REPORT, verdict
from labelwright.trust.render import gramine
from labelwright.trust.seal import NAME, Folder, Sealer, jwk_of, key_of, new_key
from labelwright.trust.seal.signing import signed_text
from labelwright.trust.verify import enrol
from labelwright.trust.verify.tpm import TpmQuote
from labelwright.types import Verdict

WORDS = "a passphrase for the tests"
SECRET = 0.8414709848078965  # a value of the rows, whose digits no output may show
NONCE = bytes(range(32))
ODD: list[Any] = [
    None, True, -1, 0, 2**63, 2**200, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\0", "a\nb", "\x1b[31m", "../..", "é\u2028", [],
    {}, [[]], ["a", 1], {"": {}}, "0" * 64, [0] * 300, "file:///", "http://[", "memory://\0", "1e5",
]  # fmt: skip
PLACES = ["pipe", "loop", "device", "folder", "nothing", "empty", "socket", "endless", "binary"]


class Scene:
    """An owner's folder, sealed things, evidence, a policy, a workload and a report that hold; ``good`` is copied for each attack."""

    def __init__(self, path: Path):
        self.good = path / "good"
        self.estate = Estate(self.good, policy=SIM)
        self.rows = {
            "X": np.full((6, 3), SECRET),
            "given": np.arange(6) % 3,
            "keys": np.arange(6),
            "clean": np.ones(6, bool),
        }
        self.estate.seal([self.rows], rows=3)
        self.estate.seal_model("quality", (2).to_bytes(8, "little") + b"{}" + b"\x07weights" * 40)
        where = {"data": "host/rows", "models": "host", "broker": "http://127.0.0.1:9", "evidence": "sim"}
        self.workload = self.estate.workload("judge", host={**where, "collateral": "tee.jwk", "certs": "ca.pem"})
        self._client()
        self._ledger()
        self._texts()
        self.secrets = [self.estate.keys.data_key("rows"), self.estate.keys.data_key("decided")]

    def _client(self) -> None:
        from broker_help import call

        app = self.estate.broker(self.workload)
        self.client = Client(lambda *r: call(app, *r), self.estate.keys.broker_key.public_key())
        self.client.attest(lambda data: collect("sim", data), self.workload.digest)

    def _ledger(self) -> None:
        """A sealed ledger of two entries, and the report that a learner would sign of it."""
        store = Folder(self.good / "host" / "decided")
        arrays = {
            "keys": np.arange(3),
            "given": np.array([0, 1, 2]),
            "verdict": np.full(3, Verdict.TRUSTED.value),
            "score": np.ones(3),
        }
        manifest, entries, head = sealed_ledger(self.estate, store, [arrays, arrays])
        self.told: dict[str, Any] = {
            "workload": "judge", "digest": self.workload.digest.hex(), "mode": "judge", "code": self.workload.code,
            **verdict(self.client.token), "confinement": {}, "sealed_inputs": [], "rows": 6, "verdicts": {}, "entries": entries,
            "sealed_results": [{"id": "decided", "version": 1, "manifest": manifest.digest.hex()}], "head": head,
            "key": jwk_of(self.client.key), "token": self.client.token,
        }  # fmt: skip
        (self.good / "report.jws").write_bytes(self.signed(self.told))

    def signed(self, told: Any) -> bytes:
        """A report by the key that the broker vouched for, whatever it says."""
        return signed_text(self.client.key, json.dumps(told, sort_keys=True).encode(), REPORT)

    def _texts(self) -> None:
        at, key = self.good, new_key()
        (at / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (at / "key.pem").chmod(0o600)
        (at / "tee.jwk").write_text(json.dumps(jwk_of(key)))
        bound = report_data(NONCE, canonical_key(dict(jwk_of(key))), self.workload.digest)
        (at / "evidence.json").write_text(collect("sim", bound).to_json())
        (at / "policy.toml").write_text(SIM.format(digest=self.workload.digest.hex()))
        (at / "workload.toml").write_text(toml(self.workload))
        (at / "gramine.manifest").write_text(gramine(self.workload))
        from datetime import UTC, datetime

        from labelwright.trust.evidence import Evidence

        ca, _ = enrol.make_ca("tests", now=datetime.now(UTC))
        (at / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
        message = b"\xffTCG\x80\x18" + b"\0\0" * 2 + bytes(25) + b"\0\0\0\1\0\x0b\3\x80\0\0" + b"\0\x20" + bytes(32)
        blob = TpmQuote(message, b"\0\x14\0\x0b\0\x01a", {7: bytes(32)}).encode()
        der = ca.public_bytes(Encoding.DER)
        (at / "tpm.json").write_text(Evidence("tpm", blob, certs=(der, der)).to_json())
        (at / "tpm.toml").write_text(
            'kinds = ["tpm"]\n[tpm]\ntest_roots = ["ca.pem"]\n[tpm.pcrs]\n7 = "' + "00" * 32 + '"\n'
        )


def sealed_ledger(estate: Estate, store: Folder, entries: list[Any]) -> tuple[Any, list[Any], str]:
    """(manifest, public entries, head) of a ledger as its learner seals it."""
    from labelwright.trust.broker.keyfolder import key_from

    held = estate.keys.get("default/signing-key/decided")
    assert held is not None
    sealer = Sealer("decided", 1, key=estate.keys.data_key("decided"), count=len(entries), kind="ledger")
    ledger = SealedLedger(sealer, lambda index, blob: store.write(f"v1-{index:08d}.chunk", blob))
    for number, arrays in enumerate(entries):
        ledger.add(number, arrays)
    manifest = ledger.done(key_from(held.content), classes=["a", "b", "c"])
    store.write(NAME, manifest.text)
    return manifest, ledger.entries, ledger.head


@contextmanager
def copied(good: Path, to: Path) -> Iterator[Path]:
    """A copy to bend, gone afterwards; the current folder while it lasts."""
    before = Path.cwd()
    shutil.copytree(good, to, symlinks=True)
    os.chmod(to / "keys", 0o700)
    os.chdir(to)
    try:
        yield to
    finally:
        os.chdir(before)
        shutil.rmtree(to)


# ------------------------------------------------------------ bending


def bent(path: Path, how: str, rng: random.Random) -> None:
    """Bend one file: its bytes, its structure, its depth, or what it is."""
    content = path.read_bytes()
    if how == "place":
        put_in_place(path, rng.choice(PLACES))
        return
    makers: dict[str, Callable[[bytes, random.Random], bytes]] = {
        "bytes": noisy,
        "structure": restructured,
        "deep": deep,
    }
    path.write_bytes(makers[how](content, rng))


def put_in_place(path: Path, what: str) -> None:
    """Something else where a file should be."""
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what in ("loop", "device"):
        path.symlink_to(path if what == "loop" else "/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as place:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path is at most 107 bytes
            place.bind(path.name)
            os.chdir(here)
    elif what == "endless":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif what in ("empty", "binary"):
        path.write_bytes(b"" if what == "empty" else bytes(range(256)) * 4)


def noisy(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, pieces cut, doubled, moved or replaced, or an early end."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 40])):
        at, size = rng.randrange(len(data) + 1), rng.choice([1, 2, 8, 64])
        what = rng.choice(["flip", "cut", "double", "noise", "end", "swap"])
        if what == "flip" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == "cut":
            del data[at : at + size]
        elif what == "double":
            data[at:at] = data[at : at + size]
        elif what == "noise":
            data[at : at + size] = rng.randbytes(size)
        elif what == "swap":
            data[at : at + size] = data[:size]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def restructured(content: bytes, rng: random.Random) -> bytes:
    """JSON, TOML or a signed text with a value of another kind in it."""
    try:
        return json.dumps(changed(json.loads(content), rng)).encode()
    except ValueError:
        pass
    parts = content.split(b".")
    if len(parts) == 3 and b"\n" not in content:
        which = rng.randrange(2)
        try:
            told = json.loads(base64.urlsafe_b64decode(parts[which] + b"=="))
            parts[which] = ear._b64(json.dumps(changed(told, rng)).encode()).encode()
            return b".".join(parts)
        except ValueError:
            pass
    if b" = " not in content:
        return noisy(content, rng)
    lines = content.decode().splitlines()
    at = rng.choice([n for n, line in enumerate(lines) if " = " in line])
    lines[at] = f"{lines[at].split(' = ')[0]} = {toml_of(rng)}"
    if rng.random() < 0.2:
        lines.insert(at, lines[rng.randrange(len(lines))])
    return "\n".join(lines).encode()


def toml_of(rng: random.Random) -> str:
    """A value in TOML, mostly of the wrong kind."""
    special = [
        "1979-05-27T07:32:00Z",
        "07:32:00",
        "0x" + "f" * 5000,
        "9" * 5000,
        "nan",
        "-inf",
        "1e999",
        '"""a\nb"""',
        "'\\'",
        "{a.b = 1}",
    ]
    value = rng.choice([v for v in ODD if v is not None and v == v and v not in (float("inf"),)])
    if isinstance(value, dict):
        return "{ kty = 1 }"
    return rng.choice([rng.choice(special), json.dumps(value), json.dumps([value])])


def changed(value: Any, rng: random.Random) -> Any:
    """JSON with one value replaced, left out, repeated, or one member renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        kept = {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.1:
            return kept
        return {**kept, (key if rng.random() < 0.9 else key + "x"): changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        inner = [] if rng.random() < 0.2 else [changed(value[at], rng)] * rng.choice([1, 1, 2])
        return [*value[:at], *inner, *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.4:
        return noisy(value.encode(), rng).decode("latin-1")
    if type(value) is int and rng.random() < 0.4:
        return rng.choice([value + 1, -value, value << 40, float(value), str(value)])
    return rng.choice(ODD)


def deep(content: bytes, rng: random.Random) -> bytes:
    """Brackets without end, and names of very many parts."""
    n = rng.choice([400, 900, 960, 990, 2000, 100_000])
    raw = rng.choice([b"[" * n, b'{"a":' * n, b"[" * n + b"]" * n, b'{"a":' * n + b"1" + b"}" * n])
    parts = content.split(b".")
    if len(parts) == 3 and b"\n" not in content and rng.random() < 0.9:
        return b".".join([parts[0], ear._b64(raw).encode(), parts[2]])
    if b" = " in content:
        name = b".".join([b"a"] * n)
        nested = rng.choice([b"a = " + raw, name + b" = 1", b"[" + name + b"]", b"a = " + b"{a = " * n, b"[[a]]\n" * n])
        return rng.choice([nested, content + b"\n" + nested])
    return raw


# ------------------------------------------------------------ looking


class HangError(AssertionError):
    """A command that did not end."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raise HangError out of what takes longer than ``seconds``."""

    def ring(signum: int, frame: Any) -> None:
        raise HangError(f"it did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


slowest = {"seconds": 0.0}


def built_once() -> Any:
    """The command line's tree of commands, which takes longer to build than most commands take to run."""
    from typer.main import get_command

    from labelwright.cli import audit, bench, changes, consensus, look, people, run, sites, trust  # noqa: F401
    from labelwright.cli.app import app

    return get_command(app)


def looked_at(arguments: list[str], secrets: list[bytes]) -> Any:
    """Run a command in this process: it ends within 2 s of its own, with 0, 1 or one sentence and 2, and shows no key and no row."""
    begun, own = time.perf_counter(), time.process_time()
    with alarm(20):
        done = call_cli("trust", *arguments)
    took = min(
        time.perf_counter() - begun, 2 * (time.process_time() - own) + 0.5
    )  # the machine's other work does not count
    slowest["seconds"] = max(slowest["seconds"], took)
    assert took < 2, f"it took {took:.1f} s"
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2) and "Traceback" not in said, said[-2000:]
    if done.returncode == 2 and not done.stderr.startswith("Usage"):
        assert done.stderr.startswith("labelwright: ") and len(done.stderr.splitlines()) == 1, done.stderr[:2000]
        assert 20 < len(done.stderr) < 1500 and done.stderr[:-1].isprintable(), done.stderr[:3000]
    shown = [str(SECRET), *(encode(key) for key in secrets for encode in (bytes.hex, ear._b64))]
    assert not any(text in said for text in shown)
    return done


__all__ = [
    "SECRET",
    "HangError",
    "Scene",
    "alarm",
    "bent",
    "changed",
    "copied",
    "key_of",
    "looked_at",
    "sealed_ledger",
    "slowest",
]
