"""How well a spot can be found at all: Fisher information and the Cramér-Rao bound."""

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

_NOISES = np.geomspace(0.1, 16, 28)
_EXPECTED = np.geomspace(1e-3, 300, 40)
"""Where the exact information is computed, e and photons; in between it is interpolated."""


def fisher_information(derivatives: Tensor, information: Tensor) -> Tensor:
    """Return the Fisher information of parameters, from pixels that are independent.

    Args:
        derivatives: of the expected image by P parameters, (B, P, H, W).
        information: each pixel's about its own expectation, (B, H, W): 1 / expected with shot noise
            alone (Smith et al. 2010, doi 10.1038/nmeth.1449), 0 where nothing was recorded.

    Returns:
        (B, P, P).
    """
    flat = derivatives.flatten(2)
    return (flat * information.flatten(1)[:, None]) @ flat.mT


def crlb(fisher: Tensor) -> Tensor:
    """Return the smallest variances that unbiased estimates can have, (B, P): the Cramér-Rao bound.

    The diagonal of the inverse of (B, P, P); nan where the parameters cannot be told apart.
    """
    return inverse(fisher).diagonal(dim1=1, dim2=2)


def inverse(fisher: Tensor) -> Tensor:
    """Return the inverse of each information, (B, P, P); nan where there is none."""
    # Scaled to a diagonal of ones: parameters differ by orders of magnitude.
    scale = fisher.diagonal(dim1=1, dim2=2).clamp(min=1e-30).rsqrt()
    scale = scale[:, :, None] * scale[:, None, :]
    root, failed = torch.linalg.cholesky_ex(fisher * scale)
    known = (failed == 0)[:, None, None]
    root = torch.where(known, root, torch.eye(root.shape[1]).to(root))
    return torch.where(known, torch.cholesky_inverse(root) * scale, torch.nan)


def pixel_information(expected: Tensor, read_noise: Tensor | float = 0.0) -> Tensor:
    """Return a pixel's Fisher information about its expected photons, with shot and read noise.

    What is recorded is a Poisson count plus a Gaussian. 1 / (expected + read_noise²), the
    approximation of Huang et al. 2013 (doi 10.1038/nmeth.2488), is less than this by up to a factor
    where few photons meet a read noise of less than 1. Here it is exact up to an interpolation
    between quadratures, which is within 0.1% above 0.001 photons, and up to 13% too low below.

    Args:
        expected: photons, any shape.
        read_noise: standard deviation in the same units, which broadcasts with it.

    Returns:
        1 / photons², float64 where there is read noise.
    """
    noise = torch.as_tensor(read_noise, dtype=torch.float64, device=expected.device)
    if not noise.any():
        return 1 / expected
    place = np.broadcast_arrays(noise.cpu().numpy(), expected.double().cpu().numpy())
    clipped = (
        np.log(np.clip(value, grid[0], grid[-1]))
        for value, grid in zip(place, (_NOISES, _EXPECTED), strict=True)
    )
    factor = torch.from_numpy(np.exp(_information_table().ev(*clipped))).to(expected.device)
    approximate = factor / (expected + noise.square())
    return approximate.minimum(1 / expected.double())  # which noise cannot surpass


@cache
def _information_table() -> RectBivariateSpline:
    """Return the logarithm of information times variance over those of noise and expectation."""
    variance = torch.from_numpy(_EXPECTED)
    rows = [
        (_information(torch.from_numpy(_EXPECTED), noise) * (variance + noise**2)).log()
        for noise in _NOISES.tolist()
    ]
    return RectBivariateSpline(np.log(_NOISES), np.log(_EXPECTED), torch.stack(rows).numpy())


def _information(expected: Tensor, noise: float) -> Tensor:
    """Integrate (dp/d expected)² / p over recorded values, p being their density: (M,)."""
    reach = math.ceil(9 * noise) + 1
    brightest = expected.max().item()
    most = math.ceil(brightest + 10 * math.sqrt(brightest) + 10)
    counts = torch.arange(-reach, most + reach + 1, dtype=torch.float64)
    log = counts * expected[:, None].log() - expected[:, None] - (counts.clamp(min=0) + 1).lgamma()
    chance = torch.where(counts >= 0, log.exp(), 0)
    by_expected = chance * (counts / expected[:, None] - 1)
    steps = max(math.ceil(4 / noise), 1)  # between two counts
    between = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5
    away = between[:, None] - torch.arange(-reach, reach + 1)
    blur = torch.exp(-(away / noise).square() / 2)[:, None] / (noise * math.sqrt(2 * math.pi))
    density, slope = (F.conv1d(one[:, None], blur, padding=reach) for one in (chance, by_expected))
    parts = torch.where(density > 1e-290, slope.square() / density, 0)
    return parts.sum(dim=(1, 2)) / steps
