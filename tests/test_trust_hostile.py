"""What a hostile learner signs and seals, and what a hostile server answers: one sentence, in time, and never a key."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("cryptography")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trust_fuzz_help import ODD, WORDS, Scene, alarm, built_once, changed, copied, looked_at, noisy, sealed_ledger

from labelwright.cli import trust_seal
from labelwright.cli.trust_run import _post
from labelwright.errors import TrustError
from labelwright.trust.attester import collect
from labelwright.trust.broker import Client, http_send
from labelwright.trust.broker.keyfolder import key_from
from labelwright.trust.seal import NAME, Folder, Sealer, jwk_of, new_key, packed
from labelwright.trust.seal.signing import b64

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
QUICK, LONG = 120, int(os.environ.get("LABELWRIGHT_FUZZ", "8000")) // 4
COMMANDS = built_once()
SETTINGS: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
SEEDS = st.binary(min_size=6, max_size=6)
REPORTED = ["report", "report.jws", "--keys", "keys", "--ledger", "host/decided", "--output", "d.csv"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust_seal.VARIABLE, WORDS)
    monkeypatch.setattr(sys.modules["labelwright.cli.app"], "app", COMMANDS)


# ------------------------------------------------------------ a learner that the broker vouched for, gone wrong


def odd_arrays(rng: random.Random) -> dict[str, Any]:
    """Arrays as no ledger and no data set has them."""
    names = ["keys", "given", "verdict", "score", "label", "answered", "id", "X", "clean", "", "a\nb"]
    kinds: list[Any] = [np.int64, np.uint8, np.float32, np.bool_]
    shapes: list[Any] = [(3,), (3,), (3,), (2,), (0,), (), (3, 2), (3, 32), (3, 1, 1)]
    made = {}
    for name in rng.sample(names, rng.randrange(1, 6)):
        array = np.array(np.random.default_rng(rng.randrange(99)).integers(-4, 99, rng.choice(shapes)))
        made[name] = array.astype(rng.choice(kinds))
    made.pop("keys", None)
    return {"keys": np.arange(3), **made}


def odd_report(scene: Scene, place: Path, seed: bytes) -> None:
    """A report of a wrong shape under the right key, or of a ledger that holds other arrays than decisions."""
    rng = random.Random(seed)
    with copied(scene.good, place) as here:
        told = dict(scene.told)
        if rng.random() < 0.5:
            manifest, told["entries"], told["head"] = sealed_ledger(
                scene.estate, Folder(here / "host" / "decided"), [odd_arrays(rng) for _ in range(rng.choice([1, 2]))]
            )
            told["sealed_results"] = [{"id": "decided", "version": 1, "manifest": manifest.digest.hex()}]
        else:
            told = changed(told, rng)
        (here / "report.jws").write_bytes(scene.signed(told))
        looked_at(REPORTED, scene.secrets)


def odd_result(scene: Scene, place: Path, seed: bytes) -> None:
    """A result sealed with the right keys as what it is not."""
    rng = random.Random(seed)
    with copied(scene.good, place) as here:
        store, keys = Folder(here / "host" / "decided"), scene.estate.keys
        held = keys.get("default/signing-key/decided")
        assert held is not None
        kind = rng.choice(["data", "data", "data", "model", "answers"])
        sealer = Sealer("decided", 1, key=keys.data_key("decided"), count=1, kind=kind)
        arrays = odd_arrays(rng) | ({"X": np.ones((3, 2)), "given": np.array([0, 1, 9])} if rng.random() < 0.5 else {})
        store.write("v1-00000000.chunk", sealer.add(packed(arrays) if rng.random() < 0.9 else rng.randbytes(50)))
        schema = {name: (a.dtype.str, a.shape[1:]) for name, a in arrays.items()}
        said = {"classes": rng.choice([["a", "b"], ["a", "b"], *ODD]), "scale": rng.choice([1, 1, *ODD])}
        about: Any = {name: value for name, value in said.items() if rng.random() < 0.7}
        manifest = sealer.done(
            key_from(held.content), rows=[3], schema=schema if rng.random() < 0.9 else {}, about=about
        )
        store.write(NAME, manifest.text)
        with keys_of(here, manifest):
            looked_at(["unseal", "host/decided", rng.choice(["o.csv", "o.parquet"]), "--keys", "keys"], scene.secrets)


@contextmanager
def keys_of(here: Path, manifest: Any) -> Iterator[None]:
    """The copy's broker counts this version, as it does for whoever attested."""
    from labelwright.trust.broker import KeyFolder

    KeyFolder(here / "keys", WORDS).versions.advance("decided", 1, manifest.digest)
    yield


@pytest.mark.parametrize("attack", [odd_report, odd_result])
def test_what_a_learner_gone_wrong_leaves_is_told_in_one_sentence(scene: Scene, tmp_path: Path, attack: Any) -> None:
    settings(max_examples=QUICK, **SETTINGS)(given(SEEDS)(lambda seed: attack(scene, tmp_path / "copy", seed)))()


@pytest.mark.parametrize("odd", [{"verdict": np.full(3, 77)}, {"score": np.ones(2)}, {"given": np.float32([1, 2, 3])}])
def test_a_ledger_of_no_decisions_is_one_sentence(scene: Scene, tmp_path: Path, odd: dict[str, Any]) -> None:
    """Found by the above: whoever attests seals what he likes; the owner's report command ended with a traceback."""
    with copied(scene.good, tmp_path / "copy") as here:
        place = Folder(here / "host" / "decided")
        manifest, entries, head = sealed_ledger(scene.estate, place, [{"keys": np.arange(3), **odd}])
        made = [{"id": "decided", "version": 1, "manifest": manifest.digest.hex()}]
        told = scene.told | {"entries": entries, "head": head, "sealed_results": made}
        (here / "report.jws").write_bytes(scene.signed(told))
        done = looked_at(REPORTED, scene.secrets)
        assert done.returncode == 2 and "other arrays than decisions" in done.stderr and not list(here.glob("*d.csv*"))


