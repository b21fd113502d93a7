"""What happens to photons in a camera: one function a stage, images in, images out.

Each draws from the generator that it is given, on the images' device.
"""

import torch
from torch import Generator, Tensor


def shot_noise(expected: Tensor, generator: Generator) -> Tensor:
    """Return how many electrons are detected where so many are expected: Poisson."""
    return torch.poisson(expected, generator=generator)


def multiplication(electrons: Tensor, em_gain: float, generator: Generator) -> Tensor:
    """Return what an electron-multiplying register makes of electrons.

    A gamma distribution of shape ``electrons`` and scale ``em_gain`` (Basden et al. 2003, doi
    10.1046/j.1365-8711.2003.07020.x): its excess noise doubles the variance.
    """
    multiplied = torch._standard_gamma(electrons.clamp(min=1e-3), generator=generator) * em_gain
    return torch.where(electrons > 0, multiplied, 0)


def read_noise(electrons: Tensor, deviation: Tensor | float, generator: Generator) -> Tensor:
    """Add Gaussian noise of a standard deviation in electrons, which broadcasts with images."""
    noise = torch.randn(
        electrons.shape, generator=generator, dtype=electrons.dtype, device=electrons.device
    )
    return electrons + deviation * noise


def hot_pixels(expected: Tensor, fraction: float, photons: float, generator: Generator) -> Tensor:
    """Let a fraction of all pixels expect more light: by ``photons`` on average, exponentially."""
    hot, much = torch.rand(
        (2, *expected.shape), generator=generator, dtype=expected.dtype, device=expected.device
    )
    return expected + torch.where(hot < fraction, -photons * torch.log1p(-much), 0)


def digitize(electrons: Tensor, gain: float, offset: float, bits: int | None) -> Tensor:
    """Return counts of ``gain`` electrons above an offset; whole and clipped, if bits are given."""
    counts = electrons / gain + offset
    return counts if bits is None else counts.round().clamp(0, 2**bits - 1)
