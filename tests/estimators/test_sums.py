"""The fast sums of one Gaussian are those of any spot."""

import pytest
import torch

from pixel_spotter.estimators.finder import correlate
from pixel_spotter.estimators.sums import OneGaussian, Spots, spots_of
from pixel_spotter.simulation.psf import GaussianPSF


@pytest.mark.parametrize("ratio", [1.0, 1.4])
def test_one_gaussian_sums_up_what_any_spot_does(ratio: float) -> None:
    psf, rng = GaussianPSF(ratio), torch.Generator().manual_seed(0)
    low = torch.tensor([3.0, 4.0, 100.0, 1.0, 0.8], dtype=torch.float64)
    high = torch.tensor([9.0, 8.0, 5000.0, 20.0, 2.5], dtype=torch.float64)
    theta = low + (high - low) * torch.rand(40, 5, generator=rng, dtype=torch.float64)
    weight, residual = torch.rand(2, 40, 13, 13, generator=rng, dtype=torch.float64) - 0.3
    assert isinstance(spots_of(psf, theta, 13), OneGaussian)
    fast, slow = OneGaussian(psf, theta, 13), Spots(psf, theta, 13)
    torch.testing.assert_close(fast.expected, slow.expected)
    for ours, theirs in zip(fast.sums(weight, residual), slow.sums(weight, residual), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(13, 13), (5, 20), (3, 3), (70, 9)])
def test_the_filter_of_small_images_is_a_correlation(size: tuple[int, int]) -> None:
    half, image = torch.rand(5), torch.rand(2, *size)
    kernel = torch.cat([half, half[:-1].flip(0)])
    plane = kernel[:, None] * kernel
    expected = torch.nn.functional.conv2d(image[:, None], plane[None, None], padding=4)[:, 0]
    torch.testing.assert_close(correlate(image, kernel), expected)
