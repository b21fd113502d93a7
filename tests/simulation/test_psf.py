"""Shares of light in pixels, and their derivatives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from torch import Tensor

from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.simulation.psf import PSF, GaussianPSF, MeasuredPSF, expected_image, make_psf

SIZE = (9, 11)


def gaussian_array(sigma_px: float, oversampling: int, side: int) -> Tensor:
    """A round Gaussian's density on a finer grid, its centre in the middle."""
    at = (torch.arange(side) - (side - 1) / 2) / oversampling
    line = torch.exp(-(at / sigma_px).square() / 2)
    return line[:, None] * line


def shares(psf: PSF, x: float, y: float, sigma_px: float) -> Tensor:
    xy = torch.tensor([[x, y]], dtype=torch.float64)
    return psf(xy, torch.tensor([sigma_px], dtype=torch.float64), SIZE)[0]


def test_a_pixel_holds_the_integral() -> None:
    def density(v: float, u: float) -> float:
        return np.exp(-(((u - 4.3) / 1.0) ** 2) / 2 - ((v - 3.8) / 2.0) ** 2 / 2) / (4 * np.pi)

    share = shares(GaussianPSF(ratio=2.0), 4.3, 3.8, 2**0.5)[0]
    for x, y in ((4, 4), (0, 0), (6, 2)):
        exact, _ = dblquad(density, x - 0.5, x + 0.5, y - 0.5, y + 0.5)
        assert share[y, x].item() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("oversampling", [3, 4])
def test_a_measured_gaussian_is_a_gaussian(oversampling: int) -> None:
    measured = MeasuredPSF(gaussian_array(1.2, oversampling, 20 * oversampling + 1), oversampling)
    for x, y in ((5.0, 4.0), (4.3, 3.9), (-0.4, 8.2)):
        found, exact = shares(measured, x, y, 1.2), shares(GaussianPSF(), x, y, 1.2)
        torch.testing.assert_close(found[:3], exact[:3], atol=1e-3, rtol=0)
        assert not found[3].any()


@pytest.mark.parametrize("psf", [GaussianPSF(1.3), MeasuredPSF(gaussian_array(1.2, 5, 91), 5)])
def test_derivatives_are_those_of_finite_differences(psf: PSF) -> None:
    step = 1e-5
    spots = torch.tensor([[[4.2, 3.7, 900.0], [6.9, 5.1, 300.0]]], dtype=torch.float64)
    theta = torch.cat([spots.flatten(), torch.tensor([7.0, 1.2], dtype=torch.float64)])

    def image(theta: Tensor) -> tuple[Tensor, Tensor]:
        return expected_image(psf, theta[:6].view(1, 2, 3), theta[6:7], theta[7:8], SIZE)

    _, derivatives = image(theta)
    for parameter in range(8):
        change = torch.zeros_like(theta)
        change[parameter] = step
        numeric = (image(theta + change)[0] - image(theta - change)[0]) / (2 * step)
        torch.testing.assert_close(derivatives[:, parameter], numeric, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("oversampling", [1, 4, 5])
def test_light_is_never_negative_beside_an_array_that_ends_abruptly(oversampling: int) -> None:
    psf = MeasuredPSF(torch.ones(9, 9), oversampling)
    where = torch.linspace(3, 6, 200)
    share = psf(torch.stack([where, where], dim=1), torch.ones(200), (9, 9))
    none = share[:, 0] == 0
    assert share[:, 0].min() == 0
    assert not share[:, 1:][none[:, None].expand(-1, 3, -1, -1)].any()
    dim = {"photons": 15_000.0, "background": 1e-3, "sigma_px": None}
    data = SpotDataModule(
        15, psf={"name": "measured", "file": psf.density, "oversampling": oversampling}, **dim
    )
    data.render(data.truth("test", 0, torch.arange(64)), "test", 0, torch.arange(64))


def test_light_adds_up_and_flips_with_its_position() -> None:
    share = shares(GaussianPSF(), 5.0, 4.0, 0.8)[0]
    assert share.sum().item() == pytest.approx(1, abs=1e-5)
    mirrored = shares(GaussianPSF(), SIZE[1] - 1 - 3.3, 4.0, 0.8)[0]
    torch.testing.assert_close(mirrored.flip(1), shares(GaussianPSF(), 3.3, 4.0, 0.8)[0])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 3)), "not empty"),
        (np.array([[1.0, -1.0]]), "negative"),
        (np.array([[1.0, np.nan]]), "finite"),
        (np.zeros((3, 3)), "no light"),
        (np.ones(3), "array"),
    ],
)
def test_arrays_that_are_no_psf(array: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "psf.npy", array)
    with pytest.raises(ValueError, match=words):
        make_psf("measured", file=str(tmp_path / "psf.npy"), oversampling=3)


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="ratio"):
        make_psf("gaussian", ratio=0.0)
    with pytest.raises(ValueError, match="name"):
        make_psf("airy")
    with pytest.raises(ValueError, match="can be read"):
        make_psf("measured", file="nowhere.npy", oversampling=3)
