"""Recorded evidence of vendors' hardware, at a frozen time: the expected verdict, and no single bit to spare."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from trust_vendors import FROZEN, Amd, Arm, Intel, later, pem, recorded

from labelwright.errors import EvidenceError, RefusedError, SettingsError, TrustError
from labelwright.trust import ear, evidence
from labelwright.trust.attester import collect
from labelwright.trust.evidence import Evidence
from labelwright.trust.policy import Policy
from labelwright.trust.verify import Appraisal, verify

DATA = bytes(range(64))


def bound(name: str) -> bytes | None:
    """The report data of a recording, as its makers chose them."""
    report = recorded(name).blob
    if name.startswith("snp"):
        return report[80:144]
    if name.startswith("tdx"):
        return report[48 + 520 :][:64] if name == "tdx" else report[54 + 520 :][:64]
    return report[48 + 320 :][:64] if name == "sgx" else None


def judged(name: str, policy: str, *, now: datetime | None = None, report_data: bytes | None = None) -> Appraisal:
    return verify(
        recorded(name), Policy.from_toml(policy), report_data=report_data or bound(name), now=now or FROZEN[name]
    )


def refused(found: Appraisal, *words: str) -> None:
    assert found.status == "contraindicated" and found.isolation == "none"
    assert all(any(word in reason for reason in found.reasons) for word in words), found.reasons


def measured(name: str) -> str:
    """A policy that holds the recording's own measurements."""
    kind = name[:3]
    claims = judged(name, f'kinds = ["{kind}"]\n[{kind}]\n' + ("max_vmpl = 1" if kind == "snp" else "")).claims
    names = {"tdx": ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3"), "sgx": ("mr_enclave",), "snp": ("measurement",)}[
        kind
    ]
    return f'kinds = ["{kind}"]\n[{kind}]\n' + "\n".join(f'{n} = ["{claims[n]}"]' for n in names) + "\n"


def test_a_current_tdx_is_affirmed() -> None:
    found = judged("tdx", measured("tdx"))
    assert (found.status, found.isolation) == ("affirming", "hardware")
    assert found.claims["tcb_status"] == "UpToDate" and found.claims["advisories"] == []


def test_an_outdated_tdx_finds_no_matching_tcb_level() -> None:
    refused(judged("tdx_outdated", measured("tdx_outdated")), "No matching TCB level")


def test_sgx_that_needs_hardening_is_refused_unless_the_policy_takes_it_with_a_warning() -> None:
    wanted = measured("sgx")
    refused(judged("sgx", wanted), "ConfigurationAndSWHardeningNeeded (INTEL-SA-00289, INTEL-SA-00615)")
    warned = judged("sgx", wanted + 'tcb_warning = ["ConfigurationAndSWHardeningNeeded"]')
    assert warned.status == "warning" and "ConfigurationAndSWHardeningNeeded" in warned.reasons[0]
    taken = judged("sgx", wanted + 'tcb = ["ConfigurationAndSWHardeningNeeded"]')
    assert (taken.status, taken.isolation) == ("affirming", "hardware")
    barred = wanted + 'tcb = ["ConfigurationAndSWHardeningNeeded"]\nrefused_advisories = ["INTEL-SA-00615"]'
    refused(judged("sgx", barred), "INTEL-SA-00615")


@pytest.mark.parametrize("name", ["sgx", "tdx", "tdx_outdated"])
def test_today_the_collateral_is_expired(name: str) -> None:
    refused(judged(name, measured(name), now=datetime(2026, 11, 26, tzinfo=UTC)), "CrlExpired")


def test_collateral_whose_tcb_information_expired_before_its_revocation_lists_is_refused() -> None:
    found = judged("tdx", measured("tdx"), now=datetime(2025, 7, 20, tzinfo=UTC))
    assert found.status == "contraindicated" and "xpired" in found.reasons[0]


@pytest.mark.parametrize("name", ["snp", "snp_vlek"])
def test_snp_is_affirmed_by_chip_key_and_by_loaded_key(name: str) -> None:
    level = "max_vmpl = 1" if name == "snp_vlek" else ""
    found = judged(name, measured(name) + level)
    assert (found.status, found.isolation) == ("affirming", "hardware")
    assert found.claims["reported_tcb"]["microcode"] == (217 if level else 115)
    assert "revocation is unchecked" in found.reasons[0]


