"""Random streams that follow from names alone."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 32  # so many consecutive samples share a generator


def derive_seed(*names: int | str) -> int:
    """Hash names to a seed in [0, 2**63): the same names give the same seed on every machine."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(*names: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded from names, e.g. ``generator(seed, "train", epoch)``."""
    return torch.Generator(device).manual_seed(derive_seed(*names))


def for_samples(
    samples: Tensor, draw: Callable[[int, torch.Generator], Tensor], *names: int | str
) -> Tensor:
    """Draw what each sample has of its own, (B, ...), whichever others are drawn with it.

    The samples' numbers, (B,), int64, are fastest in whole consecutive blocks. ``draw`` makes the
    draws of so many, (n, ...), from a generator, on its device. Names say what the random stream is
    for, e.g. ``seed, "train", epoch, "noise"``.
    """
    whole, place = whole_blocks(samples)
    blocks = (whole[::BLOCK] // BLOCK).tolist()
    drawn = [draw(BLOCK, generator(*names, block, device=samples.device)) for block in blocks]
    return torch.cat(drawn)[place]


def whole_blocks(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return all samples of the blocks that samples (B,) are in, and where in them these are."""
    blocks, place = torch.unique(samples // BLOCK, return_inverse=True)
    if not len(samples):  # a device that is left none: draws have their shape all the same
        blocks = blocks.new_zeros(1)
    within = torch.arange(BLOCK, device=samples.device)
    return (blocks[:, None] * BLOCK + within).flatten(), place * BLOCK + samples % BLOCK
