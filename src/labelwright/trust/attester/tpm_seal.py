"""A secret that a TPM gives back only while its registers are as they were: sealing to a PCR policy."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from labelwright.errors import EvidenceError, RefusedError, SealError
from labelwright.trust.attester.tpm import Tpm
from labelwright.trust.evidence import read_object, unbase64
from labelwright.trust.policy import RESETTABLE

MOST = 128  # bytes: a TPM's own limit
NAMES = {"pcrs", "private", "public"}


def seal(tpm: Tpm, secret: bytes, pcrs: Sequence[int]) -> str:
    """``secret`` (1 to 128 bytes) for this TPM and its present registers, as a JSON object. Raises SealError, EvidenceError."""
    if not 1 <= len(secret) <= MOST:
        raise SealError(f"a secret of {len(secret)} bytes; a TPM seals 1 to {MOST}: seal a key, and data with the key")
    bank = _bank(pcrs)
    with tempfile.TemporaryDirectory() as place:
        parent, policy, public, private = (str(Path(place, n)) for n in ("parent", "policy", "public", "private"))
        try:
            tpm.run("createprimary", "-C", "o", "-c", parent)
            _flush(tpm)
            tpm.run("createpolicy", "--policy-pcr", "-l", bank, "-L", policy)
            tpm.run(
                "create", "-C", parent, "-L", policy, "-i", "-", "-u", public, "-r", private,
                "-a", "fixedtpm|fixedparent|noda", given=secret,
            )  # fmt: skip
        finally:
            _flush(tpm)
        parts = {"public": Path(public).read_bytes(), "private": Path(private).read_bytes()}
    fields = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    return json.dumps({"pcrs": bank, **fields}, sort_keys=True)


def unseal(tpm: Tpm, sealed: str) -> bytes:
    """The secret. Raises RefusedError when the registers are others or it is another TPM, SealError when the text is bent."""
    try:
        fields = read_object(sealed, "the sealed secret", NAMES, needs=NAMES)
        parts = {name: unbase64(fields[name], name) for name in ("public", "private")}
        bank = _bank([int(n) for n in str(fields["pcrs"]).removeprefix("sha256:").split(",")])
    except ValueError as error:
        raise SealError(f"the sealed secret cannot be read ({str(error)[:120]}); expected what seal wrote") from error
    with tempfile.TemporaryDirectory() as place:
        parent, loaded, session = (str(Path(place, n)) for n in ("parent", "loaded", "session"))
        for name, part in parts.items():
            Path(place, name).write_bytes(part)
        try:
            tpm.run("createprimary", "-C", "o", "-c", parent)
            _flush(tpm)
            tpm.run("load", "-C", parent, "-u", f"{place}/public", "-r", f"{place}/private", "-c", loaded)
            _flush(tpm)
            tpm.run("startauthsession", "--policy-session", "-S", session)
            tpm.run("policypcr", "-S", session, "-l", bank)
            return tpm.run("unseal", "-c", loaded, "-p", f"session:{session}")
        except EvidenceError as error:
            raise RefusedError(
                f"the TPM does not give the secret: its registers are others, or it is another TPM ({error})"
            ) from error
        finally:
            if Path(session).exists():
                with suppress(EvidenceError):
                    tpm.run("flushcontext", session)
            _flush(tpm)


def _flush(tpm: Tpm) -> None:
    with suppress(EvidenceError):
        tpm.run("flushcontext", "-t")


def _bank(pcrs: Sequence[int]) -> str:
    numbers = sorted(set(pcrs))
    if not numbers or not set(numbers) <= set(range(24)) - set(RESETTABLE):
        raise SealError(
            f"registers {numbers} were named; expected some of 0-15 and 17-22, which nobody can reset at will"
        )
    return "sha256:" + ",".join(map(str, numbers))
