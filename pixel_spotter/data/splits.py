"""How positions are shared out between train, val and test: by one of `SPLITS`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import Size, all_positions
from pixel_spotter.randomness import generator


class Split(NamedTuple):
    """Positions (x, y) of each part: (N, 2), int64."""

    train: Tensor
    val: Tensor
    test: Tensor


Counts = tuple[int, int, int]  # of each part, that settings ask for; a split may have its own


def _uniform(positions: Tensor, size: Size, counts: Counts, rng: torch.Generator) -> Split:
    _, val_count, test_count = counts
    order = torch.randperm(len(positions), generator=rng)
    test, val, train = positions[order].tensor_split([test_count, test_count + val_count])
    return Split(train, val, test)


def _quadrant(positions: Tensor, size: Size, counts: Counts, rng: torch.Generator) -> Split:
    (height, width), (x, y) = size, positions.unbind(1)
    held_out = (x >= (width + 1) // 2) & (y >= (height + 1) // 2)
    return _hold_out(positions, held_out, counts, rng)


def _border(positions: Tensor, size: Size, counts: Counts, rng: torch.Generator) -> Split:
    (height, width), (x, y) = size, positions.unbind(1)
    held_out = (x == 0) | (x == width - 1) | (y == 0) | (y == height - 1)
    return _hold_out(positions, held_out, counts, rng)


def _iid(positions: Tensor, size: Size, counts: Counts, rng: torch.Generator) -> Split:
    """Draw all parts independently: they overlap."""
    return Split(*(positions[torch.randint(len(positions), (n,), generator=rng)] for n in counts))


def _hold_out(positions: Tensor, held_out: Tensor, counts: Counts, rng: torch.Generator) -> Split:
    """Test on a region; val is drawn from the rest, so that it never tells about the region."""
    rest = positions[~held_out]
    order = torch.randperm(len(rest), generator=rng)
    val, train = rest[order].tensor_split([counts[1]])
    return Split(train, val, positions[held_out])


SPLITS: dict[str, Callable[[Tensor, Size, Counts, torch.Generator], Split]] = {
    "uniform": _uniform,
    "quadrant": _quadrant,
    "border": _border,
    "iid": _iid,
}


def split_positions(
    split: str, size: Size, val_fraction: float, test_fraction: float, train_samples: int, seed: int
) -> Split:
    """Share out the positions of an image, ``size`` (height, width), as one of `SPLITS` does.

    Fractions are of all positions; ``quadrant`` and ``border`` have a test part of their own, and
    only ``iid`` draws ``train_samples``.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        require(0 < fraction < 1, f"data.{name}", "between 0 and 1", fraction)
    require(split in SPLITS, "data.split", f"one of {', '.join(SPLITS)}", split)
    positions = all_positions(size)
    val, test = (math.ceil(part * len(positions)) for part in (val_fraction, test_fraction))
    counts = (train_samples, val, test)
    shared_out = SPLITS[split](positions, size, counts, generator(seed, "split"))
    for name, part in shared_out._asdict().items():
        if len(part) == 0:
            raise ValueError(
                f"the {split} split of {size[0]}x{size[1]} px leaves no position for {name}: "
                f"choose smaller fractions or a larger image"
            )
    return shared_out


def seen_fraction(positions: Tensor, seen: Tensor) -> float:
    """Return which fraction of positions (N, 2) are also among ``seen`` (M, 2)."""
    width = torch.cat([positions, seen])[:, 0].max() + 1
    place, seen_place = (xy[:, 1] * width + xy[:, 0] for xy in (positions, seen))
    return torch.isin(place, seen_place).double().mean().item()
