"""The phase of the first Fourier coefficient."""

import math

import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns
from pixel_spotter.estimators.answers import answers
from pixel_spotter.estimators.finder import brightest


def phasor(
    image: Tensor, window: int = 7, margin_px: int = 0, saturation: float | None = None
) -> Columns:
    """Return the position that the phases of the first Fourier coefficients stand for.

    Martens et al. 2018, doi 10.1063/1.5005899. A constant background has no phase.

    Args:
        image: (B, H, W), photons; pixels without a value are nan.
        window: side of the part around the brightest spot that is looked at, px, odd.
        margin_px: no spot is looked for closer to the frame's edge than this.
        saturation: what a pixel holds at most, photons, which a flag tells; None guesses it.

    Returns:
        ``x``, ``y``, px, and ``flag``.
    """
    image, parts = brightest(image, window, margin_px, saturation, within=True)
    angle = torch.arange(window, device=image.device) * (2 * math.pi / window)
    wave = torch.polar(torch.ones_like(angle), angle)
    along = torch.stack([parts.image.sum(dim=1), parts.image.sum(dim=2)], dim=1)
    phase = (along.to(wave) @ wave).angle() % (2 * math.pi)
    return answers(parts, image, phase * (window / (2 * math.pi)))
