"""What each kind of evidence would prove, what it would not, and which of them this machine can give."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Tee:
    """One row of the comparison. Costs are what makers and the literature report, in kind; nothing here was measured."""

    kind: str
    name: str
    protects: str
    memory: str
    cost: str
    proves: str
    proves_not: str


PHYSICAL = "nor against a physical interposer on the memory bus (TEE.fail, WireTap), nor against side channels"
TEES = (
    Tee(
        "tdx",
        "Intel TDX",
        "a whole virtual machine's memory and registers, from hypervisor and host",
        "all of the machine's",
        "low for computing; more for input and output, which go through shared pages",
        "which firmware, kernel and command line started (MRTD, RTMRs), on a genuine processor at this TCB level",
        f"that the code behaves; {PHYSICAL}",
    ),
    Tee(
        "snp",
        "AMD SEV-SNP",
        "a whole virtual machine's memory and registers, from hypervisor and host",
        "all of the machine's",
        "low for computing; more for input and output, which go through shared pages",
        "what was loaded at launch (measurement), at which privilege level, on a genuine chip at this TCB level",
        f"what was loaded later, unless the launch image checks it; {PHYSICAL}",
    ),
    Tee(
        "sgx",
        "Intel SGX with Gramine",
        "one process, also from its own operating system",
        "the enclave page cache: 128 or 256 MB on older processors, many GB on servers since 2021; beyond it, slow paging",
        "each system call leaves the enclave; high where memory exceeds the page cache",
        "exactly which code and files the enclave holds (MRENCLAVE), on a genuine processor at this TCB level",
        f"when and in which order the host answers; {PHYSICAL}",
    ),
    Tee(
        "cca",
        "Arm CCA realms",
        "a whole realm's memory and registers, from hypervisor and host",
        "all of the machine's",
        "not known: hardware is scarce",
        "which realm image started, if you hold the platform's key",
        "anything without the platform's key; nor side channels",
    ),
    Tee(
        "h100",
        "NVIDIA H100, confidential mode",
        "the GPU's memory, and what goes over the bus",
        "the GPU's 80 GB",
        "low for computing; transfers are encrypted through bounce buffers",
        "which firmware and driver the GPU runs; secondary evidence, beside a processor's",
        "which machine the GPU is in, or who talks to it",
    ),
    Tee(
        "tpm",
        "TPM 2.0",
        "keys; no memory",
        "none",
        "none while running; a quote takes part of a second",
        "which software booted (registers), by a chip whose maker is known",
        "that nobody reads the memory: root and the host can; nor which program asked for the quote; a software TPM proves nothing "
        "against its own host",
    ),
    Tee(
        "trustzone",
        "Arm TrustZone",
        "a small trusted application, from the operating system",
        "a few MB: too small for a learner, good for a key",
        "low",
        "nothing to this verifier: there is no common remote attestation",
        "anything about a learner; use CCA realms on Arm",
    ),
    Tee(
        "sim",
        "simulation",
        "nothing",
        "all",
        "none",
        "nothing: anybody can make this evidence; for development",
        "anything; isolation: none",
    ),
)  # fmt: skip


def examine() -> list[dict[str, Any]]:
    """The comparison, each row with ``here`` and ``why`` for this machine.

    >>> [row["kind"] for row in examine()][-1]
    'sim'
    """
    from labelwright.trust.attester import available

    here = {entry["kind"]: entry for entry in available()}
    absent = {"here": False, "why": "labelwright does not look for it"}
    return [asdict(tee) | {k: here.get(tee.kind, absent)[k] for k in ("here", "why")} for tee in TEES]
