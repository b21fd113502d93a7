"""Where the light is: its maximum and its centre of mass."""

import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, all_positions, from_index
from pixel_spotter.estimators.answers import answers
from pixel_spotter.estimators.finder import Windows, as_floating, brightest, median


def argmax(image: Tensor) -> Columns:
    """Return the centre of the brightest pixel: exact on a clean pixel's image.

    Of several equally bright ones, the first in reading order.

    Args:
        image: (B, H, W); pixels without a value are nan.

    Returns:
        ``x`` and ``y``, px, and ``flag``, (B,) each: an image without a difference has none.
    """
    whole = _whole(image)
    index = torch.where(whole.seen, whole.image, -torch.inf).flatten(1).argmax(dim=1)
    place = from_index(index, (image.shape[1], image.shape[2])).to(whole.image)
    return answers(whole, image, place)


def centre_of_mass(image: Tensor) -> Columns:
    """Return the intensity-weighted mean of all pixel centres.

    Exact on a clean pixel's image; every bright pixel elsewhere pulls it away.

    Args:
        image: (B, H, W); pixels without a value, nan, count as black.

    Returns:
        ``x`` and ``y``, px, and ``flag``, (B,) each: an image without a difference has no centre.
    """
    whole = _whole(image)
    weights = whole.image.flatten(1)
    positions = all_positions((image.shape[1], image.shape[2])).to(weights)
    return answers(whole, image, weights @ positions / weights.sum(dim=1, keepdim=True))


def centroid(
    image: Tensor, window: int = 7, margin_px: int = 0, saturation: float | None = None
) -> Columns:
    """Return the centre of mass around the brightest spot, above the median of the window's border.

    Args:
        image: (B, H, W), photons; pixels without a value are nan.
        window: side of the part around the spot that is looked at, px, odd.
        margin_px: no spot is looked for closer to the frame's edge than this.
        saturation: what a pixel holds at most, photons, which a flag tells; None guesses it.

    Returns:
        ``x``, ``y``, px, and ``flag``.
    """
    image, parts = brightest(image, window, margin_px, saturation, within=True)
    border = torch.where(parts.seen, parts.image, torch.nan)
    border[:, 1:-1, 1:-1] = torch.nan
    above = (parts.image - median(border)[:, None, None]) * parts.seen
    positions = all_positions((window, window)).to(above)
    total = above.flatten(1).sum(dim=1, keepdim=True)
    return answers(parts, image, above.flatten(1) @ positions / total)


def _whole(image: Tensor) -> Windows:
    """Return all of the images (B, H, W) as windows."""
    image = as_floating(image)
    seen = image.isfinite()
    corner = torch.zeros(len(image), 2, dtype=torch.int64, device=image.device)
    return Windows(torch.where(seen, image, 0), seen, corner, corner[:, 0] > 0)
