"""How positions are shared out between train, val and test.

To add a split, write its function and add its entry to `SPLITS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pixel_spotter.coordinates import Size, all_positions
from pixel_spotter.randomness import generator


class Split(NamedTuple):
    """Positions (x, y) of each part: (N, 2), int64."""

    train: Tensor
    val: Tensor
    test: Tensor


class Counts(NamedTuple):
    """How many positions the settings ask for, where a split does not say so itself."""

    train: int
    val: int
    test: int


@dataclass(frozen=True)
class SplitKind:
    """A way to share out positions.

    Args:
        words: what is tested.
        share_out: all positions (N, 2), the image's size, the counts asked for, a random stream.
        disjoint: whether no position may be in two parts.
    """

    words: str
    share_out: Callable[[Tensor, Size, Counts, torch.Generator], Split]
    disjoint: bool = True


def _uniform(positions: Tensor, size: Size, counts: Counts, rng: torch.Generator) -> Split:
    order = torch.randperm(len(positions), generator=rng)
    test, val, train = positions[order].tensor_split([counts.test, counts.test + counts.val])
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
    return Split(
        *(positions[torch.randint(len(positions), (count,), generator=rng)] for count in counts)
    )


def _hold_out(positions: Tensor, held_out: Tensor, counts: Counts, rng: torch.Generator) -> Split:
    """Test on a region; val is drawn from the rest, so that it never tells about the region."""
    rest = positions[~held_out]
    order = torch.randperm(len(rest), generator=rng)
    val, train = rest[order].tensor_split([counts.val])
    return Split(train, val, positions[held_out])


SPLITS = {
    "uniform": SplitKind("test positions at random", _uniform),
    "quadrant": SplitKind("the lower-right quadrant is tested and never trained on", _quadrant),
    "border": SplitKind("the outermost ring is tested and never trained on", _border),
    "iid": SplitKind("independent draws, where train and test overlap", _iid, disjoint=False),
}


def split_positions(
    split: str,
    size: Size,
    val_fraction: float,
    test_fraction: float,
    train_samples: int,
    seed: int,
) -> Split:
    """Share out the positions of an image.

    Args:
        split: one of `SPLITS`.
        size: height and width of the image, px.
        val_fraction: share of all positions that goes to val.
        test_fraction: share of all positions that goes to test; ``quadrant`` and ``border`` set
            their own.
        train_samples: how many positions ``iid`` draws for training.
        seed: what the random choices follow from.

    Raises:
        ValueError: if the split is unknown, a part is left empty, or parts that should be
            disjoint are not.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise ValueError(f"data.{name} must lie between 0 and 1, got {fraction}")
    if split not in SPLITS:
        raise ValueError(f"data.split must be one of {', '.join(SPLITS)}, got {split!r}")
    positions = all_positions(size)
    val, test = (math.ceil(part * len(positions)) for part in (val_fraction, test_fraction))
    counts = Counts(train_samples, val, test)
    shared_out = SPLITS[split].share_out(positions, size, counts, generator(seed, "split"))
    for name, part in shared_out._asdict().items():
        if len(part) == 0:
            raise ValueError(
                f"the {split} split of {size[0]}x{size[1]} px leaves no position for {name}: "
                f"choose smaller fractions or a larger image"
            )
    everything = torch.cat(shared_out)
    if SPLITS[split].disjoint and len(torch.unique(everything, dim=0)) != len(everything):
        raise ValueError("positions are shared between train, val and test")
    return shared_out


def seen_fraction(positions: Tensor, seen: Tensor) -> float:
    """Return which fraction of positions (N, 2) are also among ``seen`` (M, 2)."""
    width = int(torch.cat([positions, seen])[:, 0].max()) + 1
    return torch.isin(_flat(positions, width), _flat(seen, width)).double().mean().item()


def _flat(positions: Tensor, width: int) -> Tensor:
    return positions[:, 1] * width + positions[:, 0]
