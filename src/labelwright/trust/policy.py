"""What a relying party wants to see before it hands over a key, in TOML.

A key that is left out is not asked for, but a policy without reference values never gets beyond ``warning``:
genuine hardware running unknown code. An unknown key is an error, because a misspelt rule would silently not be asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labelwright.errors import RefusedError, SettingsError
from labelwright.toml import tables_of
from labelwright.trust.appraisal import STATUSES, Appraisal
from labelwright.trust.evidence import KINDS
from labelwright.trust.files import read_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate

INTEL_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)
RESETTABLE = (16, 23)  # TPM registers that anybody may set back to zero
Texts = tuple[str, ...]


@dataclass(frozen=True)
class IntelRules:
    """``[tdx]`` and ``[sgx]``: TCB status, advisories, measurements (hexadecimal), roots of a test's own (PEM)."""

    tcb: Texts = ("UpToDate",)
    tcb_warning: Texts = ()
    refused_advisories: Texts = ()
    min_evaluation: int = 0
    test_roots: Texts = ()
    mr_td: Texts = ()
    rt_mr0: Texts = ()
    rt_mr1: Texts = ()
    rt_mr2: Texts = ()
    rt_mr3: Texts = ()
    mr_seam: Texts = ()
    mr_config_id: Texts = ()
    mr_owner: Texts = ()
    mr_enclave: Texts = ()
    mr_signer: Texts = ()
    isv_prod_id: int | None = None
    min_isv_svn: int | None = None


@dataclass(frozen=True)
class SnpRules:
    """``[snp]``: launch measurements, highest VMPL, lowest TCB and SVN, allowed chips, roots of a test's own."""

    measurement: Texts = ()
    id_key_digest: Texts = ()
    chip_id: Texts = ()
    max_vmpl: int = 0
    min_svn: int = 0
    min_bootloader: int = 0
    min_tee: int = 0
    min_snp: int = 0
    min_microcode: int = 0
    allow_migration: bool = False
    require_crl: bool = False
    test_roots: Texts = ()


@dataclass(frozen=True)
class TpmRules:
    """``[tpm]``: expected registers, CAs of TPM makers, test-only CAs of software TPMs, CAs that enrolled the quoting keys.

    affirm: a maker's TPM whose registers are as expected is affirming, though it encrypts no memory and isolation stays none.
    """

    pcrs: dict[int, Texts] = field(default_factory=dict)
    ek_roots: Texts = ()
    test_roots: Texts = ()
    enrolment_roots: Texts = ()
    affirm: bool = False


@dataclass(frozen=True)
class CcaRules:
    """``[cca]``: public keys of platforms (PEM), realm measurements."""

    platform_keys: Texts = ()
    measurement: Texts = ()
    implementation_id: Texts = ()


@dataclass(frozen=True)
class H100Rules:
    """``[h100]``: expected measurement blocks of the GPU, by index; roots of a test's own."""

    measurements: dict[int, Texts] = field(default_factory=dict)
    test_roots: Texts = ()


Rules = TypeVar("Rules", IntelRules, SnpRules, TpmRules, CcaRules, H100Rules)
QUOTE = {"tcb", "tcb_warning", "refused_advisories", "min_evaluation", "test_roots"}
SGX = {"mr_enclave", "mr_signer", "isv_prod_id", "min_isv_svn"}
TDX = {"mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3", "mr_seam", "mr_config_id", "mr_owner"}
FILES = {"test_roots", "ek_roots", "enrolment_roots", "platform_keys"}
HEX = (SGX | TDX | {"measurement", "id_key_digest", "chip_id", "implementation_id"}) - {"isv_prod_id", "min_isv_svn"}


