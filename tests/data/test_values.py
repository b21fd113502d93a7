"""Values that are cut off, told from those that are only the largest."""

import numpy as np
import pytest
import torch

from pixel_spotter.data.values import plateau, saturated_at
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import GaussianPSF, light

RANDOM = np.random.default_rng(0)


def spots(
    photons: float = 2000.0, frames: int = 6, count: int = 12, gain: float = 0.5
) -> np.ndarray:
    """Return counts (F, 80, 80) of spots at random places, whole numbers as float32."""
    random = torch.Generator().manual_seed(0)
    xy = 80 * torch.rand(frames, count, 2, generator=random)
    theta = torch.cat([xy, torch.full((frames, count, 1), photons)], dim=2)
    flat, wide = torch.full((frames,), 10.0), torch.full((frames,), 1.1)
    expected = light(GaussianPSF(), theta, flat, wide, (80, 80))
    return Camera(read_noise=1.5, gain=gain, offset=100.0, bits=16).expose(expected, random).numpy()


@pytest.mark.parametrize("level", [250, 400, 550])
def test_what_is_cut_off_is_seen(level: float) -> None:
    counts = spots()
    full = int((counts >= level).sum())
    assert plateau(np.minimum(counts, level)) == full > 10
    assert plateau(0.0123 * np.minimum(counts, level)) == full, "as floating-point numbers"
    counts[:, 50:] = np.nan
    assert 0 < plateau(np.minimum(counts, level)) < full
    one = np.minimum(spots(200_000.0, frames=1, count=1), 5000)
    assert plateau(one) == (one == 5000).sum(), "one bright star"


@pytest.mark.parametrize(
    "counts",
    [
        spots(),
        spots(frames=1),
        spots(200_000.0, frames=1, count=1),
        spots(frames=30, gain=8.0),
        spots(frames=30, gain=20.0),
        0.0123 * spots(),
        *(RANDOM.poisson(mean, (20, 80, 80)).astype(float) for mean in (0.01, 0.3, 3, 100)),
        np.round(RANDOM.normal(100, 20, (20, 80, 80))),
        RANDOM.integers(0, 200, (20, 80, 80)).astype(float),
        (RANDOM.random((20, 80, 80)) < 0.1).astype(float),
        np.where(np.arange(6400).reshape(80, 80) == 3000, 30_000, spots(frames=30)),
        spots(frames=1).repeat(3, axis=1).repeat(3, axis=2),
        np.zeros((2, 80, 80)),
        np.where(spots() < 130, 300, 130 - spots()),
        np.full((2, 80, 80), np.nan),
    ],
    ids=[
        *("spots", "one frame", "one star", "few levels", "very few levels", "floating"),
        *("1% of single photons", "single photons", "few photons", "even", "eight bits"),
        *("all alike", "ones"),
        *("a hot pixel", "made larger", "black", "dark on white", "no value"),
    ],
)
def test_what_is_not_is_not(counts: np.ndarray) -> None:
    assert plateau(counts) == 0


def test_what_was_guessed_of_some_frames_holds_until_others_have_more() -> None:
    counts = spots()
    cut = np.minimum(counts, 400)
    full, why = saturated_at(cut, 65535.0)
    assert (full, "hold exactly 400" in why) == (400, True)
    few = np.where(np.arange(cut[0].size).reshape(cut[0].shape) == 99, 400, 100.0)[None]
    assert saturated_at(few, 65535.0) == (65535, "")
    assert saturated_at(few, 65535.0, known=400) == (400, "")
    assert saturated_at(few + 1, 65535.0, known=400) == (65535, "")
    assert saturated_at(np.full((1, 9, 9), 255.0), 255.0, known=200) == (255, "")
