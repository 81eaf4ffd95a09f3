"""Trusted execution: the learner works on data that its host cannot read, and proves it (the paper's section V, Fig. 8).

Roles (RFC 9334): the *attester* runs inside, the *verifier* judges its evidence, the *key broker* hands keys to what the verifier
affirms, the *host* is untrusted: it stores ciphertext and moves chunks. Needs ``pip install 'labelwright[trust]'``.
"""
