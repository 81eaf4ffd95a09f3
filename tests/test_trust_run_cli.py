"""``labelwright trust run | report | render`` as their users meet them, and the whole path with a software TPM."""

from __future__ import annotations

import base64
import csv
import json
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import call_cli
from sklearn.linear_model import LogisticRegression
from soft_tpm import software_tpm
from test_trust_run import broker_url, toml  # noqa: F401  (a fixture)
from trust_run_help import Estate, blobs

from labelwright.errors import TrustError
from labelwright.trust import tier
from labelwright.trust.seal import jwk_of
from labelwright.trust.workload import EXAMPLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is for Linux")
N = 300
TPM = 'kinds = ["tpm"]\naccept = ["affirming", "warning"]\nworkloads = ["{digest}"]\n[tpm]\n'


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    made = Estate(tmp_path)
    X, _, given = blobs(N)
    made.seal([{"X": X, "given": given, "keys": np.arange(N)}], rows=100)
    model = tier.write(tier.of_estimator(LogisticRegression().fit(X, given)))
    for id in ("quality", "classifier"):
        made.seal_model(id, model)
    return made


def on_disk(estate: Estate, mode: str, url: str, **host: str) -> Path:
    """A workload's file beside the host's stores."""
    workload = estate.workload(mode, host={"data": "rows", "models": ".", "broker": url, **host})
    path = estate.store / "workload.toml"
    path.write_text(toml(workload))
    return path


def test_run_and_report(estate: Estate, broker_url: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    url = broker_url(estate.broker(estate.workload("judge")))
    path, results = on_disk(estate, "judge", url), estate.folder / "results"
    done = call_cli("trust", "run", path, "--output", results)
    assert done.returncode == 0, done.stderr
    assert (
        "isolation: none (sim evidence): root on the host can read" in done.stdout
        and "300 rows in 3 batches" in done.stdout
    )
    told = json.loads(call_cli("trust", "run", path, "--output", results, "--json").stdout)
    assert told["isolation"] == "none" and told["peak_bytes"] < 64 << 20 and told["sealed_results"][0]["version"] == 2
    monkeypatch.setenv("LABELWRIGHT_KEYS_PASSPHRASE", "a passphrase for the tests")
    ledger, table = results / "decided", estate.folder / "decisions.csv"
    asked = [
        "trust",
        "report",
        results / "report.jws",
        "--keys",
        estate.keys.path,
        "--ledger",
        ledger,
        "--output",
        table,
    ]
    done = call_cli(*asked)
    assert done.returncode == 0, done.stderr
    assert "its 3 entries are those of the sealed ledger" in done.stdout and "isolation: none" in done.stdout
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N and {row["verdict"] for row in rows} == {"trusted", "rejected"}
    broker = json.dumps(jwk_of(estate.keys.broker_key))
    done = call_cli("trust", "report", results / "report.jws", "--broker", broker, "--at", "2030-01-01T00:00:00+00:00")
    assert done.returncode == 2 and "time is over" in done.stderr
    assert (
        json.loads(call_cli("trust", "report", results / "report.jws", "--broker", broker, "--json").stdout)["rows"]
        == N
    )


def test_what_goes_wrong_is_one_sentence(estate: Estate, tmp_path: Path, broker_url: Any) -> None:  # noqa: F811
    url = broker_url(estate.broker(estate.workload("judge")))
    path = on_disk(estate, "judge", url)
    (tmp_path / "bad.jws").write_text("x")
    deep = base64.urlsafe_b64encode(b"[" * 99_999).decode()
    (tmp_path / "deep.jws").write_text(f"a.{deep}.c")
    for arguments, sentence in [
        (["run", tmp_path / "none.toml"], "cannot be read"),
        (["run", on_disk(estate, "predict", url, models="")], "has no manifest|not one of the policy's"),
        (["report", tmp_path / "bad.jws", "--broker", "{}"], "no report"),
        (["report", tmp_path / "bad.jws"], "give --broker"),
        (["report", tmp_path / "bad.jws", "--broker", "["], "no public key"),
        (["report", tmp_path / "bad.jws", "--broker", "[" * 100_000], "no public key"),
        (["report", tmp_path / "deep.jws", "--broker", "{}"], "no report"),
        (["report", tmp_path / "bad.jws", "--broker", "{}", "--at", "noon"], "expected a time"),
        (["report", tmp_path / "bad.jws", "--broker", "{}", "--at", "9999-12-31T23:59:59-23:00"], "expected a time"),
        (["workload", tmp_path / "w.toml", "--mode", "qal", "--data", "x", "--expert", "[" * 100_000], "no public key"),
        (["workload", tmp_path / "w.toml", "--mode", "qal", "--data", "x", "--expert", '{"kty": 5}'], "no public key"),
        (["render"], "no workload to render"),
        (["render", path, "--kind", "trustzone"], "cannot be rendered"),
        (["render", "--lint", tmp_path / "none"], "cannot be read"),
    ]:
        done = call_cli("trust", *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert any(part in done.stderr for part in sentence.split("|")), done.stderr
    for broker, sentence in [("http://127.0.0.1:9", "cannot be reached"), ("http://[", "no broker's address")]:
        path.write_text(path.read_text().replace(url, broker))
        done, url = call_cli("trust", "run", path, "--json"), broker
        assert done.returncode == 2 and sentence in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("output", ["memory://x", "s3://bucket/x", "taken", "taken/below", "/proc/none"])
def test_results_that_cannot_be_written_are_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("labelwright.trust.host.Host.run", None)
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "w.toml").write_text(EXAMPLE)
    done = call_cli("trust", "run", "w.toml", "--output", output)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and output.split("://")[0] in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "w.toml"]