def test_snp_policies() -> None:
    wanted = measured("snp")
    refused(judged("snp_vlek", measured("snp_vlek")), "privilege level 1")
    refused(judged("snp", wanted + "min_microcode = 116"), "microcode version is 115")
    refused(judged("snp", wanted + "min_svn = 5"), "security version is 4")
    refused(judged("snp", wanted + "require_crl = true"), "revocation")
    refused(judged("snp", wanted.replace("a1f3", "a1f4")), "measurement")
    refused(
        judged("snp_vlek", measured("snp_vlek") + "max_vmpl = 1", now=datetime(2026, 1, 1, tzinfo=UTC)), "not valid"
    )


def test_an_h100_is_secondary_evidence_and_never_affirmed() -> None:
    policy = 'kinds = ["h100"]'
    claims = verify(recorded("h100"), Policy.from_toml(policy), report_data=None, now=FROZEN["h100"]).claims
    assert claims["driver"] == "550.90.07"
    nonce = bytes.fromhex(claims["nonce"]) + bytes(32)
    blocks = "\n".join(f'{n} = "{value}"' for n, value in claims["measurements"].items())
    found = judged("h100", f"{policy}\n[h100.measurements]\n{blocks}", report_data=nonce)
    assert found.status == "warning" and "secondary" in found.reasons[0] and len(found.reasons) == 2
    refused(judged("h100", policy, report_data=DATA), "another nonce")
    refused(judged("h100", f'{policy}\n[h100.measurements]\n2 = "00"', report_data=nonce), "measurement 2")


def test_a_cca_token_is_unverified_without_the_platform_key() -> None:
    found = judged("cca", 'kinds = ["cca"]')
    refused(found, "unverified")
    assert found.claims["profile"] == "http://arm.com/CCA-SSD/1.0.0"


def test_a_cca_token_under_a_known_platform_key() -> None:
    arm = Arm()
    text = f'kinds = ["cca"]\n[cca]\nplatform_keys = ["""{arm.platform_pem}"""]\nmeasurement = ["{"00" * 32}"]'
    policy, now = Policy.from_toml(text), FROZEN["cca"]
    assert verify(arm.evidence(DATA), policy, report_data=DATA, now=now).status == "affirming"
    refused(verify(Arm().evidence(DATA), policy, report_data=DATA, now=now), "none of the policy's platform keys")
    refused(verify(arm.evidence(DATA, lifecycle=0x6003), policy, report_data=DATA, now=now), "secured state")
    refused(verify(recorded("cca"), policy, report_data=DATA, now=now), "another nonce", "platform keys")


LENIENT = """kinds = ["sgx", "tdx", "snp", "h100"]
[sgx]\ntcb = ["ConfigurationAndSWHardeningNeeded"]\n[snp]\nmax_vmpl = 1"""


