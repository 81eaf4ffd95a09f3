"""Collectors against stand-ins: a fake configfs-tsm (FUSE), Gramine's files, a software TPM (swtpm)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from soft_tpm import software_tpm
from trust_vendors import FROZEN, folder, pem, raw, recorded

from labelwright.errors import EvidenceError, RefusedError, SealError
from labelwright.trust.attester import available, collect, gramine
from labelwright.trust.attester.tpm import Tpm
from labelwright.trust.attester.tpm_seal import seal, unseal
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy
from labelwright.trust.verify import enrol, verify
from labelwright.trust.verify.chain import pem_certificates
from labelwright.trust.verify.tpm import TpmQuote, nonce_of

DATA = bytes(range(64))
HERE = Path(__file__).parent
Mount = Callable[..., Path]


@pytest.fixture
def tsm(tmp_path: Path) -> Iterator[Mount]:
    """``tsm(kind, fault)``: a mounted fake of /sys/kernel/config/tsm/report."""
    folder()
    if not (shutil.which("fusermount3") and Path("/dev/fuse").exists()):
        pytest.skip("no FUSE on this machine")
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def mount(kind: str, fault: str = "") -> Path:
        place = tmp_path / f"{kind}{len(started)}" / "report"
        place.mkdir(parents=True)
        process = subprocess.Popen([sys.executable, HERE / "fake_tsm.py", place, kind, fault], stderr=subprocess.PIPE)
        started.append((place, process))
        ends = time.monotonic() + 30
        while not place.is_mount():
            if process.poll() is not None or time.monotonic() > ends:
                pytest.skip(f"FUSE cannot mount here: {process.stderr and process.stderr.read()[-200:]!r}")
            time.sleep(0.05)
        return place

    yield mount
    for place, process in started:
        subprocess.run(["fusermount3", "-u", "-z", place], check=False, capture_output=True)
        process.wait(10)


def test_tdx_from_the_kernels_interface_to_the_verdict(tsm: Mount) -> None:
    root = tsm("tdx")
    piece = collect("tdx", DATA, root=root)
    assert list(root.iterdir()) == []  # the request is gone
    piece = replace(piece, collateral=(root.parent / "collateral.json").read_bytes())
    text = f'kinds = ["tdx"]\n[tdx]\ntest_roots = ["{root.parent / "root.pem"}"]'
    found = verify(piece, Policy.from_toml(text), report_data=DATA, now=FROZEN["tdx"])
    assert (found.status, found.isolation) == ("warning", "none")
    vendor = verify(piece, Policy.from_toml('kinds = ["tdx"]'), report_data=DATA, now=FROZEN["tdx"])
    assert vendor.status == "contraindicated"


def test_snp_from_the_kernels_interface_to_the_verdict(tsm: Mount) -> None:
    root = tsm("snp", "busy")
    piece = collect("snp", DATA, root=root, vmpl=1)
    assert piece.aux and not piece.certs
    text = f'kinds = ["snp"]\n[snp]\nmax_vmpl = 1\ntest_roots = ["{root.parent / "root.pem"}"]'
    found = verify(piece, Policy.from_toml(text), report_data=DATA, now=FROZEN["snp"])
    assert (found.status, found.claims["vmpl"]) == ("warning", 1)
    strict = verify(piece, Policy.from_toml(text.replace("= 1", "= 0")), report_data=DATA, now=FROZEN["snp"])
    assert strict.status == "contraindicated"


@pytest.mark.parametrize(("fault", "words"), [("rival", "somebody else"), ("empty", "empty report")])
def test_a_report_that_may_be_anothers_is_not_taken(tsm: Mount, fault: str, words: str) -> None:
    root = tsm("snp", fault)
    with pytest.raises(EvidenceError, match=words):
        collect("snp", DATA, root=root)
    with pytest.raises(EvidenceError, match="not from tdx_guest"):
        collect("tdx", DATA, root=root)
    with pytest.raises(EvidenceError, match="privilege level 4"):
        collect("snp", DATA, root=root, vmpl=4)


def test_machines_without_a_tee_say_so(tmp_path: Path) -> None:
    for kind, options in (
        ("tdx", {"root": tmp_path / "no"}),
        ("sgx", {"root": tmp_path}),
        ("tpm", {"folder": tmp_path}),
    ):
        with pytest.raises(EvidenceError):
            collect(kind, DATA, **options)
    for kind, data in (("h100", DATA), ("abacus", DATA), ("sim", b"short")):
        with pytest.raises(EvidenceError):
            collect(kind, data)
    assert {tee["kind"] for tee in available()} >= {"tdx", "snp", "cca", "sgx", "tpm", "sim"}


def test_sgx_from_gramines_files(tmp_path: Path) -> None:
    quote = recorded("sgx").blob
    (tmp_path / "attestation_type").write_text("dcap")
    (tmp_path / "user_report_data").write_bytes(bytes(64))
    (tmp_path / "quote").write_bytes(quote)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "_sgx_mrenclave").write_bytes(bytes(range(16)))
    assert collect("sgx", DATA, root=tmp_path).blob == quote
    assert (tmp_path / "user_report_data").read_bytes() == DATA
    assert gramine.key("_sgx_mrenclave", root=tmp_path) == bytes(range(16))
    for name in ("../quote", "", "..", "absent"):
        with pytest.raises(EvidenceError):
            gramine.key(name, root=tmp_path)
    (tmp_path / "attestation_type").write_text("none")
    with pytest.raises(EvidenceError, match="dcap"):
        collect("sgx", DATA, root=tmp_path)


class SoftTpm:
    """A software TPM with the certificates of its own test-only CA, and a CA of ours that enrols quoting keys."""

    def __init__(self, place: Path, tcti: str) -> None:
        self.place, self.tcti, self.now = place, tcti, datetime.now(UTC)
        self.ca, self.ca_key = enrol.make_ca("tests", now=self.now)
        self.ek_ca = (place / "ca" / "swtpm-localca-rootca-cert.pem").read_text()
        self.middle = pem_certificates((place / "ca" / "issuercert.pem").read_bytes())[0].public_bytes(Encoding.DER)
        self.tpm = Tpm(place / "keys", tcti=tcti)
        self.ek = self.tpm.ek_certificate()

    def policy(self, more: str = "", *, ek: str = "test_roots") -> Policy:
        text = f'kinds = ["tpm"]\naccept = ["affirming", "warning"]\n[tpm]\nenrolment_roots = ["""{pem(self.ca)}"""]\n'
        return Policy.from_toml(f'{text}{ek} = ["""{self.ek_ca}"""]\n{more}')

    def enrol(self) -> None:
        begun = enrol.challenge(self.ek, (self.middle,), self.tpm.create(), self.policy(), now=self.now)
        answer = self.tpm.activate(begun.credential)
        with pytest.raises(RefusedError, match="did not open"):
            enrol.certify(begun, bytes(32), self.ca, self.ca_key, now=self.now)
        cert = enrol.certify(begun, answer, self.ca, self.ca_key, now=self.now)
        for name, der in (("ak", cert), ("ek", self.ek), ("ek-chain-0", self.middle)):
            (self.tpm.folder / f"{name}.der").write_bytes(der)

    def collect(self, data: bytes = DATA, pcrs: tuple[int, ...] = (0, 1, 7, 16)) -> Evidence:
        return collect("tpm", data, folder=self.tpm.folder, tcti=self.tcti, pcrs=pcrs)


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftTpm]:
    place = tmp_path_factory.mktemp("swtpm")
    with software_tpm(place) as tcti:
        made = SoftTpm(place, tcti)
        made.enrol()
        yield made


def test_a_software_tpm_from_key_to_verdict(soft: SoftTpm) -> None:
    piece = soft.collect()
    zero = "00" * 32
    expected = TpmQuote.decode(piece.blob).registers[7].hex()
    policy = soft.policy(
        f'[tpm.pcrs]\n0 = ["{zero}", "{TpmQuote.decode(piece.blob).registers[0].hex()}"]\n7 = "{expected}"'
    )
    found = verify(piece, policy, report_data=DATA, now=soft.now)
    assert (found.status, found.isolation) == ("warning", "none")
    assert len([r for r in found.reasons if "none" in r]) == 1 and "16" not in found.claims["registers"]
    policy.check(found)
    named = soft.policy(f'[tpm.pcrs]\n7 = "{expected}"', ek="ek_roots")  # the policy's mistake, noticed all the same
    found = verify(piece, named, report_data=DATA, now=soft.now)
    assert (found.status, found.isolation) == ("warning", "none")


def test_tpm_lies_are_refused(soft: SoftTpm) -> None:
    piece, policy = soft.collect(), soft.policy()
    quote = TpmQuote.decode(piece.blob)

    def refused(changed: Evidence, words: str, rules: Policy = policy, data: bytes = DATA) -> None:
        found = verify(changed, rules, report_data=data, now=soft.now)
        assert found.status == "contraindicated" and any(words in r for r in found.reasons), found.reasons

    refused(piece, "another nonce", data=bytes(64))
    bent = dict(quote.registers)
    bent[7] = bytes([bent[7][0] ^ 1]) + bent[7][1:]
    refused(replace(piece, blob=replace(quote, registers=bent).encode()), "whose digest")
    digest = bytearray(quote.message)
    digest[-5] ^= 1  # a byte of the signed digest itself
    refused(replace(piece, blob=replace(quote, message=bytes(digest)).encode()), "signature")
    refused(piece, "register 7", soft.policy(f'[tpm.pcrs]\n7 = "{"11" * 32}"'))
    refused(piece, "register 8", soft.policy(f'[tpm.pcrs]\n8 = "{"00" * 32}"'))
    refused(piece, "not issued by any of the roots", Policy.from_toml('kinds = ["tpm"]'))
    refused(piece, "not enrolled", Policy.from_toml('kinds = ["tpm"]'))
    refused(replace(piece, certs=(piece.certs[0], piece.certs[2])), "another TPM")
    other, other_key = enrol.make_ca("another", now=soft.now)
    begun = enrol.Challenge(b"", bytes(32), soft.ek, ec.generate_private_key(ec.SECP256R1()).public_key())
    forged = enrol.certify(begun, bytes(32), other, other_key, now=soft.now)
    refused(replace(piece, certs=(forged, *piece.certs[1:])), "not enrolled")
    late = soft.now + timedelta(days=366)
    assert verify(piece, policy, report_data=DATA, now=late).status == "contraindicated"


def test_a_changed_register_shows(soft: SoftTpm) -> None:
    before = TpmQuote.decode(soft.collect(pcrs=(10,)).blob).registers[10].hex()
    policy = soft.policy(f'[tpm.pcrs]\n10 = "{before}"')
    assert verify(soft.collect(pcrs=(10,)), policy, report_data=DATA, now=soft.now).status == "warning"
    soft.tpm._run("pcrextend", f"10:sha256={'ab' * 32}")
    found = verify(soft.collect(pcrs=(10,)), policy, report_data=DATA, now=soft.now)
    assert found.status == "contraindicated" and "register 10" in found.reasons[0]


def test_tpm_flips_and_tails_are_refused(soft: SoftTpm) -> None:
    piece, policy = soft.collect(), soft.policy()
    assert verify(piece, policy, report_data=DATA, now=soft.now).status == "warning"
    for bit in Random(7).sample(range(8 * len(piece.blob)), 2000):
        blob = bytearray(piece.blob)
        blob[bit // 8] ^= 1 << bit % 8
        try:
            found = verify(replace(piece, blob=bytes(blob)), policy, report_data=None, now=soft.now)
        except EvidenceError:
            continue
        assert found.status == "contraindicated", bit
    for tail in (b" ", b"\n", b"\0", piece.blob):
        with pytest.raises(EvidenceError):
            verify(replace(piece, blob=piece.blob + tail), policy, report_data=DATA, now=soft.now)


def test_another_tpms_credential_is_not_opened(soft: SoftTpm) -> None:
    public = (soft.tpm.folder / "ak.pub").read_bytes()
    begun = enrol.challenge(soft.ek, (soft.middle,), public, soft.policy(), now=soft.now)
    from cryptography.hazmat.primitives.asymmetric import rsa

    stranger = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(EvidenceError, match="activatecredential"):
        soft.tpm.activate(enrol.make_credential(stranger, b"\0\x0b" + bytes(32), begun.secret))
    assert soft.tpm.activate(begun.credential) == begun.secret
    with pytest.raises(RefusedError, match="not enrolled"):
        enrol.challenge(soft.ek, (soft.middle,), public, Policy.from_toml('kinds = ["tpm"]'), now=soft.now)
    loose = bytearray(public)
    loose[7] ^= 1  # no longer restricted: it would sign whatever it is given
    with pytest.raises(RefusedError, match="sign more"):
        enrol.challenge(soft.ek, (soft.middle,), bytes(loose), soft.policy(), now=soft.now)


def test_a_tpm_of_a_known_maker_is_affirmed_only_where_the_policy_says_that_it_is_enough() -> None:
    """It encrypts no memory, so isolation is none all the same. A TPM of the test's own, its quote put together by hand."""
    now, registers = datetime.now(UTC), {7: bytes(32)}
    ca, ca_key = enrol.make_ca("tests", now=now)
    maker, _ = enrol.make_ca("maker", now=now)
    key, ek = ec.generate_private_key(ec.SECP256R1()), maker.public_bytes(Encoding.DER)
    cert = enrol.certify(enrol.Challenge(b"", b"", ek, key.public_key()), b"", ca, ca_key, now=now)
    message = b"\xffTCG\x80\x18" + b"\0\0" + b"\0\x20" + nonce_of(DATA) + bytes(17) + bytes(8)
    message += b"\0\0\0\1\0\x0b\3\x80\0\0" + b"\0\x20" + sha256(bytes(32)).digest()
    pair = raw(key, message, hashes.SHA256(), 32)
    signature = b"\0\x18\0\x0b" + b"\0\x20" + pair[:32] + b"\0\x20" + pair[32:]
    piece = Evidence("tpm", TpmQuote(message, signature, registers).encode(), certs=(cert, ek))
    text = f'kinds = ["tpm"]\n[tpm]\nek_roots = ["""{pem(maker)}"""]\nenrolment_roots = ["""{pem(ca)}"""]\n'
    policy = Policy.from_toml(f'{text}[tpm.pcrs]\n7 = "{"00" * 32}"')
    found = verify(piece, policy, report_data=DATA, now=now)
    assert (found.status, found.isolation) == ("warning", "none") and "encrypts no memory" in found.reasons[0]
    enough = f'{text}affirm = true\n[tpm.pcrs]\n7 = "{"00" * 32}"'
    found = verify(piece, Policy.from_toml(enough), report_data=DATA, now=now)
    assert (found.status, found.isolation) == ("affirming", "none")
    assert Policy.from_toml(enough).describe()["isolation"] == "none is accepted"
    for less in (f"{text}affirm = true", enough.replace("ek_roots", "test_roots")):
        assert verify(piece, Policy.from_toml(less), report_data=DATA, now=now).status == "warning"


