"""Where the light is: its maximum and its centre of mass."""

import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, all_positions, as_columns, from_index
from pixel_spotter.estimators.answers import answers
from pixel_spotter.estimators.finder import find, median, windows


def argmax(image: Tensor) -> Columns:
    """Return the centre of the brightest pixel: exact on a clean pixel's image.

    Of several equally bright ones, the first in reading order.

    Args:
        image: (B, H, W).

    Returns:
        ``x`` and ``y``, px, (B,) each.
    """
    index = image.flatten(1).argmax(dim=1)
    return as_columns(from_index(index, (image.shape[1], image.shape[2])).to(image.dtype))


def centre_of_mass(image: Tensor) -> Columns:
    """Return the intensity-weighted mean of all pixel centres.

    Exact on a clean pixel's image; every bright pixel elsewhere pulls it away. A black image has no
    centroid: the answer is the image's centre.

    Args:
        image: (B, H, W).

    Returns:
        ``x`` and ``y``, px, (B,) each.
    """
    weights = image.flatten(1)
    positions = all_positions((image.shape[1], image.shape[2])).to(weights)
    total = weights.sum(dim=1, keepdim=True)
    centre = weights @ positions / torch.where(total == 0, 1, total)
    return as_columns(torch.where(total == 0, positions.mean(dim=0), centre))


def centroid(image: Tensor, window: int = 7, margin_px: int = 0) -> Columns:
    """Return the centre of mass around the brightest spot, above the median of the window's border.

    Args:
        image: (B, H, W), photons; pixels without a value are nan.
        window: side of the part around the spot that is looked at, px, odd.
        margin_px: no spot is looked for closer to the frame's edge than this.

    Returns:
        ``x``, ``y``, px, and ``flag``.
    """
    parts = windows(image, find(image, margin_px), window, within=True)
    border = torch.where(parts.seen, parts.image, torch.nan)
    border[:, 1:-1, 1:-1] = torch.nan
    above = (parts.image - median(border)[:, None, None]) * parts.seen
    positions = all_positions((window, window)).to(above)
    total = above.flatten(1).sum(dim=1, keepdim=True)
    return answers(parts, image, above.flatten(1) @ positions / total)
