"""Where the light is: its maximum and its centre of mass."""

import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, all_positions, as_columns, from_index


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


def centroid(image: Tensor) -> Columns:
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