def test_the_recorded_tpm_quote_with_an_enrolled_key() -> None:
    """An RSA quote of a cloud's virtual TPM: its signature and registers hold; its key is enrolled by the test."""
    from base64 import b64decode

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    kept = json.loads((folder() / "tpm_quote.json").read_text())
    quote = kept["tpm_quote"]
    now = datetime.now(UTC)
    ca, key = enrol.make_ca("tests", now=now)
    ek = ca.public_bytes(Encoding.DER)
    begun = enrol.Challenge(b"", b"", ek, load_der_public_key(b64decode(kept["ak_public"])))  # type: ignore[arg-type]
    cert = enrol.certify(begun, b"", ca, key, now=now)
    registers = {n: bytes.fromhex(value) for n, value in enumerate(quote["pcrs"])}
    blob = TpmQuote(b64decode(quote["message"]), b64decode(quote["signature"]), registers).encode()
    policy = Policy.from_toml(
        f'kinds = ["tpm"]\n[tpm]\nenrolment_roots = ["""{pem(ca)}"""]\ntest_roots = ["""{pem(ca)}"""]'
    )
    found = verify(Evidence("tpm", blob, certs=(cert, ek)), policy, report_data=None, now=now)
    assert found.status == "warning" and found.isolation == "none", found.reasons
    assert isinstance(x509.load_der_x509_certificate(cert).signature_hash_algorithm, hashes.SHA256)


