"""trust: seal, unseal and broker."""