def survivors(piece: Evidence, policy: Policy, now: datetime, bits: list[int]) -> list[int]:
    """Bits that can be flipped without anybody noticing."""
    left = []
    for bit in bits:
        blob = bytearray(piece.blob)
        blob[bit // 8] ^= 1 << bit % 8
        try:
            found = verify(replace(piece, blob=bytes(blob)), policy, report_data=None, now=now)
        except EvidenceError:
            continue
        if found.status != "contraindicated":
            left.append(bit)
    return left


def flippable(name: str) -> tuple[Evidence, Policy, datetime]:
    """An accepted piece of evidence, recorded or by a vendor of the test's own."""
    if name == "sim":
        return collect("sim", DATA), Policy.from_toml('kinds = ["sim"]\nsim = true'), FROZEN["cca"]
    if name == "cca":
        arm = Arm()
        policy = Policy.from_toml(f'kinds = ["cca"]\n[cca]\nplatform_keys = ["""{arm.platform_pem}"""]')
        return arm.evidence(DATA), policy, FROZEN["cca"]
    return recorded(name), Policy.from_toml(LENIENT), FROZEN[name]


@pytest.mark.parametrize("name", ["sgx", "tdx", "snp", "snp_vlek", "h100", "cca", "sim"])
def test_each_of_2000_flipped_bits_is_refused(name: str) -> None:
    piece, policy, now = flippable(name)
    assert verify(piece, policy, report_data=None, now=now).status == "warning"
    bits = random.Random(7).sample(range(8 * len(piece.blob)), min(2000, 8 * len(piece.blob)))
    assert survivors(piece, policy, now, bits) == []


@pytest.mark.soak
@pytest.mark.parametrize("name", ["sgx", "tdx", "snp", "snp_vlek", "h100", "cca", "sim"])
def test_every_flipped_bit_is_refused(name: str) -> None:
    piece, policy, now = flippable(name)
    assert survivors(piece, policy, now, list(range(8 * len(piece.blob)))) == []


@pytest.mark.parametrize("name", ["sgx", "tdx", "snp", "snp_vlek", "h100", "cca", "sim"])
def test_bytes_behind_are_refused(name: str) -> None:
    piece, policy, now = flippable(name)
    for tail in (b"\x01", b"\0\x01", bytes(100) + b"\x80", piece.blob):
        with pytest.raises(EvidenceError):
            verify(replace(piece, blob=piece.blob + tail), policy, report_data=None, now=now)
    if name != "tdx":  # quoting services pad TDX quotes with zeros
        with pytest.raises(EvidenceError):
            verify(replace(piece, blob=piece.blob + b"\0"), policy, report_data=None, now=now)


def test_a_quote_over_8_kb_is_refused_clearly() -> None:
    piece = recorded("tdx")
    with pytest.raises(EvidenceError, match=r"8,193 bytes.*8,192.*DICE"):
        verify(
            replace(piece, blob=piece.blob.ljust(8193, b"\0")),
            Policy.from_toml(LENIENT),
            report_data=None,
            now=FROZEN["tdx"],
        )


@cache
def intel() -> Intel:
    return Intel()


def test_a_resigned_tdx_is_accepted_under_the_tests_root_only() -> None:
    piece = intel().evidence(DATA)
    own = Policy.from_toml(
        f'kinds = ["tdx"]\naccept = ["affirming", "warning"]\n[tdx]\ntest_roots = ["""{pem(intel().root)}"""]'
    )
    found = verify(piece, own, report_data=DATA, now=FROZEN["tdx"])
    assert (found.status, found.isolation) == ("warning", "none") and found.claims["tcb_status"] == "UpToDate"
    own.check(found)
    vendor = Policy.from_toml('kinds = ["tdx"]')
    refused(verify(piece, vendor, report_data=DATA, now=FROZEN["tdx"]), "does not end in Intel's root")
    with pytest.raises(RefusedError, match="Intel's root"):
        vendor.check(verify(piece, vendor, report_data=DATA, now=FROZEN["tdx"]))
    refused(verify(piece, own, report_data=bytes(64), now=FROZEN["tdx"]), "another nonce")
    mixed = replace(piece, collateral=recorded("tdx").collateral)
    assert verify(mixed, own, report_data=DATA, now=FROZEN["tdx"]).status == "contraindicated"


def test_a_debug_td_is_refused() -> None:
    def debug(body: bytearray) -> None:
        body[120] |= 1

    policy = Policy.from_toml(f'kinds = ["tdx"]\n[tdx]\ntest_roots = ["""{pem(intel().root)}"""]')
    found = verify(intel().evidence(DATA, change=debug), policy, report_data=DATA, now=FROZEN["tdx"])
    refused(found, "debug mode")
    assert found.claims["debug"] is True


@pytest.mark.parametrize(
    ("at", "value", "words"), [(123, 0x20, "migrate"), (112, 1, "TDX module"), (64, 1, "TDX module")]
)
def test_a_td_that_others_can_read_is_refused(at: int, value: int, words: str) -> None:
    def change(body: bytearray) -> None:
        body[at] |= value

    text = f'kinds = ["tdx"]\n[tdx]\ntest_roots = ["""{pem(intel().root)}"""]\n'
    piece = intel().evidence(DATA, change=change)
    refused(verify(piece, Policy.from_toml(text), report_data=DATA, now=FROZEN["tdx"]), words)


def test_older_collateral_can_be_refused() -> None:
    refused(judged("tdx", measured("tdx") + "min_evaluation = 99"), "the policy asks for 99 or later")
    assert judged("tdx", measured("tdx") + "min_evaluation = 17").status == "affirming"


def test_what_the_library_says_is_told_within_a_sentence() -> None:
    for now in (datetime(1960, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)):
        (reason,) = [r for r in judged("tdx", measured("tdx"), now=now).reasons if "dcap-qvl" in r]
        assert reason.startswith("the quote does not hold with this collateral at this time, says dcap-qvl: ")


def test_collateral_from_the_future_is_refused() -> None:
    assert judged("tdx", measured("tdx"), now=datetime(2025, 6, 1, tzinfo=UTC)).status == "contraindicated"


def test_snp_of_another_vendor_chip_or_mode_is_refused() -> None:
    amd, now = Amd(), FROZEN["snp"]
    own = Policy.from_toml(f'kinds = ["snp"]\n[snp]\ntest_roots = ["""{pem(amd.ark)}"""]')
    assert verify(amd.evidence(DATA), own, report_data=DATA, now=now).status == "warning"
    refused(verify(amd.evidence(DATA), Policy.from_toml('kinds = ["snp"]'), report_data=DATA, now=now), "not issued")

    def edit(at: int, value: int) -> Appraisal:
        def change(body: bytearray) -> None:
            body[at] = value

        return verify(amd.evidence(DATA, change=change), own, report_data=DATA, now=now)

    refused(edit(10, 0x0B), "debugging")
    refused(edit(10, 0x07), "migration")
    refused(edit(10, 0x01), "reserved bit")
    refused(edit(420, 0), "chip")
    refused(edit(391, 1), "microcode")
    refused(edit(72, 4), "another kind of key")
    for at in (77, 400, 600):
        with pytest.raises(EvidenceError, match="reserved"):
            edit(at, 1)


@pytest.mark.parametrize("kind", ["tdx", "snp", "sgx"])
def test_sim_evidence_under_a_real_policy_is_refused(kind: str) -> None:
    piece = collect("sim", DATA)
    found = verify(piece, Policy.from_toml(f'kinds = ["{kind}"]'), report_data=DATA, now=FROZEN["tdx"])
    refused(found, "sim is not among the policy's kinds")
    named = Policy.from_toml('kinds = ["sim"]\nsim = true\naccept = ["affirming", "warning"]')
    taken = verify(piece, named, report_data=DATA, now=FROZEN["tdx"])
    assert (taken.status, taken.isolation) == ("warning", "none")
    refused(verify(piece, named, report_data=bytes(64), now=FROZEN["tdx"]), "another nonce")
    for lie in ("tdx", "sgx", "snp"):
        with pytest.raises(EvidenceError):
            verify(replace(piece, kind=lie), Policy.from_toml(LENIENT), report_data=DATA, now=FROZEN["tdx"])


def test_report_data_binds_nonce_key_and_workload() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    axes = {axis: ear._b64(getattr(numbers, axis).to_bytes(32, "big")) for axis in ("x", "y")}
    key = evidence.canonical_key({"kty": "EC", "crv": "P-256", "alg": "ignored", **axes})
    assert list(json.loads(key)) == ["crv", "kty", "x", "y"] and b" " not in key
    base = evidence.report_data(bytes(32), key, bytes(32))
    assert len(base) == 64 and base != evidence.report_data(bytes(31) + b"\1", key, bytes(32))
    assert base != evidence.report_data(bytes(32), key, bytes(31) + b"\1")
    for nonce, public, digest in ((b"short", key, bytes(32)), (bytes(32), b"raw", bytes(32)), (bytes(32), key, b"")):
        with pytest.raises(EvidenceError):
            evidence.report_data(nonce, public, digest)
    for bad in ({}, {"kty": "EC", "crv": "P-384", **axes}, {"kty": "EC", "crv": "P-256", "x": 1, "y": "A"}):
        with pytest.raises(EvidenceError):
            evidence.canonical_key(bad)


def test_evidence_survives_json_and_nothing_else_does() -> None:
    piece = Evidence("snp", b"a" * 9, aux=b"b", certs=(b"c", b"d"), collateral=b"{}")
    assert Evidence.from_json(piece.to_json()) == piece
    for bad in ("", "[]", "{", '{"kind": "sim"}', '{"kind": "sim", "blob": "YQ"}', '{"kind": "sim", "blob": "YR=="}', "[" * 100000,
                '{"kind": "nope", "blob": ""}', '{"kind": "sim", "blob": "", "x": 1}', '{"kind": "sim", "kind": "sim", "blob": ""}',
                '{"kind": ["sim"], "blob": ""}', '{"kind": "sim", "blob": 7}', '{"kind": "sim", "blob": "", "certs": 3}'):  # fmt: skip
        with pytest.raises(EvidenceError):
            Evidence.from_json(bad)
    with pytest.raises(EvidenceError, match="at most"):
        Evidence("sim", bytes(1 << 17))


def test_a_token_says_the_verdict_and_holds_for_a_while() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), FROZEN["tdx"]
    found = judged("tdx", measured("tdx"))
    jwk = {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43, "d": "secret"}
    text = ear.token(found, key, nonce=bytes(32), tee_key=jwk, now=now)
    claims = ear.read(text, key.public_key(), now=now)
    assert claims["submods"]["tdx"]["ear.status"] == "affirming" and claims["eat_nonce"] == "A" * 43
    assert "secret" not in json.dumps(claims) and claims["eat_profile"] == ear.PROFILE
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from joserfc import jwk as jose_jwk
    from joserfc import jwt

    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert jwt.decode(text, jose_jwk.ECKey.import_key(public.decode()), algorithms=["ES256"]).claims == claims
    with pytest.raises(RefusedError, match="time is over"):
        ear.read(text, key.public_key(), now=later(now, minutes=5))
    with pytest.raises(RefusedError, match="not signed by this verifier"):
        ear.read(text, ec.generate_private_key(ec.SECP256R1()).public_key(), now=now)
    head, body, signature = text.split(".")
    none = ear._b64(b'{"alg":"none","typ":"JWT"}')
    for bent in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}",
        f"{head}.{body}.{signature}=",
        "",
        "a.b.c",
    ):
        with pytest.raises(EvidenceError):
            ear.read(bent, key.public_key(), now=now)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "kinds"),
        ("kinds = []", "empty"),
        ('kinds = ["tdx", "quantum"]', "quantum"),
        ('kinds = ["sim"]', "sim = true"),
        ('kinds = ["tdx"]\nsim = true', "sim = true"),
        ('kinds = ["tdx"]\naccept = ["contraindicated"]', "accept"),
        ('kinds = ["tdx"]\n[tdx]\nmr_tdd = []', "mr_tdd"),
        ('kinds = ["tdx"]\n[tdx]\nmr_enclave = ["00"]', "mr_enclave"),
        ('kinds = ["tdx"]\n[tdx]\nmr_td = ["zz"]', "hexadecimal"),
        ('kinds = ["tdx"]\n[tdx]\ntcb = ["Revoked"]', "Revoked"),
        ('kinds = ["tdx"]\nworkloads = ["00"]', "32 bytes"),
        ('kinds = ["snp"]\n[snp]\nmax_vmpl = -1', "max_vmpl"),
        ('kinds = ["snp"]\n[snp]\nmax_vmpl = true', "max_vmpl"),
        ('kinds = ["snp"]\nsnp = 3', "no table"),
        ('kinds = ["tpm"]\n[tpm.pcrs]\n16 = "00"', "reset"),
        ('kinds = ["tpm"]\n[tpm.pcrs]\n23 = "00"', "reset"),
        ('kinds = ["tpm"]\n[tpm]\nek_roots = ["nowhere.pem"]', "nowhere.pem"),
        ('kinds = ["tpm"]\n[tpm]\nek_roots = ["-----BEGIN nonsense"]', "PEM"),
        ('kinds = ["cca"]\n[cca]\nplatform_keys = ["-----BEGIN nonsense"]', "PEM"),
        ("kinds = ", "TOML"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Policy.from_toml(text)


def test_workloads_and_clocks() -> None:
    policy = Policy.from_toml(f'kinds = ["sim"]\nsim = true\nworkloads = ["{"ab" * 32}"]')
    policy.check_workload(bytes.fromhex("ab" * 32))
    with pytest.raises(RefusedError, match="not one of"):
        policy.check_workload(bytes(32))
    with pytest.raises(TrustError, match="time zone"):
        verify(collect("sim", DATA), policy, report_data=DATA, now=datetime(2026, 1, 1))
    with pytest.raises(TrustError, match="expected 64"):
        verify(collect("sim", DATA), policy, report_data=b"", now=FROZEN["tdx"])
