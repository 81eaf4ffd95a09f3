"""trust seal, unseal, keys and broker, as a user types them."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("cryptography")

from helpers import call_cli, write_reviews

from labelwright.cli import trust_seal
from labelwright.cli.trust import trust
from labelwright.trust import seal
from labelwright.trust.broker import keyfolder

WORDS = "horse battery"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(trust_seal.VARIABLE, WORDS)
    monkeypatch.setattr(keyfolder, "SCRYPT", {"n": 1 << 8, "r": 8, "p": 1})
    write_reviews(tmp_path / "reviews.csv", 300)
    return tmp_path


def done(*arguments: object) -> dict[str, object]:
    ran = call_cli("trust", *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def refused(*arguments: object) -> str:
    ran = call_cli("trust", *arguments)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def test_rows_go_in_and_come_out(here: Path) -> None:
    told = done(
        "seal", "reviews.csv", "sealed", "--label", "label", "--id", "rid", "--drop", "true", "--chunk-mb", "0.01"
    )
    assert told["rows"] == 300 and told["version"] == 1 and told["chunks"] > 3  # type: ignore[operator]
    files = b"".join(file.read_bytes() for file in (here / "sealed").iterdir())
    assert b"r17\0\0\0" not in files and b'"meh"' not in files  # short enough words appear by chance
    out = done("unseal", "sealed", "out.parquet")
    table = pq.read_table("out.parquet")
    rows = [line.split(",") for line in (here / "reviews.csv").read_text().splitlines()[1:]]
    assert out["rows"] == 300 and table["id"].to_pylist() == [r[0] for r in rows]
    assert table["label"].to_pylist() == [r[4] for r in rows]
    assert len(set(table["key"].to_pylist())) == 300 and len(table["x"][0].as_py()) > 3
    assert {stat.S_IMODE(f.stat().st_mode) for f in (here / "keys").iterdir()} == {0o600}


def test_sealing_again_is_a_new_version_and_the_old_one_is_refused(here: Path) -> None:
    done("seal", "reviews.csv", "old", "--name", "r")
    assert done("seal", "reviews.csv", "new", "--name", "r")["version"] == 2
    assert "rolled back: got version 1, expected 2" in refused("unseal", "old", "out.parquet")
    assert done("unseal", "new", "out.parquet")["version"] == 2 and done("keys")["versions"] == {"r": 2}


def test_a_bent_store_is_refused_by_chunk(here: Path) -> None:
    done("seal", "reviews.csv", "sealed", "--chunk-mb", "0.01")
    one, two = here / "sealed/v1-00000001.chunk", here / "sealed/v1-00000002.chunk"
    good = one.read_bytes(), two.read_bytes()
    one.write_bytes(good[1])
    assert "chunk 1 of 'reviews' version 1 is not the one that was sealed" in refused("unseal", "sealed", "out.parquet")
    assert not (here / "out.parquet").exists()  # nothing of it was written
    one.unlink()
    assert "it was dropped" in refused("unseal", "sealed", "out.csv")
    (here / "sealed" / seal.NAME).write_bytes(b"a.b.c")
    assert "the manifest" in refused("unseal", "sealed", "out.csv")
    assert "there is no manifest.jws in nowhere" in refused("unseal", "nowhere", "out.csv")


def test_pictures_are_sealed_as_whole_numbers(here: Path) -> None:
    from PIL import Image

    for at in range(6):
        (here / f"pets/{'cat' if at % 2 else 'dog'}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), at * 40, np.uint8)).save(here / f"pets/{'cat' if at % 2 else 'dog'}/{at}.png")
    told = done("seal", "pets", "memory://pets", "--id", "path")
    assert told["rows"] == 6
    done("unseal", "memory://pets", "out.parquet")
    table = pq.read_table("out.parquet")
    shades = {
        int(i.split("/")[1][0]): round(x[0] * 255) for i, x in zip(table["id"].to_pylist(), table["x"].to_pylist())
    }
    assert shades == {at: at * 40 for at in range(6)}


def test_models_and_secrets(here: Path) -> None:
    content = (2).to_bytes(8, "little") + b"{}" + bytes(range(256)) * 20
    (here / "m.safetensors").write_bytes(content)
    assert done("seal", "m.safetensors", "model", "--model", "--chunk-mb", "0.001")["chunks"] == 5
    done("unseal", "model", "back.safetensors")
    assert (here / "back.safetensors").read_bytes() == content
    told = done("keys", "--new-model", "learned", "--put", "default/token/api", "--file", "m.safetensors")
    assert {"default/signing-key/learned", "default/token/api", "default/key/m"} <= set(told["names"])  # type: ignore[call-overload]
    assert done("seal", "m.safetensors", "start", "--model", "--name", "learned")["version"] == 1
    assert done("unseal", "start", "again")["id"] == "learned"  # signed by the key that the learner will have
    done("seal", "reviews.csv", "sealed", "--name", "mine")
    assert "sealed by its owner" in refused("keys", "--new-model", "mine")
    (here / "m.pkl").write_bytes(b"\x80\x04K\x01.")
    assert "pickle" in refused("seal", "m.pkl", "model", "--model")


def test_passphrases(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done("seal", "reviews.csv", "sealed", "--passphrase-file", "words", "--keys", "k2")
    assert stat.S_IMODE((here / "words").stat().st_mode) == 0o600 and len((here / "words").read_text()) > 40
    assert "passphrase is not the one of k2" in refused("unseal", "sealed", "o.csv", "--keys", "k2")
    done("unseal", "sealed", "o.csv", "--keys", "k2", "--passphrase-file", "words")
    (here / "words").chmod(0o644)
    assert "chmod 600 words" in refused("keys", "--keys", "k2", "--passphrase-file", "words")
    monkeypatch.setattr(sys, "stdin", io.StringIO((here / "words").read_text()))
    assert done("keys", "--keys", "k2", "--passphrase-file", "-")["versions"] == {"reviews": 1}
    assert "no file nowhere" in refused("keys", "--keys", "k2", "--passphrase-file", "nowhere")
    monkeypatch.setenv(trust_seal.VARIABLE, "\udcff\udcfe")  # bytes that are no UTF-8, as a shell may hand them on
    assert "passphrase is not the one of k2" in refused("keys", "--keys", "k2")
    done("seal", "reviews.csv", "sealed", "--keys", "k3")
    for bent in ('{"n": 1e999, "r": 8, "p": 1, "salt": ""}', "[" * 99_999, "[]", ""):
        (here / "k3" / "wrapping.json").write_text(bent)
        assert "wrapping.json is damaged; restore it" in refused("keys", "--keys", "k3")
    monkeypatch.delenv(trust_seal.VARIABLE)
    assert f"set {trust_seal.VARIABLE}" in refused("seal", "reviews.csv", "sealed")
    assert "no keys in none" in refused("unseal", "sealed", "o.csv", "--keys", "none")


def test_bad_input(here: Path) -> None:
    assert "no file or folder nowhere" in refused("seal", "nowhere", "sealed")
    assert "'nope'" in refused("seal", "reviews.csv", "sealed", "--label", "nope")
    assert "none of a secret" in refused("seal", "reviews.csv", "sealed", "--name", "a/b")
    assert "no store that can be opened" in refused("seal", "reviews.csv", "nosuch://x")
    (here / "odd.csv").write_text("f,label\n1,a\n2,b\n3,\n4,a\n")
    assert done("seal", "odd.csv", "sealed")["set_aside"] == 1
    assert "no label" in refused("seal", "odd.csv", "sealed", "--strict")
    assert "belong together" in refused("keys", "--put", "a/b/c")


def test_a_sealed_thing_is_not_lost_to_another_in_its_place(here: Path) -> None:
    done("seal", "reviews.csv", "sealed")
    before = {path.name: path.read_bytes() for path in (here / "sealed").iterdir()}
    assert "holds the sealed 'reviews', which would be lost" in refused("seal", "reviews.csv", "sealed", "--name", "b")
    assert before == {path.name: path.read_bytes() for path in (here / "sealed").iterdir()}
    done("seal", "reviews.csv", "elsewhere", "--name", "b")
    (here / "sealed" / seal.NAME).write_text("bent")
    done("seal", "reviews.csv", "sealed", "--name", "b")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_store_that_holds_no_regular_file_is_refused_at_once(here: Path, kind: str) -> None:
    done("seal", "reviews.csv", "sealed")
    for name in (seal.NAME, "v1-00000000.chunk"):
        path = here / "sealed" / name
        content = path.read_bytes()
        path.unlink()
        {"pipe": os.mkfifo, "device": lambda at: at.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
        assert f"{name} cannot be read (it is no regular file)" in refused("unseal", "sealed", "o.csv")
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(content)


def test_every_command_has_an_example_that_parses() -> None:
    from typer.main import get_command

    commands = get_command(trust).commands  # type: ignore[attr-defined]
    for name in commands:
        example = re.search(r"Example: labelwright trust (\S+)([^\n]*)", commands[name].epilog or "")
        assert example and example.group(1) == name
        commands[name].make_context(name, shlex.split(example.group(2)))
        assert {p.name for p in commands[name].params} & {"json"}


def test_the_broker_does_not_say_that_it_listens_with_no_certificate(here: Path) -> None:
    done("seal", "reviews.csv", "sealed")
    (here / "policy.toml").write_text('kinds = ["sim"]\nsim = true\naccept = ["warning"]')
    ran = call_cli(
        "trust", "broker", "--policy", "policy.toml", "--port", 0, "--certificate", "reviews.csv", "--key", "none"
    )
    assert ran.returncode == 2 and ran.stdout == "" and ran.stderr.count("\n") == 1
    assert "no certificate and its key" in ran.stderr


def test_the_broker_serves(here: Path) -> None:
    from labelwright.trust.attester import collect
    from labelwright.trust.broker import Client, http_send

    done("seal", "reviews.csv", "sealed")
    (here / "policy.toml").write_text('kinds = ["sim"]\nsim = true\naccept = ["affirming", "warning"]\n')
    command = [
        sys.executable,
        "-c",
        "from labelwright.cli import main; main()",
        "trust",
        "broker",
        "--policy",
        "policy.toml",
    ]
    process = subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        names = ["default/key/reviews", "default/signer/reviews", "default/version/reviews"]
        got = Client(http_send(said["url"]), said["broker"]).keys(lambda data: collect("sim", data), bytes(32), names)
    finally:
        process.kill()
        process.wait()
    newest = json.loads(got["default/version/reviews"])
    store = seal.as_store("sealed")
    manifest = seal.Manifest.read(
        store.read(seal.NAME) or b"", json.loads(got["default/signer/reviews"]), version=newest["version"]
    )
    assert manifest.digest.hex() == newest["digest"]
    first = seal.open_chunk(manifest, got["default/key/reviews"], 0, store.read(manifest.chunk(0)))
    assert len(first["X"]) == 300 and seal.about(manifest, got["default/key/reviews"])["classes"] == [
        "bad",
        "good",
        "meh",
    ]


@pytest.mark.parametrize(
    "words",
    [
        "nowhere sealed",
        "nowhere sealed --model",
        "reviews.csv sealed --label nope",
        "reviews.csv sealed --name a/b",
        "reviews.csv reviews.csv/sealed",
        "reviews.csv nosuch://x",
        "odd.csv sealed/deep --strict --passphrase-file words",
        "m.pkl sealed --model",
        "reviews.csv sealed --like nowhere",
    ],
)
def test_a_seal_that_fails_leaves_nothing_behind(here: Path, words: str) -> None:
    (here / "odd.csv").write_text("f,label\n1,a\n2,b\n3,\n4,a\n")
    (here / "m.pkl").write_bytes(b"\x80\x04K\x01.")
    before = {path.name for path in here.iterdir()}
    refused("seal", *words.split())
    assert {path.name for path in here.iterdir()} == before
    done("seal", "reviews.csv", "good", "--name", "good")
    names = sorted(path.name for path in (here / "keys").iterdir())
    refused("seal", *words.replace("--passphrase-file words", "").split())
    assert sorted(path.name for path in (here / "keys").iterdir()) == names and not (here / "sealed").exists()


def test_rows_are_not_sealed_as_what_a_learner_seals(here: Path) -> None:
    done("keys", "--new-model", "learned")
    assert "is what a learner seals" in refused("seal", "reviews.csv", "sealed", "--name", "learned")
    assert not (here / "sealed").exists() and "default/signing-key/learned" in str(done("keys")["names"])
