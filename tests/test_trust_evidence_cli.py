"""trust attest, verify, policy, enrol and doctor as a user meets them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from helpers import call_cli
from trust_vendors import FROZEN, folder

from labelwright.trust import ear
from labelwright.trust.attester.probe import probe
from labelwright.trust.policy import Policy

ZEROS = "00" * 64
SIM = 'kinds = ["sim"]\nsim = true\naccept = ["affirming", "warning"]\n'


def told(*arguments: object, code: int = 0) -> dict[str, object]:
    done = call_cli("trust", *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    return dict(found) if isinstance(found, dict) else {"rows": found}


def key_files(place: Path) -> tuple[Path, Path, ec.EllipticCurvePrivateKey]:
    """(signing key in PEM, ephemeral public key as JWK, the signing key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    (place / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    numbers = key.public_key().public_numbers()
    axes = {axis: ear._b64(getattr(numbers, axis).to_bytes(32, "big")) for axis in ("x", "y")}
    (place / "tee.jwk").write_text(json.dumps({"kty": "EC", "crv": "P-256", **axes}))
    return place / "key.pem", place / "tee.jwk", key


def test_attest_and_verify_with_a_signed_verdict(tmp_path: Path) -> None:
    pem, jwk, key = key_files(tmp_path)
    (tmp_path / "p.toml").write_text(SIM + f'workloads = ["{"ab" * 32}"]')
    bound = ("--nonce", "11" * 32, "--key", jwk, "--workload", "ab" * 32)
    assert told("attest", "--kind", "sim", *bound, "--output", tmp_path / "e.json")["isolation"] == "none"
    signed = ("--signing-key", pem, "--token", tmp_path / "t.jwt")
    found = told("verify", tmp_path / "e.json", "--policy", tmp_path / "p.toml", *bound, *signed)
    assert (found["status"], found["isolation"], found["accepted"]) == ("warning", "none", True)
    from datetime import UTC, datetime

    claims = ear.read((tmp_path / "t.jwt").read_text(), key.public_key(), now=datetime.now(UTC))
    assert claims["submods"]["sim"]["labelwright.isolation"] == "none"
    other = ("--nonce", "22" * 32, "--key", jwk, "--workload", "ab" * 32)
    assert told("verify", tmp_path / "e.json", "--policy", tmp_path / "p.toml", *other, code=1)["accepted"] is False
    wrong = ("--nonce", "11" * 32, "--key", jwk, "--workload", "cd" * 32)
    assert "workload" in str(
        told("verify", tmp_path / "e.json", "--policy", tmp_path / "p.toml", *wrong, code=2)["error"]
    )
    (tmp_path / "real.toml").write_text('kinds = ["tdx"]')
    done = call_cli("trust", "verify", tmp_path / "e.json", "--policy", tmp_path / "real.toml")
    assert done.returncode == 1 and "REFUSED" in done.stdout and "isolation: none" in done.stdout


def test_verify_a_raw_quote_by_a_drafted_policy(tmp_path: Path) -> None:
    at, policy = folder(), tmp_path / "p.toml"
    quote = (at / "tdx_quote", "--kind", "tdx")
    told("policy", policy, "--from", *quote)
    assert Policy.read(policy).tdx.mr_td and "exists" in str(told("policy", policy, "--from", *quote, code=2)["error"])
    data = (at / "tdx_quote").read_bytes()[568:632].hex()
    as_of = ("--policy", policy, "--collateral", at / "tdx_quote_collateral.json", "--data", data)
    found = told("verify", *quote, *as_of, "--at", FROZEN["tdx"].isoformat())
    assert (found["status"], found["isolation"]) == ("affirming", "hardware")
    today = told("verify", *quote, *as_of, code=1)
    assert "CrlExpired" in str(today["reasons"])
    chip = (at / "snp_test-report.bin", "--kind", "snp", "--cert", at / "snp_test-vcek.der")
    told("policy", tmp_path / "s.toml", "--from", *chip)
    assert told("verify", *chip, "--policy", tmp_path / "s.toml", "--at", "2025-01-01", code=1)["status"] == "warning"
    said = told("policy", tmp_path / "s.toml")
    assert said["snp.min_microcode"] == 115 and said["isolation"] == "hardware is asked for"


@pytest.mark.parametrize(
    "words",
    [
        "attest --kind abacus --data DATA",
        "attest --kind sim",
        "attest --kind sim --data 00",
        "attest --kind sim --data zz",
        "attest --kind sim --nonce 00",
        "attest --kind h100 --data DATA",
        "attest --kind tpm --data DATA --pcrs all",
        "attest --kind tpm --data DATA --tpm-folder nowhere",
        "attest --kind sgx --data DATA",
        "verify absent.json --policy sim.toml",
        "verify junk.json --policy sim.toml",
        "verify junk.json --policy absent.toml",
        "verify junk.json --policy junk.json",
        "verify junk.json --policy tdx.toml --kind tdx",
        "verify e.json --policy sim.toml --at yesterday",
        "verify e.json --policy sim.toml --cert junk.json",
        "verify e.json --policy sim.toml --token t.jwt",
        "verify e.json --policy sim.toml --token t.jwt --signing-key junk.json",
        "policy absent.toml",
        "policy junk.json",
        "policy new.toml --from junk.json",
        "enrol --ca absent.pem --ca-key absent.pem --policy sim.toml",
        "enrol --ca sim.toml --ca-key sim.toml --policy sim.toml",
        "enrol --ca sim.toml --ca-key x.pem --policy sim.toml --new-ca",
    ],
)
def test_bad_input_is_one_sentence(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.json").write_bytes(b"\xff\x00{junk")
    (tmp_path / "sim.toml").write_text(SIM)
    (tmp_path / "tdx.toml").write_text('kinds = ["tdx"]')
    call_cli("trust", "attest", "--kind", "sim", "--data", ZEROS, "--output", "e.json")
    done = call_cli("trust", *words.replace("DATA", ZEROS).split())
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("labelwright: ") and len(done.stderr) > 40


def test_doctor_compares_and_says_what_is_here() -> None:
    rows = {row["kind"]: row for row in told("doctor")["rows"]}  # type: ignore[attr-defined]
    assert rows["sim"]["here"] and {"protects", "memory", "cost", "proves", "proves_not"} <= set(rows["tdx"])
    text = call_cli("trust", "doctor").stdout
    assert "would not prove" in text and "isolation here" in text and "TEE.fail" in text


def test_doctor_on_machines_made_up(tmp_path: Path) -> None:
    def machine(*paths: str) -> dict[str, bool]:
        root = tmp_path / "-".join(p.replace("/", "_") for p in paths)
        for path in paths:
            (root / path).mkdir(parents=True)
        return {row["kind"]: row["here"] for row in probe(root)}

    assert machine("dev/tdx_guest", "sys/kernel/config/tsm/report")["tdx"]
    assert not machine("dev/tdx_guest")["tdx"]
    assert machine("dev/sev-guest", "sys/kernel/config/tsm/report/x")["snp"]
    assert machine("dev/attestation/quote")["sgx"] and not machine("dev/sgx_enclave")["sgx"]
    assert machine("dev/nvidia0")["h100"]


def test_importing_the_command_line_stays_light() -> None:
    code = (
        "import sys, labelwright.cli.trust; print({'cryptography', 'dcap_qvl', 'joserfc', 'torch'} & set(sys.modules))"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_recorded_evidence_is_verified_as_it_lies(tmp_path: Path) -> None:
    at = folder()
    (tmp_path / "h.toml").write_text('kinds = ["h100"]')
    card = ("--kind", "h100", "--cert", at / "nvidia_h100_cert_chain.txt", "--policy", tmp_path / "h.toml")
    said = told("verify", at / "nvidia_h100_report.txt", *card, "--at", "2025-01-01", code=1)
    assert said["status"] == "warning" and said["isolation"] == "hardware"
    bent = bytearray((at / "nvidia_h100_report.txt").read_bytes())
    bent[20] = ord("0") if bent[20] != ord("0") else ord("1")  # within the nonce
    (tmp_path / "bent.txt").write_bytes(bent)
    assert told("verify", tmp_path / "bent.txt", *card, "--at", "2025-01-01", code=1)["status"] == "contraindicated"


def test_the_recorded_tpm_quote_is_verified_as_it_lies(tmp_path: Path) -> None:
    from base64 import b64decode
    from datetime import UTC, datetime

    from cryptography.hazmat.primitives.serialization import load_der_public_key

    from labelwright.trust.verify import enrol

    kept = json.loads((folder() / "tpm_quote.json").read_text())
    ca, key = enrol.make_ca("tests", now=datetime.now(UTC))
    ek = ca.public_bytes(Encoding.DER)
    begun = enrol.Challenge(b"", b"", ek, load_der_public_key(b64decode(kept["ak_public"])))  # type: ignore[arg-type]
    (tmp_path / "ak.der").write_bytes(enrol.certify(begun, b"", ca, key, now=datetime.now(UTC)))
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (tmp_path / "p.toml").write_text(
        'kinds = ["tpm"]\naccept = ["warning"]\n[tpm]\nenrolment_roots = ["ca.pem"]\ntest_roots = ["ca.pem"]\n'
    )
    rest = (
        "--kind",
        "tpm",
        "--policy",
        tmp_path / "p.toml",
        "--cert",
        tmp_path / "ak.der",
        "--cert",
        tmp_path / "ca.pem",
    )
    assert told("verify", folder() / "tpm_quote.json", *rest)["isolation"] == "none"
    kept["tpm_quote"]["pcrs"][0] = "11" * 32
    (tmp_path / "bent.json").write_text(json.dumps(kept))
    assert told("verify", tmp_path / "bent.json", *rest, code=1)["status"] == "contraindicated"
    for part, value in [("pcrs", []), ("pcrs", ["zz"] * 24), ("message", "%"), ("signature", 7)]:
        (tmp_path / "bent.json").write_text(json.dumps(kept | {"tpm_quote": kept["tpm_quote"] | {part: value}}))
        assert len(str(told("verify", tmp_path / "bent.json", *rest, code=2)["error"])) > 20
