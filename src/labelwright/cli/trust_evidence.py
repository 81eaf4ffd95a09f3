"""trust: attest, verify, policy and doctor."""