@pytest.mark.parametrize(
    "words",
    [
        "run w.toml --patience inf",
        "run w.toml --patience 1e300",
        "seal r.csv s --chunk-mb inf",
        "broker --policy p --rate inf",
    ],
)
def test_numbers_without_an_end_are_refused(words: str) -> None:
    done = call_cli("trust", *words.split())
    assert done.returncode == 2 and "Invalid value for '--" in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\na\nb",
        b"",
    ],
)
def test_whatever_answers_at_an_address_is_told_in_one_sentence(answer: bytes) -> None:
    from labelwright.cli.trust_run import _post
    from labelwright.trust.broker import http_send

    def once() -> None:
        for _ in range(2):
            peer, _address = place.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as place:
        threading.Thread(target=once, daemon=True).start()
        url = f"http://127.0.0.1:{place.getsockname()[1]}/"
        with pytest.raises(TrustError) as raised:
            _post(url)(b"a question")
        assert "\n" not in str(raised.value) and url in str(raised.value)
        try:
            http_send(url)("GET", "/", {}, b"")
        except TrustError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc/", "http://[", "http://a b/"])
def test_an_experts_address_that_is_none_is_told_in_one_sentence(url: str) -> None:
    from labelwright.cli.trust_run import _post

    with pytest.raises(TrustError, match="did not answer"):
        _post(url)(b"a question")


def test_render_and_lint(tmp_path: Path) -> None:
    path, manifest = tmp_path / "workload.toml", tmp_path / "m.manifest"
    path.write_text(EXAMPLE)
    done = call_cli("trust", "render", path)
    assert done.returncode == 0 and "sgx.trusted_files" in done.stdout
    manifest.write_text(done.stdout)
    assert call_cli("trust", "render", "--lint", manifest).returncode == 0
    manifest.write_text(done.stdout.replace("sgx.debug = false", "sgx.debug = true"))
    done = call_cli("trust", "render", "--lint", manifest, "--json")
    assert done.returncode == 1 and "sgx.debug = true" in json.loads(done.stdout)["findings"][0]
    assert (
        json.loads(json.loads(call_cli("trust", "render", path, "--kind", "sandbox", "--json").stdout)["text"])["files"]
        == []
    )


# ------------------------------------------------------------ an expert


def test_an_expert_of_the_command_line(estate: Estate, tmp_path: Path) -> None:
    key = tmp_path / "expert.pem"
    done = call_cli("trust", "expert", "--key", key)
    assert (
        done.returncode == 0 and done.stdout.startswith("[expert]\nkey = { crv = ") and key.stat().st_mode & 0o077 == 0
    )
    assert json.loads(call_cli("trust", "expert", "--key", key, "--json").stdout)["key"]["kty"] == "EC"
    path = on_disk(estate, "qal", "http://127.0.0.1:9")
    done = call_cli("trust", "expert", path, "--key", key)
    assert done.returncode == 2 and "names another expert than" in done.stderr
    key.chmod(0o644)
    assert "others can read" in call_cli("trust", "expert", "--key", key).stderr
    key.chmod(0o600)
    key.write_text("no key")
    assert "holds no private key" in call_cli("trust", "expert", "--key", key).stderr