@dataclass(frozen=True)
class Policy:
    """What is accepted.

    kinds: kinds of evidence. accept: statuses that release a key. workloads: hexadecimal SHA-256 of workload.toml.
    sim: self-signed evidence of a development machine counts (never affirming).

    >>> policy = Policy.from_toml('kinds = ["tdx"]\\n[tdx]\\nmr_td = ["' + "00" * 48 + '"]')
    >>> policy.accept
    ('affirming',)
    """

    kinds: Texts
    accept: Texts = ("affirming",)
    workloads: Texts = ()
    sim: bool = False
    tdx: IntelRules = IntelRules()
    sgx: IntelRules = IntelRules()
    snp: SnpRules = SnpRules()
    tpm: TpmRules = TpmRules()
    cca: CcaRules = CcaRules()
    h100: H100Rules = H100Rules()
    name: str = "policy"

    @classmethod
    def read(cls, path: str | Path) -> Policy:
        """Read a TOML file; names of certificate files count from its folder. Raises SettingsError."""
        path = Path(path)
        try:
            return cls.from_toml(read_text(path), folder=path.parent)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SettingsError(f"the policy {path} cannot be read ({why}); check the path") from error

    @classmethod
    def from_toml(cls, text: str, *, folder: Path = Path(".")) -> Policy:
        """The policy that ``text`` says. Raises SettingsError naming the first rule that is wrong."""
        table = tables_of(text, "the policy")
        _known(table, {f.name for f in fields(cls)}, "the policy")
        values: dict[str, Any] = {
            "kinds": _choices(table.get("kinds"), "kinds", KINDS),
            "accept": _choices(table.get("accept", ["affirming"]), "accept", STATUSES[:2]),
            "workloads": _hexes(table.get("workloads", []), "workloads", 32),
            "sim": _of(table.get("sim", False), bool, "sim"),
            "name": _of(table.get("name", "policy"), str, "name"),
        }
        for name, rules in (("tdx", IntelRules), ("sgx", IntelRules), ("snp", SnpRules), ("cca", CcaRules)):
            values[name] = _rules(rules, table.get(name, {}), name, folder)  # type: ignore[type-var]
        values["tpm"] = _rules(TpmRules, table.get("tpm", {}), "tpm", folder)
        values["h100"] = _rules(H100Rules, table.get("h100", {}), "h100", folder)
        policy = cls(**values)
        if policy.sim != ("sim" in policy.kinds):
            raise SettingsError("'sim' in the policy's kinds and 'sim = true' stand together or not at all")
        return policy

    def check_workload(self, digest: bytes) -> None:
        """Raise RefusedError unless the workload is one of those named; a policy that names none accepts all."""
        if self.workloads and digest.hex() not in self.workloads:
            raise RefusedError(f"the workload {digest.hex()[:16]}… is not one of the policy's {len(self.workloads)}")

    def check(self, appraisal: Appraisal) -> None:
        """Raise RefusedError unless the appraisal's status is one that releases a key."""
        if appraisal.status not in self.accept:
            raise RefusedError(
                f"the {appraisal.kind} evidence is {appraisal.status} and the policy accepts "
                f"{' and '.join(self.accept)} only: {'; '.join(appraisal.reasons)}"
            )

    def describe(self) -> dict[str, Any]:
        """What it asks for, as JSON values: only the tables of its kinds, and only rules that were given."""
        told: dict[str, Any] = {"kinds": list(self.kinds), "accept": list(self.accept), "isolation": self._isolation()}
        if self.workloads:
            told["workloads"] = list(self.workloads)
        for kind in self.kinds:
            rules = getattr(self, kind)
            for rule in () if kind == "sim" else fields(rules):
                value = getattr(rules, rule.name)
                if value not in (None, (), {}, 0, False) or rule.name == "max_vmpl":
                    shown = (
                        [f"{len(value)} PEM"]
                        if rule.name in FILES
                        else list(value)
                        if isinstance(value, tuple)
                        else value
                    )
                    told[f"{kind}.{rule.name}"] = shown
        return told

    def _isolation(self) -> str:
        weak = self.sim or any(self.certificates[f"{t}.test_roots"] for t in ("tdx", "sgx", "snp", "tpm", "h100"))
        weak = weak or "tpm" in self.kinds
        return "none is accepted" if (weak and "warning" in self.accept) or self.tpm.affirm else "hardware is asked for"

    @cached_property
    def certificates(self) -> dict[str, tuple[Certificate, ...]]:
        """The policy's own CAs, by ``table.key``."""
        from labelwright.trust.verify.chain import pem_certificates

        found = {}
        for table in ("tdx", "sgx", "snp", "tpm", "h100"):
            for key in ("test_roots", "ek_roots", "enrolment_roots"):
                pems = getattr(getattr(self, table), key, ())
                found[f"{table}.{key}"] = tuple(c for pem in pems for c in pem_certificates(pem.encode()))
        return found

    @cached_property
    def platform_keys(self) -> tuple[EllipticCurvePublicKey, ...]:
        """Keys of Arm platforms."""
        from labelwright.trust.verify.chain import public_key

        return tuple(public_key(pem.encode()) for pem in self.cca.platform_keys)


