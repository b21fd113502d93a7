"""The Cramér-Rao bound against published figures, and the information against a simulation."""

import math

import pytest
import torch

from pixel_spotter.simulation.bound import crlb, fisher_information, pixel_information
from pixel_spotter.simulation.psf import GaussianPSF, expected_image


@pytest.mark.parametrize(
    ("sigma_px", "photons", "background", "bound_px"),
    [(1.0, 1000.0, 10.0, 0.0410), (1.0, 100.0, 1.0, 0.1295), (1.3, 5000.0, 10.0, 0.0210)],
)
def test_reference_values(
    sigma_px: float, photons: float, background: float, bound_px: float
) -> None:
    """Per axis, 50x50 px, a spot near the centre; x, y, photons and background unknown."""
    spot = torch.tensor([[[24.5, 24.5, photons]]], dtype=torch.float64)
    others = torch.tensor([[background], [sigma_px]], dtype=torch.float64)
    expected, derivatives = expected_image(GaussianPSF(), spot, *others, (50, 50))
    variance = crlb(fisher_information(derivatives[:, :4], 1 / expected))
    assert variance[0, :2].sqrt().tolist() == pytest.approx([bound_px, bound_px], abs=6e-5)


def test_parameters_that_cannot_be_told_apart_have_no_bound() -> None:
    assert crlb(torch.ones(1, 2, 2, dtype=torch.float64)).isnan().all()
    torch.testing.assert_close(
        crlb(torch.diag(torch.tensor([4.0, 1e-8]))[None]), torch.tensor([[0.25, 1e8]])
    )


@pytest.mark.parametrize(("mean", "noise"), [(0.2, 0.4), (3.0, 1.0), (3.0, 4.0), (20.0, 0.3)])
def test_information_is_the_variance_of_the_score(mean: float, noise: float) -> None:
    """The score from the density itself, at simulated values."""
    rng = torch.Generator().manual_seed(0)
    n = 100_000
    counts = torch.arange(0, 90, dtype=torch.float64)
    values = torch.poisson(torch.full((n,), mean, dtype=torch.float64), generator=rng)
    values = values + noise * torch.randn(n, generator=rng, dtype=torch.float64)
    chance = torch.exp(counts * math.log(mean) - mean - torch.lgamma(counts + 1))
    near = torch.exp(-((values[:, None] - counts) / noise).square() / 2)
    score = (near @ (chance * (counts / mean - 1))) / (near @ chance)
    found = pixel_information(torch.tensor([mean]), noise).item()
    assert found == pytest.approx(score.square().mean().item(), rel=0.03)
    assert 1 / (mean + noise**2) <= found * 1.001
    assert found <= 1 / mean


def test_without_read_noise_there_is_shot_noise_alone() -> None:
    expected = torch.tensor([0.5, 8.0])
    torch.testing.assert_close(pixel_information(expected), 1 / expected)
