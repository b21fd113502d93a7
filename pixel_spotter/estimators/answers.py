"""What estimators answer, and where there is reason to doubt it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pixel_spotter.coordinates import FLAGS, Columns, as_columns
from pixel_spotter.estimators.finder import Windows

_PLATEAU = 4
"""So many pixels of a window that all hold its largest value are taken for a saturated spot."""


def answers(
    parts: Windows,
    image: Tensor,
    xy: Tensor,
    doubts: Mapping[str, Tensor] | None = None,
    **others: Tensor,
) -> Columns:
    """Name what was found in windows, and flag what cannot be an answer, or may be a wrong one.

    Args:
        parts: the windows, in which it was found.
        image: the images that they are parts of, (B, H, W).
        xy: positions in the windows, px, (B, 2).
        doubts: further flags, and where they hold, (B,), bool.
        others: further columns, (B,) each.

    Returns:
        ``x``, ``y``, the others, and ``flag``, an index of `coordinates.FLAGS`. Where nothing was
        found, there are no values: they are nan.
    """
    height, width = image.shape[1:]
    place = xy + parts.corner
    pixels = torch.where(parts.seen, parts.image, -torch.inf).flatten(1)
    brightest = pixels.amax(dim=1)
    darkest = torch.where(parts.seen, parts.image, torch.inf).flatten(1).amin(dim=1)
    saturated = parts.saturated
    if saturated is None:
        plateau = (pixels == brightest[:, None]).sum(dim=1) >= _PLATEAU
        # Few counts are often equal; many are not, in the presence of shot noise.
        saturated = plateau & (brightest - darkest > 50)
    outside = ((place < -0.5) | (place > torch.tensor([width, height]).to(place) - 0.5)).any(dim=1)
    nothing = ~place.isfinite().all(dim=1) | ~(brightest > darkest)
    flag = torch.zeros_like(place[:, 0])
    reasons = {
        **(doubts or {}),
        "at the edge": parts.moved,
        "outside": outside,
        "nothing found": nothing,
        "saturated": saturated,
    }
    for name, where in reasons.items():  # the last counts
        flag = torch.where(where, float(FLAGS.index(name)), flag)
    columns = {**as_columns(place), **others}
    found = {name: torch.where(nothing, torch.nan, column) for name, column in columns.items()}
    return {**found, "flag": flag}
