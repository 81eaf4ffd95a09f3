"""A TPM 2.0 through tpm2-tools (Debian: tpm2-tools). Small TPMs have three transient slots: flushed after each step.

Life of a quoting key (AK): ``Tpm.create`` makes it under the endorsement key (EK); an enrolling CA sends a credential that
only this TPM can open (``verify.enrol``); ``Tpm.activate`` opens it; the CA certifies; ``collect`` quotes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from labelwright.errors import EvidenceError
from labelwright.trust.evidence import Evidence
from labelwright.trust.verify.tpm import TpmQuote, nonce_of

DEVICE = "device:/dev/tpmrm0"
HANDLE = 0x8101A11C  # where the quoting key stays
EK_CERTIFICATE = 0x01C00002  # RSA 2048, TCG EK Credential Profile
PCRS = (0, 1, 2, 3, 4, 5, 6, 7)
SECONDS = 60
TRIES = 3


def collect(data: bytes, *, folder: Path, tcti: str = DEVICE, pcrs: Sequence[int] = PCRS) -> Evidence:
    """Quote registers over 64 bytes of report data, with the certificates that enrolment left in ``folder``.

    Raises EvidenceError without a TPM, without enrolment, and when a tool fails.
    """
    names = ["ak.der", "ek.der", *sorted(p.name for p in folder.glob("ek-chain-*.der"))]
    try:
        certs = tuple((folder / name).read_bytes() for name in names)
    except OSError as error:
        raise EvidenceError(
            f"{folder} holds no enrolled quoting key ({error.strerror}); run 'labelwright trust enrol' once"
        ) from error
    return Evidence("tpm", Tpm(folder, tcti=tcti).quote(data, pcrs).encode(), certs=certs)


class Tpm:
    """One TPM and the folder in which the public parts of its quoting key lie.

    tcti: how to reach it, as tpm2-tools say it. handle: the persistent place of the quoting key.
    """

    def __init__(self, folder: Path, *, tcti: str = DEVICE, handle: int = HANDLE) -> None:
        self.folder, self.tcti, self.handle = folder, tcti, f"{handle:#x}"

    def ek_certificate(self) -> bytes:
        """The TPM maker's certificate from its non-volatile memory, DER. Raises EvidenceError."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "ek.der")
            self._run("nvread", "-C", "o", f"{EK_CERTIFICATE:#x}", "-o", str(path))
            der = path.read_bytes()
        if der[:2] != b"\x30\x82" or len(der) < 4:
            raise EvidenceError("the TPM's EK certificate is not DER; its maker may offer it on a web site")
        return der[: 4 + int.from_bytes(der[2:4], "big")]  # some TPMs pad it

    def create(self) -> bytes:
        """Make the quoting key (ECDSA P-256, restricted) anew, keep it in the TPM; its public area (TPM2B_PUBLIC)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        public = self.folder / "ak.pub"
        with tempfile.TemporaryDirectory() as place:
            ek, ak = str(Path(place, "ek.ctx")), str(Path(place, "ak.ctx"))
            if self.handle in self._run("getcap", "handles-persistent").lower():
                if not public.exists():
                    raise EvidenceError(
                        f"the TPM holds another key at {self.handle}; remove it with tpm2_evictcontrol, or name a handle"
                    )
                self._run("evictcontrol", "-C", "o", "-c", self.handle)
            self._ek(ek)
            self._run("createak", "-C", ek, "-c", ak, "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", str(public))
            self._flush()
            self._run("evictcontrol", "-C", "o", "-c", ak, self.handle)
            self._flush()
        return public.read_bytes()

    def activate(self, credential: bytes) -> bytes:
        """Open a credential (``verify.enrol.challenge``); its secret shows that both keys live here. Raises EvidenceError."""
        with tempfile.TemporaryDirectory() as place:
            ek, session, box, out = (str(Path(place, n)) for n in ("ek.ctx", "session", "box", "out"))
            Path(box).write_bytes(credential)
            self._ek(ek)
            try:
                self._run("startauthsession", "--policy-session", "-S", session)
                self._run("policysecret", "-S", session, "-c", "e")
                self._run(
                    "activatecredential", "-c", self.handle, "-C", ek, "-i", box, "-o", out, "-P", f"session:{session}"
                )
                return Path(out).read_bytes()
            finally:
                if Path(session).exists():
                    self._run("flushcontext", session)
                self._flush()

    def quote(self, data: bytes, pcrs: Sequence[int] = PCRS) -> TpmQuote:
        """Quote SHA-256 registers over report data. Raises EvidenceError."""
        if not pcrs or not set(pcrs) <= set(range(24)):
            raise EvidenceError(f"registers {list(pcrs)} were asked for; expected some of 0 to 23")
        numbers = sorted(set(pcrs))
        bank = "sha256:" + ",".join(map(str, numbers))
        for _ in range(TRIES):
            with tempfile.TemporaryDirectory() as place:
                message, signature, values = (Path(place, n) for n in ("message", "signature", "values"))
                self._run(
                    "quote", "-c", self.handle, "-l", bank, "-q", nonce_of(data).hex(), "-g", "sha256",
                    "-m", str(message), "-s", str(signature),
                )  # fmt: skip
                self._flush()
                self._run("pcrread", bank, "-o", str(values))
                raw = values.read_bytes()
                registers = {n: raw[32 * i : 32 * i + 32] for i, n in enumerate(numbers)}
                found = TpmQuote(message.read_bytes(), signature.read_bytes(), registers)
            if found.consistent():
                return found
        raise EvidenceError(
            "the TPM's registers changed while they were quoted; wait until the machine has booted, and ask again"
        )

    def _ek(self, context: str) -> None:
        self._run("createek", "-c", context, "-G", "rsa")
        self._flush()

    def _flush(self) -> None:
        self._run("flushcontext", "-t")

    def _run(self, tool: str, *arguments: str) -> str:
        """One tool; what it prints. Raises EvidenceError with the tool's own words."""
        return self.run(tool, *arguments).decode("utf-8", "replace")

    def run(self, tool: str, *arguments: str, given: bytes = b"") -> bytes:
        """As ``_run``, with bytes in and out: secrets touch no disk."""
        environment = {**os.environ, "TPM2TOOLS_TCTI": self.tcti, "TSS2_LOG": "all+none"}
        try:
            done = subprocess.run(
                [f"tpm2_{tool}", *arguments], env=environment, capture_output=True, timeout=SECONDS, input=given
            )
        except FileNotFoundError as error:
            raise EvidenceError(f"tpm2_{tool} is not installed; install tpm2-tools") from error
        except subprocess.TimeoutExpired as error:
            raise EvidenceError(f"the TPM at {self.tcti} did not answer within {SECONDS} s") from error
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            raise EvidenceError(f"tpm2_{tool} failed on {self.tcti}: {words[0][:200]}")
        return done.stdout
