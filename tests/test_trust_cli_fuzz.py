"""The commands on bent files, by the hundred: one sentence or an honest answer, within 2 s, without a traceback, a row or a key."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("cryptography")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trust_fuzz_help import NONCE, WORDS, Scene, bent, built_once, copied, looked_at, put_in_place, slowest

from labelwright.cli import trust_seal
from labelwright.errors import TrustError
from labelwright.trust.host import Host
from labelwright.trust.seal import NAME
from labelwright.trust.wire import Message, WireError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
COMMANDS = built_once()
QUICK, LONG = 400, int(os.environ.get("LABELWRIGHT_FUZZ", "8000"))
HOWS = ["bytes", "bytes", "structure", "structure", "structure", "deep", "place"]
KEYS = [
    "keys/wrapping.json",
    "keys/_owner.wrapped",
    "keys/_broker.wrapped",
    "keys/lock",
    "keys/default~key~rows.wrapped",
]
BOUND = f"--nonce {NONCE.hex()} --key tee.jwk --workload DIGEST"
ATTACKS: list[tuple[str, list[str]]] = [
    (
        f"verify evidence.json --policy policy.toml {BOUND} --signing-key key.pem --token t.jwt --json",
        ["evidence.json", "policy.toml", "tee.jwk", "key.pem"],
    ),
    ("verify tpm.json --policy tpm.toml --cert ca.pem", ["tpm.json", "tpm.toml", "ca.pem"]),
    ("verify tee.jwk --policy tpm.toml --kind tpm --cert ca.pem --collateral tpm.json", ["tee.jwk", "tpm.json", "tpm.toml"]),
    ("policy policy.toml", ["policy.toml"]),
    ("policy tpm.toml --json", ["tpm.toml", "ca.pem"]),
    ("policy new.toml --from evidence.json", ["evidence.json"]),
    ("policy new.toml --from tpm.json --cert ca.pem", ["tpm.json", "ca.pem"]),
    ("unseal host/rows out.csv --keys keys", ["host/rows/" + NAME, "host/rows/v1-00000001.chunk",
        "keys/default~version~rows.wrapped", *KEYS]),
    ("unseal host/quality out.bin --keys keys", ["host/quality/" + NAME, "host/quality/v1-00000000.chunk",
        "keys/default~signer~quality.wrapped"]),
    ("unseal host/decided out.bin --keys keys", ["host/decided/" + NAME]),
    (
        "report report.jws --keys keys --ledger host/decided --output d.csv",
        ["report.jws", "host/decided/" + NAME, "host/decided/v1-00000001.chunk", *KEYS],
    ),
    ("report report.jws --broker BROKER --json", ["report.jws"]),
    ("render workload.toml --kind vm", ["workload.toml"]),
    ("render workload.toml --kind gramine --json", ["workload.toml"]),
    ("render --lint gramine.manifest", ["gramine.manifest"]),
    ("keys --keys keys", KEYS),
    ("workload workload.toml", ["workload.toml"]),
    ("expert --key key.pem", ["key.pem"]),
    ("run workload.toml --output results", ["workload.toml", "workload.toml", "tee.jwk", "ca.pem", "host/rows/" + NAME,
        "host/rows/v1-00000000.chunk"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("bent"))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(trust_seal.VARIABLE, WORDS)
    monkeypatch.setattr(Host, "run", asked)
    monkeypatch.setattr(sys.modules["labelwright.cli.app"], "app", COMMANDS)
    yield


def asked(host: Host, workload: Any) -> Any:
    """In place of a learner, which takes seconds to start: what it would ask of its host first, and that the host goes on."""
    questions = [("collect", {"data": "00" * 64}), ("relay", {"method": "POST", "path": "/kbs/v0/auth", "headers": {}})]
    for id, name in itertools.product(
        [workload.table("data")["id"], *workload.table("models").values()], (NAME, "v1-00000000.chunk")
    ):
        questions.append(("chunk", {"id": id, "name": name}))
    questions += [("put", {"id": id, "name": NAME}) for id in workload.table("result").values()]
    said = []
    for kind, fields in questions:
        try:
            host.handlers[kind](Message(kind, fields, b"{}"))
        except WireError:
            raise
        except TrustError as error:
            said.append(str(error))
    raise TrustError(said[-1] if said else "the learner that stands in for one has asked everything")


def words(line: str, scene: Scene) -> list[str]:
    """A command's arguments."""
    from labelwright.trust.seal import jwk_of

    known = {"DIGEST": scene.workload.digest.hex(), "BROKER": json.dumps(jwk_of(scene.estate.keys.broker_key))}
    return [known.get(word, word) for word in line.split()]


