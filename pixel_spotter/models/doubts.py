"""Whether an answer is one: what can be told from the image and from what a model has seen."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pixel_spotter.coordinates import FLAGS, Columns, as_xy, sides_px
from pixel_spotter.data.base import PointData

_SAMPLES = 256
"""So many training samples tell what images look like."""

_SLACK = 0.02
"""By so much, of the brightest value of training, and by a tenth of its range, looks may differ."""


def looks(image: Tensor) -> Tensor:
    """Return what images (B, 1, H, W) look like, wherever their point is: (B, 4).

    That are the darkest value, the median, the distance between the 10% and the 90% quantile,
    which is the background's spread, and the brightest value.
    """
    ordered = image.flatten(1).sort(dim=1).values
    last = ordered.shape[1] - 1
    darkest, low, median, high, brightest = (
        ordered[:, round(share * last)] for share in (0, 0.1, 0.5, 0.9, 1)
    )
    return torch.stack([darkest, median, high - low, brightest], dim=1)


def familiar_looks(trained_on: Iterable[PointData]) -> Tensor:
    """Return the lowest and the highest `looks` that pass for those of training data: (2, 4)."""
    seen = torch.cat(
        [
            looks(data.batch("train", 0, torch.arange(min(_SAMPLES, data.counts["train"]))).image)
            for data in trained_on
        ]
    )
    low, high = seen.amin(dim=0), seen.amax(dim=0)
    slack = _SLACK * high[-1].abs() + 0.1 * (high - low)
    return torch.stack([low - slack, high + slack])


def with_flag(columns: Columns, image: Tensor, familiar: Tensor | None) -> Columns:
    """Add the column ``flag`` to a model's answers, and take back those that are none.

    Args:
        columns: ``x``, ``y``, px, and others, (B,) each.
        image: what they were estimated from, (B, 1, H, W).
        familiar: the looks that images had in training, as `familiar_looks` has them, if known.

    Returns:
        The columns, nan for images without any difference, and an index of `FLAGS`.
    """
    look = looks(image)
    xy_px = as_xy(columns)
    sides = sides_px((image.shape[2], image.shape[3]), xy_px)
    outside = ((xy_px < -0.5) | (xy_px > sides - 0.5)).any(dim=1)
    nothing = (look[:, 3] <= look[:, 0]) | ~xy_px.isfinite().all(dim=1)
    unlike = torch.zeros_like(nothing)
    if familiar is not None:
        low, high = familiar.to(look)
        unlike = ((look < low) | (look > high)).any(dim=1)
    flag = torch.zeros_like(xy_px[:, 0])
    for name, where in {
        "unlike training": unlike,
        "outside": outside,
        "nothing found": nothing,
    }.items():
        flag = torch.where(where, float(FLAGS.index(name)), flag)
    kept = {name: torch.where(nothing, torch.nan, column) for name, column in columns.items()}
    return {**kept, "flag": flag}
