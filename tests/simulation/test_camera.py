"""Each stage's mean and variance against analysis, and what can be undone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pixel_spotter.simulation import noise
from pixel_spotter.simulation.camera import Camera

N = 200_000


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def assert_moments(values: torch.Tensor, mean: float, variance: float) -> None:
    assert values.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / len(values)))
    assert values.var().item() == pytest.approx(variance, rel=0.03)


def test_stages() -> None:
    flat = torch.full((N,), 12.0)
    assert_moments(noise.shot_noise(flat, rng()), 12, 12)
    assert_moments(noise.read_noise(flat, 3.0, rng()), 12, 9)
    assert_moments(noise.multiplication(flat, 50.0, rng()), 12 * 50, 12 * 50**2)
    glowing = noise.hot_pixels(flat, 0.1, 40.0, rng()) - flat
    assert (glowing > 0).double().mean().item() == pytest.approx(0.1, abs=0.004)
    assert_moments(glowing[glowing > 0], 40, 1600)
    assert noise.multiplication(torch.zeros(5), 50.0, rng()).tolist() == [0] * 5


def test_counts() -> None:
    electrons = torch.tensor([-300.0, 0.0, 1.2, 1e9])
    assert noise.digitize(electrons, 0.5, 100.0, 12).tolist() == [0, 100, 102, 4095]
    assert noise.digitize(electrons, 0.5, 100.0, None)[2].item() == pytest.approx(102.4)


@pytest.mark.parametrize(
    "camera",
    [
        Camera(),
        Camera(read_noise=2.0, gain=0.5, offset=100.0, bits=16),
        Camera(read_noise=30.0, gain=8.0, offset=200.0, em_gain=300.0),
    ],
)
def test_photons_come_back_with_the_variance_that_is_said(camera: Camera) -> None:
    expected = torch.full((N, 1, 1), 9.0)
    photons = camera.to_photons(camera.expose(expected, rng()))[:, 0, 0]
    assert_moments(photons, 9, camera.variance(expected)[0, 0, 0].item())
    information = camera.information(expected[:1]).item()
    assert 0.99 / photons.var().item() < information < 1.2 / 9


def test_a_map_of_read_noise(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.array([[0.0, 5.0]]))
    camera = Camera(read_noise=str(tmp_path / "map.npy"))
    counts = camera.expose(torch.full((N, 1, 2), 4.0), rng())
    assert_moments(counts[:, 0, 0], 4, 4)
    assert_moments(counts[:, 0, 1], 4, 29)


@pytest.mark.parametrize(
    "setting",
    [
        {"gain": 0.0}, {"gain": math.nan}, {"em_gain": 0.5}, {"read_noise": -1.0}, {"bits": 0},
        {"offset": math.inf}, {"hot_pixels": 1.5}, {"bits": 8, "offset": 300.0},
        {"read_noise": "nowhere.npy"}, {"hot_photons": -1.0},
    ],
)  # fmt: skip
def test_settings_that_no_camera_has(setting: dict) -> None:
    with pytest.raises(ValueError, match="camera"):
        Camera(**setting)