def attacked(scene: Scene, place: Path, line: str, name: str, how: str, seed: bytes) -> int:
    """Bend one file and run the command. What was written is what the good file gives, or nothing."""
    with copied(scene.good, place) as here:
        bent(here / name, how, random.Random(seed))
        done = looked_at(words(line, scene), scene.secrets)
        for output in ("out.csv", "out.bin", "d.csv"):
            if output in line and (here / output).exists():
                assert (here / output).read_bytes() == good_output(scene, line, output), (
                    "another output than the good one"
                )
        return int(done.returncode)


_outputs: dict[str, bytes] = {}


def good_output(scene: Scene, line: str, name: str) -> bytes:
    if line not in _outputs:
        with copied(scene.good, scene.good.parent / "sound") as here:
            looked_at(words(line, scene), scene.secrets)
            _outputs[line] = (here / name).read_bytes()
    return _outputs[line]


def campaign(scene: Scene, place: Path, examples: int) -> Counter[int]:
    """Bend every file in every way; how often a command ended with which code."""
    seen: Counter[int] = Counter()
    pairs = [(line, name) for line, names in ATTACKS for name in names]

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(pairs), st.sampled_from(HOWS), st.binary(min_size=6, max_size=6))
    def attack(pair: tuple[str, str], how: str, seed: bytes) -> None:
        seen[attacked(scene, place, *pair, how, seed)] += 1

    attack()
    return seen


def test_sound_files_are_accepted(scene: Scene, tmp_path: Path) -> None:
    codes = {}
    for number, (line, _) in enumerate(ATTACKS):
        with copied(scene.good, tmp_path / str(number)):
            codes[line.split(" --")[0]] = looked_at(words(line, scene), scene.secrets).returncode
    refused = {line for line, code in codes.items() if code == 2}
    assert refused == {"verify tee.jwk", "unseal host/decided out.bin", "run workload.toml"}
    assert codes["verify tpm.json"] == 1 and codes["report report.jws"] == 0


def test_bent_files_are_told_in_one_sentence(scene: Scene, tmp_path: Path) -> None:
    seen = campaign(scene, tmp_path / "copy", QUICK)
    assert sum(seen.values()) >= QUICK and seen[2] > QUICK // 2


@pytest.mark.parametrize("how", ["pipe", "loop", "device", "folder", "socket", "endless"])
@pytest.mark.parametrize("line", [line for line, _ in ATTACKS if "tpm.toml" not in line])
def test_what_is_no_file_keeps_nobody_waiting(scene: Scene, tmp_path: Path, line: str, how: str) -> None:
    """Found by the above: a pipe in the place of a policy, a workload, evidence, a key or a report was waited for without end."""
    with copied(scene.good, tmp_path / "copy") as here:
        put_in_place(here / dict(ATTACKS)[line][0], how)
        made_anew = line.startswith("expert") and how == "loop"  # as where there is no key yet
        assert looked_at(words(line, scene), scene.secrets).returncode == (0 if made_anew else 2)


@pytest.mark.parametrize(
    "text",
    [".".join("a" * 100_000) + " = 1", "".join(f"k{i}{'.a' * 999} = 1\n" for i in range(120)), f"[workload]\nname = '{'x' * 9000}'",
     '[host]\ndata = "a\\nb\\u001b[2J"', '[host]\ncerts = "\\u0000"'],
)  # fmt: skip
def test_odd_toml_is_one_short_sentence(scene: Scene, tmp_path: Path, text: str) -> None:
    with copied(scene.good, tmp_path / "copy") as here:
        good = (here / "workload.toml").read_text()
        (here / "workload.toml").write_text(good.replace("[host]", text) if "[host]" in text else text)
        assert looked_at(["run", "workload.toml"], scene.secrets).returncode == 2


def test_a_wrapping_key_that_takes_minutes_is_refused(scene: Scene, tmp_path: Path) -> None:
    with copied(scene.good, tmp_path / "copy") as here:
        told = json.loads((here / "keys" / "wrapping.json").read_text())
        (here / "keys" / "wrapping.json").write_text(json.dumps(told | {"n": 1 << 20, "r": 32, "p": 16}))
        assert "is damaged" in looked_at(["keys", "--keys", "keys"], scene.secrets).stderr


@pytest.mark.soak
def test_bent_files_are_told_in_one_sentence_for_long(scene: Scene, tmp_path: Path) -> None:
    start = time.perf_counter()
    seen = campaign(scene, tmp_path / "copy", LONG)
    print(
        f"\ncommands: {sum(seen.values()):,} inputs in {time.perf_counter() - start:.0f} s: {dict(seen)}; slowest {slowest}"
    )
