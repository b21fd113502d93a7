"""What a fit leaves of a window: noise beside that of light, and what is more than noise."""

import math

import torch
from torch import Tensor

from pixel_spotter.estimators.finder import Windows

CROWDED = 5.0
"""Residuals so many deviations beyond what noise makes are another spot's, or of another shape."""

STRUCTURED = 1.75
"""Where the variance of what is left is so many times that of noise, not all of it is noise."""


def noise_at_the_border(parts: Windows) -> Tensor:
    """Return the variance beyond shot noise in the outermost two rings, photons²: (B, 1, 1)."""
    border = parts.seen.clone()
    border[:, 2:-2, 2:-2] = False
    count = border.sum(dim=(1, 2), keepdim=True).clamp(min=2)
    mean = (parts.image * border).sum(dim=(1, 2), keepdim=True) / count
    square = ((parts.image - mean).square() * border).sum(dim=(1, 2), keepdim=True)
    return (square / (count - 1) - mean).clamp(min=0)


def excess_variance(parts: Windows, expected: Tensor, fitted: int, added: Tensor) -> Tensor:
    """Return the variance that residuals show beyond shot noise, photons²: (B, 1, 1).

    The mean of its estimates from all pixels, weighted as if ``added`` were the truth, with so
    many numbers ``fitted`` to them.
    """
    weight = parts.seen / (expected + added).square()
    count = parts.seen.sum(dim=(1, 2), keepdim=True)
    lost = count / (count - fitted).clamp(min=1)
    excess = (parts.image - expected).square() * lost - expected
    total = weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-30)
    return ((excess * weight).sum(dim=(1, 2), keepdim=True) / total).clamp(min=0)


def crowded(parts: Windows, expected: Tensor, fitted: int) -> Tensor:
    """Return where there is more in windows than the fitted spots and noise, (B,), bool.

    The squares of residuals over their variance, summed up, have a known mean and variance. The
    noise beside that of light is what the two quietest sides of a window show, as one or two have a
    neighbour's light.

    Args:
        parts: the windows.
        expected: photons in their pixels, by the fit, (B, w, w).
        fitted: so many numbers were fitted to each.
    """
    image, seen = parts.image.flatten(1), parts.seen.to(expected).flatten(1)
    strips = torch.zeros(4, *expected.shape[1:], dtype=image.dtype, device=image.device)
    strips[0, :2] = strips[1, -2:] = strips[2, :, :2] = strips[3, :, -2:] = 1
    count, total, square = (part @ strips.flatten(1).T for part in (seen, image, image.square()))
    mean = total / count.clamp(min=1)
    variance = (square - total * mean).clamp(min=0) / (count - 1).clamp(min=1)
    # The mean of the two smallest of four such variances is 1 / 1.2 of theirs, about.
    excess = torch.where(count > 2, 1.2 * variance - mean, torch.inf).sort(dim=1).values[:, :2]
    added = torch.where(excess.isfinite(), excess, excess[:, :1]).mean(dim=1).clamp(min=0)
    added = added.nan_to_num(posinf=0)
    # Two of four deviations, from so few pixels, are that uncertain.
    return misfit(parts, expected, fitted, added[:, None, None], 1 / math.sqrt(8)) > CROWDED


def misfit(
    parts: Windows, expected: Tensor, fitted: int, added: Tensor, unsure: float = 0
) -> Tensor:
    """Return by how many deviations windows differ more from what is expected than noise does.

    Args:
        parts: the windows.
        expected: photons in their pixels, (B, w, w).
        fitted: so many numbers were fitted to each.
        added: variance beside that of light, photons², which broadcasts with the windows.
        unsure: the deviation of that variance, of itself, where it was estimated.

    Returns:
        (B,), about 0 with a deviation of 1 where there is noise only.
    """
    weight = parts.seen / (expected + added).clamp(min=1e-3)
    square = ((parts.image - expected).square() * weight).sum(dim=(1, 2))
    total, count = weight.sum(dim=(1, 2)), parts.seen.sum(dim=(1, 2))
    unknown = (unsure * (added * weight).sum(dim=(1, 2))).square()
    return (square - (count - fitted)) / (2 * count + total + unknown).sqrt()