def test_a_person_and_a_table_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from labelwright.cli.trust_expert import _person
    from labelwright.errors import SettingsError
    from labelwright.trust.answering import Answers

    table = tmp_path / "rows.csv"
    table.write_text("row,text,label\na,fine,good\nb,,\nc,ugh,ugly\n")
    ids = np.zeros((4, 32), np.uint8)
    ids[:, 0] = [ord(letter) for letter in "abcd"]
    question = {"id": ids, "given": np.array([0, 1, 1, 1]), "keys": np.arange(4)}
    named = question | {"classes": np.frombuffer(b'["bad", "good"]', np.uint8)}
    assert Answers.read(table, "row", "label")(named).tolist() == [1, -1, -1, -1]  # empty, no class, not there
    with pytest.raises(SettingsError, match="has no column 'id'"):
        Answers.read(table, "id", "label")
    said = iter(["goood", "good", "", "bad", "bad"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    assert _person(named, Answers.read(table, "row", None)).tolist() == [1, -1, 0, 0]
    assert "row a, labelled bad\n  row: a\n  text: fine" in capsys.readouterr().out


def test_a_workload_is_drafted_checked_and_not_overwritten(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELWRIGHT_KEYS_PASSPHRASE", "a passphrase for the tests")
    path, keys = on_disk(estate, "judge", "http://127.0.0.1:9"), estate.keys.path
    told = json.loads(call_cli("trust", "workload", path, "--json").stdout)
    assert told == {"digest": estate.workload("judge").digest.hex(), "mode": "judge", "code_is_here": True}
    for arguments, sentence in [
        ([path, "--mode", "judge"], "exists; name another file"),
        ([tmp_path / "w.toml", "--mode", "judge"], "name their folder or address with --data"),
        ([tmp_path / "w.toml", "--mode", "judge", "--data", estate.store / "rows", "--keys", keys], "without classes"),
        ([tmp_path / "w.toml", "--mode", "qal", "--data", "x", "--expert", "[", "--keys", keys], "no public key"),
    ]:
        done = call_cli("trust", "workload", *arguments)
        assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr
    path.write_text(path.read_text() + '\n[learn]\nepochs = "many"\n')
    assert "epochs = 'many' in [learn]; expected a whole number" in call_cli("trust", "workload", path).stderr


# ------------------------------------------------------------ a software TPM


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[tuple[str, Path, str]]:
    """(how to reach it, the folder of its enrolled quoting key, the policy's lines about it)."""
    place = tmp_path / "swtpm"
    with software_tpm(place) as tcti:
        yield tcti, place / "keys", enrolled(place, tcti)


def enrolled(place: Path, tcti: str) -> str:
    """Enrol the software TPM's quoting key with a CA of the test's own; the policy that trusts both."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from labelwright.trust.attester.tpm import Tpm
    from labelwright.trust.policy import Policy
    from labelwright.trust.verify import enrol
    from labelwright.trust.verify.chain import pem_certificates

    at = datetime.now(UTC)
    ca, key = enrol.make_ca("tests", now=at)
    root = (place / "ca" / "swtpm-localca-rootca-cert.pem").read_text()
    middle = pem_certificates((place / "ca" / "issuercert.pem").read_bytes())[0].public_bytes(Encoding.DER)
    lines = f'enrolment_roots = ["""{ca.public_bytes(Encoding.PEM).decode()}"""]\ntest_roots = ["""{root}"""]\n'
    tpm, policy = (
        Tpm(place / "keys", tcti=tcti),
        Policy.from_toml(TPM.replace('workloads = ["{digest}"]\n', "") + lines),
    )
    ek = tpm.ek_certificate()
    begun = enrol.challenge(ek, (middle,), tpm.create(), policy, now=at)
    cert = enrol.certify(begun, tpm.activate(begun.credential), ca, key, now=at)
    for name, der in (("ak", cert), ("ek", ek), ("ek-chain-0", middle)):
        (tpm.folder / f"{name}.der").write_bytes(der)
    return TPM + lines
