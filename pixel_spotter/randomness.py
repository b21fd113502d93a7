"""Random streams that follow from names alone."""

import hashlib

import torch


def derive_seed(*names: int | str) -> int:
    """Hash names to a seed in [0, 2**63): the same names give the same seed on every machine."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(*names: int | str) -> torch.Generator:
    """Return a CPU generator seeded from names, e.g. ``generator(seed, "train", epoch)``."""
    return torch.Generator().manual_seed(derive_seed(*names))
