"""trust: attest, verify, policy, enrol and doctor."""

from __future__ import annotations

import json as json_module
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from labelwright.cli.app import say
from labelwright.cli.common import Json
from labelwright.cli.trust import trust
from labelwright.errors import SettingsError

Nonce = Annotated[str | None, typer.Option(help="the verifier's nonce, hexadecimal, at least 16 bytes")]
Key = Annotated[Path | None, typer.Option(help="the ephemeral public key, a JWK file (EC P-256)")]
Workload = Annotated[str | None, typer.Option(help="SHA-256 of the workload, hexadecimal")]
Data = Annotated[str | None, typer.Option(help="report data instead of nonce, key and workload: 64 bytes, hexadecimal")]
Folder = Annotated[Path, typer.Option("--tpm-folder", help="where enrolment left the TPM's certificates")]
Tcti = Annotated[str, typer.Option(help="how to reach the TPM, as tpm2-tools say it")]


def _hex(text: str, name: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise SettingsError(f"{name} is {text[:40]!r}; expected hexadecimal digits, two a byte") from error


def _report_data(nonce: str | None, key: Path | None, workload: str | None, data: str | None) -> bytes | None:
    """The 64 bytes that evidence is bound to, or None when nothing was given."""
    from labelwright.trust.evidence import canonical_key, read_object, report_data
    from labelwright.trust.files import read_bytes

    if data is not None:
        found = _hex(data, "--data")
        if len(found) != 64 or nonce or key or workload:
            raise SettingsError(
                f"--data has {len(found)} bytes; expected 64, and no --nonce, --key or --workload beside it"
            )
        return found
    if nonce is None and key is None and workload is None:
        return None
    if nonce is None or key is None or workload is None:
        raise SettingsError("--nonce, --key and --workload belong together: evidence is bound to all three")
    members = {"kty", "crv", "x", "y", "kid", "use", "alg", "key_ops"}
    public = canonical_key(read_object(read_bytes(key), f"the key {key}", members, needs={"kty"}))
    return report_data(_hex(nonce, "--nonce"), public, _hex(workload, "--workload"))


def _evidence(path: Path, kind: str | None, collateral: Path | None, certs: list[Path]) -> Any:
    """Evidence from what 'attest' wrote, or from a raw quote, report or token of the kind named."""
    from labelwright.trust.evidence import Evidence
    from labelwright.trust.files import read_bytes
    from labelwright.trust.layouts import blob_of
    from labelwright.trust.verify.chain import certificate, pem_certificates

    raw = read_bytes(path)
    from cryptography.hazmat.primitives.serialization import Encoding

    ders: list[bytes] = []
    for cert in certs:
        content = read_bytes(cert)
        found = pem_certificates(content) if content.lstrip().startswith(b"-----") else [certificate(content)]
        ders += [c.public_bytes(Encoding.DER) for c in found]
    piece = Evidence(kind, blob_of(kind, raw, ders)) if kind is not None else Evidence.from_json(raw)
    if collateral is not None:
        piece = replace(piece, collateral=read_bytes(collateral))
    return replace(piece, certs=(*piece.certs, *ders))


@trust.command(
    epilog="Example: labelwright trust attest --kind tdx --nonce 00112233445566778899aabbccddeeff --key tee.jwk"
    " --workload 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --output evidence.json"
)
def attest(
    kind: Annotated[str, typer.Option(help="tdx, snp, cca, sgx, tpm or sim; see 'trust doctor'")],
    output: Annotated[Path | None, typer.Option(help="write the evidence here; default: print it")] = None,
    nonce: Nonce = None,
    key: Key = None,
    workload: Workload = None,
    data: Data = None,
    vmpl: Annotated[int | None, typer.Option(help="snp: privilege level, 0 to 3")] = None,
    tpm_folder: Folder = Path("tpm"),
    tcti: Tcti = "device:/dev/tpmrm0",
    pcrs: Annotated[str, typer.Option(help="tpm: registers to quote")] = "0,1,2,3,4,5,6,7",
    json: Json = False,
) -> None:
    """Collect evidence of where this runs, bound to a nonce, a key and a workload."""
    from labelwright.trust.attester import collect

    bound = _report_data(nonce, key, workload, data)
    if bound is None:
        raise SettingsError("evidence must be bound to something: give --nonce, --key and --workload, or --data")
    options: dict[str, Any] = {}
    if kind == "tpm":
        try:
            options = {"folder": tpm_folder, "tcti": tcti, "pcrs": [int(n) for n in pcrs.split(",")]}
        except ValueError as error:
            raise SettingsError(f"--pcrs is {pcrs!r}; expected numbers with commas, e.g. 0,1,7") from error
    elif vmpl is not None:
        options = {"vmpl": vmpl} if kind == "snp" else {}
    piece = collect(kind, bound, **options)
    isolation = "none" if kind == "sim" else "see 'trust verify'"
    if output is None:
        print(piece.to_json())
        return
    output.write_text(piece.to_json())
    told = {"output": str(output), "kind": kind, "bytes": len(piece.blob), "isolation": isolation}
    say(
        told,
        as_json=json,
        text=f"wrote {output}: {len(piece.blob):,} bytes of {kind} evidence (isolation: {isolation})",
    )


@trust.command(epilog="Example: labelwright trust verify evidence.json --policy policy.toml")
def verify(
    file: Annotated[Path, typer.Argument(help="what 'attest' wrote; with --kind a raw quote, report or token")],
    policy: Annotated[Path, typer.Option(help="the policy, TOML")],
    kind: Annotated[str | None, typer.Option(help="the file is raw evidence of this kind")] = None,
    collateral: Annotated[Path | None, typer.Option(help="Intel: JSON; AMD: revocation list, DER")] = None,
    cert: Annotated[list[Path] | None, typer.Option(help="certificates, DER or PEM; may be repeated")] = None,
    nonce: Nonce = None,
    key: Key = None,
    workload: Workload = None,
    data: Data = None,
    at: Annotated[str | None, typer.Option(help="judge as of this time, e.g. 2025-06-19T11:00:00+00:00")] = None,
    signing_key: Annotated[Path | None, typer.Option(help="sign the verdict with this EC P-256 key (PEM)")] = None,
    token: Annotated[Path | None, typer.Option(help="write the signed verdict (EAR, JWT) here")] = None,
    json: Json = False,
) -> None:
    """Judge evidence by a policy; exit code 0 when the policy accepts it, 1 when not."""
    from labelwright.trust.policy import Policy
    from labelwright.trust.verify import verify as judge

    rules = Policy.read(policy)
    bound = _report_data(nonce, key, workload, data)
    if workload is not None:
        rules.check_workload(_hex(workload, "--workload"))
    found = judge(_evidence(file, kind, collateral, cert or []), rules, report_data=bound, now=moment(at))
    if (signing_key is None) != (token is None):
        raise SettingsError("--signing-key and --token belong together")
    if signing_key is not None and token is not None:
        token.write_text(_sign(found, signing_key, nonce, key, moment(at)))
    accepted = found.status in rules.accept
    lines = [
        f"{found.status} ({found.kind}; isolation: {found.isolation})",
        *(f"- {reason}" for reason in found.reasons),
    ]
    lines.append(
        "the policy accepts it" if accepted else f"REFUSED: the policy accepts {' and '.join(rules.accept)} only"
    )
    say(found.as_json() | {"accepted": accepted}, as_json=json, text="\n".join(lines))
    if not accepted:
        raise typer.Exit(1)


def moment(at: str | None) -> datetime:
    """The time that an option says, in UTC unless it says otherwise; without one, now. Raises SettingsError."""
    if at is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(at)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"--at is {at!r}; expected a time such as 2025-06-19T11:00:00+00:00") from error


