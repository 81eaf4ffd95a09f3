"""Self-signed evidence for development; refused unless the policy names it, and never affirming."""

from __future__ import annotations

from labelwright.trust.evidence import Evidence


def collect(data: bytes) -> Evidence:
    """Sign 64 bytes of report data with a key made for the purpose and thrown away.

    >>> collect(bytes(64)).kind
    'sim'
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    from labelwright.trust.verify.sim import LABEL, encode

    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    r, s = decode_dss_signature(key.sign(LABEL + data, ec.ECDSA(hashes.SHA256())))

    def pair(a: int, b: int) -> bytes:
        return a.to_bytes(32, "big") + b.to_bytes(32, "big")

    return Evidence("sim", encode({"key": pair(numbers.x, numbers.y), "report_data": data, "signature": pair(r, s)}))