@pytest.mark.soak
@pytest.mark.parametrize("attack", [odd_report, odd_result])
def test_what_a_learner_gone_wrong_leaves_is_told_for_long(scene: Scene, tmp_path: Path, attack: Any) -> None:
    start = time.perf_counter()
    settings(max_examples=LONG, **SETTINGS)(given(SEEDS)(lambda seed: attack(scene, tmp_path / "copy", seed)))()
    print(f"\n{attack.__name__}: {LONG:,} inputs in {time.perf_counter() - start:.0f} s")


# ------------------------------------------------------------ a server that is no broker and no expert


class Hostile:
    """A local server that answers every request with the bytes it was told, then hangs up, or never does. drip: seconds a byte."""

    def __init__(self) -> None:
        self.answer, self.drip = b"", 0.0
        self._place = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._place.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._place.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(peer,), daemon=True).start()

    def _one(self, peer: socket.socket) -> None:
        with peer:
            try:
                peer.settimeout(5)
                peer.recv(1 << 16)
                for at in range(0, len(self.answer), 1 if self.drip else 1 << 20):
                    peer.sendall(self.answer[at : at + (1 if self.drip else 1 << 20)])
                    time.sleep(self.drip)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass
            except OSError:
                pass

    def close(self) -> None:
        self._place.close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


def answers(rng: random.Random) -> bytes:
    """HTTP, more or less: JSON that a broker might say, and headers that it would not."""
    key = new_key()
    bodies = [
        json.dumps(changed({"nonce": base64.b64encode(bytes(32)).decode(), "extra-params": {}}, rng)).encode(),
        json.dumps(changed({"token": "a.b.c", "protected": b64(b'{"alg": "none"}'), "iv": "", "tag": ""}, rng)).encode(),
        json.dumps({"type": "x", "detail": rng.choice(["no\nno", "\x1b[2J", "x" * 9000, None, ["a"]])}).encode(),
        b"[" * 100_000, b"", rng.randbytes(300), b'{"nonce": NaN, "nonce": 1e999}',
    ]  # fmt: skip
    body = rng.choice(bodies)
    status = rng.choice([200, 200, 200, 401, 403, 500, 100, 204, 302, 999, "abc", "0", -1, "200 " + "x" * 70_000])
    lines = [f"HTTP/1.{rng.choice([0, 1, 1, 9])} {status} \u00e9"]
    lengths = [len(body), len(body), len(body) + 5, len(body) - 1, -1, "9" * 5000, "\u0663", "1e3"]
    extra = [
        f"Content-Length: {rng.choice(lengths)}", "Transfer-Encoding: chunked", "Location: ftp://127.0.0.1:9/x",
            "Location: file:///etc/passwd",
        "Set-Cookie: kbs-session-id=" + "x" * rng.choice([3, 5000]), 'Set-Cookie: kbs-session-id="\\"; a=\u00ff',
            f"labelwright-signature: {b64(rng.randbytes(64))}",
        "no colon", ": empty", "X: " + "y" * rng.choice([9, 66_000]), "labelwright-signature: \u00e9", "Content-Encoding: gzip",
            *["X: y"] * 3,
    ]  # fmt: skip
    lines += rng.sample(extra, rng.randrange(6))
    text = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
    del key
    return noisy(text, rng) if rng.random() < 0.3 else text


def asked(server: Hostile, seed: bytes) -> None:
    """The host's way to a broker, the client that attests, and the host's way to an expert, all answered by the same server."""
    rng = random.Random(seed)
    server.answer = answers(rng)
    pinned = jwk_of(new_key())
    with alarm(10):
        begun = time.perf_counter()
        for pin in (pinned, None):
            with pytest.raises(TrustError) as raised:
                client = Client(http_send(server.url, timeout=1), pin)
                client.keys(lambda data: collect("sim", data), bytes(32), ["default/key/rows"])
            assert len(str(raised.value)) < 1500
        try:
            content = _post(server.url + "/")(b"a question")
        except TrustError as error:
            assert 20 < len(str(error)) < 2500 and "\n" not in str(error)
        else:
            assert content in server.answer or b"chunked" in server.answer
        assert time.perf_counter() - begun < 4


def test_no_answer_of_a_server_is_a_traceback_a_hang_or_a_key(hostile: Hostile) -> None:
    settings(max_examples=QUICK * 2, **SETTINGS)(given(SEEDS)(lambda seed: asked(hostile, seed)))()


@pytest.mark.soak
def test_no_answer_of_a_server_is_a_traceback_for_long(hostile: Hostile) -> None:
    start = time.perf_counter()
    settings(max_examples=LONG, **SETTINGS)(given(SEEDS)(lambda seed: asked(hostile, seed)))()
    print(f"\nanswers of a server: {LONG:,} inputs in {time.perf_counter() - start:.0f} s")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 100 Continue\r\n\r\n" * 200, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b" " * 900,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90],
)  # fmt: skip
def test_a_server_that_never_ends_is_given_up(hostile: Hostile, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole never."""
    from labelwright.cli import trust_run

    hostile.answer, hostile.drip = answer, 0.05
    monkeypatch.setattr(trust_run, "EXPERT_SECONDS", 0.5)
    begun = time.perf_counter()
    for ask in (lambda: http_send(hostile.url, timeout=0.5)("GET", "/", {}, b""), lambda: _post(hostile.url)(b"q")):
        with alarm(20), pytest.raises(TrustError, match=r"within 0\.5 s"):
            ask()
    assert time.perf_counter() - begun < 4