def _sign(found: Any, signing_key: Path, nonce: str | None, key: Path | None, now: datetime) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from labelwright.trust import ear
    from labelwright.trust.files import SMALL, read_bytes

    try:
        signer = load_pem_private_key(read_bytes(signing_key, SMALL), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{signing_key} is no private key without a password; expected EC P-256 in PEM") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey) or signer.curve.name != "secp256r1":
        raise SettingsError(
            f"{signing_key} is no EC P-256 key; make one with: openssl ecparam -name prime256v1 -genkey -noout"
        )
    tee_key = json_module.loads(read_bytes(key)) if key is not None else {}
    return ear.token(found, signer, nonce=_hex(nonce or "", "--nonce"), tee_key=tee_key, now=now)


@trust.command(epilog="Example: labelwright trust policy policy.toml")
def policy(
    file: Annotated[Path, typer.Argument(help="a policy to check; with --from, where to write one")],
    evidence: Annotated[
        Path | None, typer.Option("--from", help="draft it from this evidence, believed as it stands")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="with --from: the file is raw evidence of this kind")] = None,
    cert: Annotated[list[Path] | None, typer.Option(help="with --from: certificates, DER or PEM")] = None,
    json: Json = False,
) -> None:
    """Check a policy and say what it asks for, or draft one."""
    from labelwright.trust.drafting import draft
    from labelwright.trust.policy import Policy

    if evidence is not None:
        if file.exists():
            raise SettingsError(f"{file} exists; name another file, so that no policy is lost")
        text = draft(_evidence(evidence, kind, None, cert or []))
        file.write_text(text)
        say({"output": str(file)}, as_json=json, text=f"wrote {file}; read it before you use it:\n\n{text}")
        return
    told = Policy.read(file).describe()
    lines = [f"{key}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in told.items()]
    say(told, as_json=json, text="\n".join(lines))


@trust.command(epilog="Example: labelwright trust enrol --new-ca --ca ca.pem --ca-key ca-key.pem --policy tpm.toml")
def enrol(
    ca: Annotated[Path, typer.Option(help="the enrolling CA's certificate, PEM")],
    ca_key: Annotated[Path, typer.Option(help="its key, PEM; keep it off this machine once enrolment is done")],
    policy: Annotated[Path, typer.Option(help="a policy whose [tpm] names CAs of TPM makers (ek_roots or test_roots)")],
    new_ca: Annotated[bool, typer.Option("--new-ca", help="make the CA first")] = False,
    chain: Annotated[
        list[Path] | None, typer.Option(help="PEM certificates between the TPM's and its maker's root")
    ] = None,
    tpm_folder: Folder = Path("tpm"),
    tcti: Tcti = "device:/dev/tpmrm0",
    json: Json = False,
) -> None:
    """Make the TPM's quoting key and certify it, after the TPM has shown that it holds both keys (credential activation)."""
    from labelwright.trust.enrolling import enrol_here, write_ca
    from labelwright.trust.policy import Policy

    rules = Policy.read(policy)
    if new_ca:
        write_ca(ca, ca_key)
    told = enrol_here(tpm_folder, tcti, rules, ca=ca, ca_key=ca_key, chain=chain or [])
    say(
        told,
        as_json=json,
        text=f"enrolled the quoting key of TPM {told['tpm'][:16]}… in {tpm_folder}; name {ca} in enrolment_roots",
    )


@trust.command(epilog="Example: labelwright trust doctor")
def doctor(json: Json = False) -> None:
    """Which TEEs this machine has, what each would prove, and what it would not."""
    from labelwright.trust.doctor import examine

    rows = examine()
    if json:
        say(rows, as_json=True)
        return
    console = Console(width=max(72, shutil.get_terminal_size().columns))
    table = Table(title="Trusted execution environments", show_lines=True)
    for name in ("", "protects", "memory", "cost"):
        table.add_column(name)
    for row in rows:
        table.add_row(row["name"], row["protects"], row["memory"], row["cost"])
    console.print(table)
    for row in rows:
        console.print(
            f"[bold]{row['name']}[/bold] — {'HERE' if row['here'] else 'not here'}: {row['why']}", highlight=False
        )
        console.print(f"  would prove: {row['proves']}", highlight=False)
        console.print(f"  would not prove: {row['proves_not']}", highlight=False)
    real = [row["name"] for row in rows if row["here"] and row["kind"] in ("tdx", "snp", "sgx", "cca")]
    print(
        f"isolation here: hardware ({', '.join(real)})"
        if real
        else "isolation here: none; root and the host can read everything"
    )
