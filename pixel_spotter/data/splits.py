"""How positions are shared out between train, val and test.

To add a split, write its function and name it in `split_positions`.
"""

import math
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
        split: ``uniform`` (at random, disjoint), ``quadrant`` (tested on the lower-right quadrant,
            never trained there), ``border`` (tested on the outermost ring of pixels, never
            trained there) or ``iid`` (independent random draws, which overlap).
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
    positions = all_positions(size)
    val_count = math.ceil(val_fraction * len(positions))
    test_count = math.ceil(test_fraction * len(positions))
    height, width = size
    x, y = positions.unbind(1)
    match split:
        case "uniform":
            order = torch.randperm(len(positions), generator=generator(seed, "split"))
            test, val, train = positions[order].tensor_split([test_count, test_count + val_count])
            shared_out = Split(train, val, test)
        case "quadrant":
            held_out = (x >= (width + 1) // 2) & (y >= (height + 1) // 2)
            shared_out = _hold_out(positions, held_out, val_count, seed)
        case "border":
            held_out = (x == 0) | (x == width - 1) | (y == 0) | (y == height - 1)
            shared_out = _hold_out(positions, held_out, val_count, seed)
        case "iid":
            draws = generator(seed, "split")
            shared_out = Split(
                *(
                    positions[torch.randint(len(positions), (count,), generator=draws)]
                    for count in (train_samples, val_count, test_count)
                )
            )
        case _:
            raise ValueError(f"data.split must be uniform, quadrant, border or iid, got {split!r}")
    for name, part in shared_out._asdict().items():
        if len(part) == 0:
            raise ValueError(
                f"the {split} split of {height}x{width} px leaves no position for {name}: "
                f"choose smaller fractions or a larger image"
            )
    if split != "iid":
        _check_disjoint(shared_out)
    return shared_out


def seen_fraction(positions: Tensor, seen: Tensor, width: int) -> float:
    """Return which fraction of positions (N, 2) are also among ``seen`` (M, 2)."""
    return torch.isin(_flat(positions, width), _flat(seen, width)).double().mean().item()


def _hold_out(positions: Tensor, held_out: Tensor, val_count: int, seed: int) -> Split:
    """Test on a region; val is drawn from the rest, so that it never tells about the region."""
    rest = positions[~held_out]
    order = torch.randperm(len(rest), generator=generator(seed, "split"))
    val, train = rest[order].tensor_split([val_count])
    return Split(train, val, positions[held_out])


def _flat(positions: Tensor, width: int) -> Tensor:
    return positions[:, 1] * width + positions[:, 0]


def _check_disjoint(split: Split) -> None:
    everything = torch.cat(split)
    if len(torch.unique(everything, dim=0)) != len(everything):
        raise ValueError("positions are shared between train, val and test")