def test_enrol_attest_and_verify_on_the_command_line(soft: SoftTpm, tmp_path: Path) -> None:
    from helpers import call_cli

    maker, names = (
        tmp_path / "maker.toml",
        {name: tmp_path / name for name in ("ca.pem", "ca.key", "policy.toml", "e.json")},
    )
    maker.write_text(f'kinds = ["tpm"]\n[tpm]\ntest_roots = ["{soft.place}/ca/swtpm-localca-rootca-cert.pem"]\n')
    tpm = ("--tpm-folder", soft.tpm.folder, "--tcti", soft.tcti)
    ca = (
        "--new-ca",
        "--ca",
        names["ca.pem"],
        "--ca-key",
        names["ca.key"],
        "--chain",
        soft.place / "ca" / "issuercert.pem",
    )
    done = call_cli("trust", "enrol", *ca, "--policy", maker, *tpm)
    assert done.returncode == 0, done.stderr
    assert names["ca.key"].stat().st_mode & 0o777 == 0o600
    done = call_cli(
        "trust", "attest", "--kind", "tpm", *tpm, "--pcrs", "0,7", "--data", DATA.hex(), "--output", names["e.json"]
    )
    assert done.returncode == 0, done.stderr
    assert call_cli("trust", "policy", names["policy.toml"], "--from", names["e.json"]).returncode == 0
    text = names["policy.toml"].read_text().replace("enrolment_roots = []", 'enrolment_roots = ["ca.pem"]')
    roots = f'test_roots = ["{soft.place}/ca/swtpm-localca-rootca-cert.pem"]'
    names["policy.toml"].write_text(text.replace("test_roots = []", roots))
    judge = ("trust", "verify", names["e.json"], "--policy", names["policy.toml"], "--data")
    done = call_cli(*judge, DATA.hex())
    assert done.returncode == 0 and "warning (tpm; isolation: none)" in done.stdout, done.stdout + done.stderr
    assert call_cli(*judge, "00" * 64).returncode == 1
    soft.enrol()  # the other tests' CA again


def test_a_secret_sealed_to_registers(soft: SoftTpm) -> None:
    secret = bytes(range(32))
    sealed = seal(soft.tpm, secret, [0, 11])
    assert unseal(soft.tpm, sealed) == secret and secret.hex() not in sealed
    for pcrs in ([16], [0, 23], [], [24]):
        with pytest.raises(SealError, match="registers"):
            seal(soft.tpm, secret, pcrs)
    with pytest.raises(SealError, match="128"):
        seal(soft.tpm, bytes(129), [0])
    for bent in ("", "{}", sealed.replace("0,11", "0,16"), sealed.replace("0,11", "zero"), sealed[:-9]):
        with pytest.raises(SealError):
            unseal(soft.tpm, bent)
    with pytest.raises(RefusedError):
        unseal(soft.tpm, sealed.replace("0,11", "0,12"))
    soft.tpm.run("pcrextend", f"11:sha256={'cd' * 32}")
    with pytest.raises(RefusedError, match="registers"):
        unseal(soft.tpm, sealed)