def _known(table: Any, known: set[str], where: str) -> None:
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is no table; write it as [{where}] with one rule a line")
    for key in table:
        if key not in known:
            raise SettingsError(f"{where} has no rule {key[:40]!r}; expected one of {', '.join(sorted(known))}")


def _rules(kind: type[Rules], table: Any, where: str, folder: Path) -> Rules:
    known = {f.name for f in fields(kind)}
    if kind is IntelRules:
        known = QUOTE | (SGX if where == "sgx" else TDX)
    _known(table, known, where)
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}.{key}"
        if key in ("pcrs", "measurements"):
            values[key] = _registers(value, name)
        elif key in ("tcb", "tcb_warning"):
            values[key] = _choices(value, name, INTEL_STATUSES)
        elif key in FILES:
            values[key] = tuple(_pem(item, name, folder) for item in _texts(value, name))
        elif key in HEX:
            values[key] = _hexes(value, name, None)
        elif key == "refused_advisories":
            values[key] = _texts(value, name)
        elif key in ("allow_migration", "require_crl", "affirm"):
            values[key] = _of(value, bool, name)
        else:
            values[key] = _of(value, int, name)
    return kind(**values)


def _registers(table: Any, name: str) -> dict[int, Texts]:
    _known(table, {str(n) for n in range(256)}, name)
    found = {
        int(n): _hexes([value] if isinstance(value, str) else value, f"{name}.{n}", None) for n, value in table.items()
    }
    if name == "tpm.pcrs":
        for number in found:
            if number in RESETTABLE or number > 23:
                raise SettingsError(
                    f"{name} asks for register {number}, which does not exist or anybody can reset: it proves nothing; "
                    "use 0-15 or 17-22"
                )
    return found


def _texts(value: Any, name: str) -> Texts:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{name} is {str(value)[:40]!r}; expected a list of texts")
    return tuple(value)


def _choices(value: Any, name: str, known: Any) -> Texts:
    for item in _texts(value, name):
        if item not in known:
            raise SettingsError(f"{name} has {item[:40]!r}; expected some of {', '.join(known)}")
    if not value:
        raise SettingsError(f"{name} is empty: nothing would be accepted; expected some of {', '.join(known)}")
    return tuple(value)


def _hexes(value: Any, name: str, length: int | None) -> Texts:
    found = tuple(item.lower().removeprefix("0x") for item in _texts(value, name))
    for item in found:
        try:
            size = len(bytes.fromhex(item))
        except ValueError:
            size = -1
        if " " in item or size < 1 or (length and size != length):
            raise SettingsError(
                f"{name} has {item[:40]!r}; expected hexadecimal digits{f' of {length} bytes' * bool(length)}"
            )
    return found


def _of(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise SettingsError(
            f"{name} is {str(value)[:40]!r}; expected {'a number of 0 or more' if kind is int else kind.__name__}"
        )
    return value


def _pem(item: str, name: str, folder: Path) -> str:
    text = item
    if not item.lstrip().startswith("-----BEGIN"):
        try:
            text = read_text(folder / item)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{name} names {item[:80]!r}, which cannot be read; expected a PEM file or its text"
            ) from error
    from labelwright.trust.verify.chain import pem_certificates, public_key

    try:
        (public_key if name == "cca.platform_keys" else pem_certificates)(text.encode())
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error
    return text
