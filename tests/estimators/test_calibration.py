"""What frames tell of the camera that took them, and of how wide spots are."""

import math

import pytest
import torch
from torch import Tensor

from pixel_spotter.errors import UserError
from pixel_spotter.estimators.calibration import (
    are_smoothed,
    camera_noise,
    read_variance,
    spot_shape,
)
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import GaussianPSF, light


def scene(
    count: int, width: float = 1.1, blinking: bool = False, background: float = 10.0
) -> Tensor:
    """Return expected photons, (count, 192, 192), of 30 spots, 40% of them on if they blink."""
    generator = torch.Generator().manual_seed(0)
    xy = (torch.rand(1, 30, 2, generator=generator) * 192).expand(count, -1, -1)
    on = torch.rand(count, 30, 1, generator=generator) < (0.4 if blinking else 1.0)
    much = 1000.0 * on
    flat, wide = torch.full((count,), background), torch.full((count,), width)
    return light(GaussianPSF(), torch.cat([xy, much], dim=2), flat, wide, (192, 192))


def recorded(expected: Tensor, read_noise: float = 1.5) -> Tensor:
    camera = Camera(read_noise=read_noise, gain=0.5, offset=100.0, bits=16)
    return camera.expose(expected, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("blinking", "near"), [(False, 0.06), (True, 0.25)])
def test_the_gain_follows_from_how_noise_grows(blinking: bool, near: float) -> None:
    noise = camera_noise(recorded(scene(10, blinking=blinking)))
    assert noise.grows
    assert noise.gain == pytest.approx(0.5, rel=near)
    assert noise.unsure < 0.2
    # All noise counts as that of light, which its variance of 1.5² e is that of 4.5 counts of.
    assert noise.offset == pytest.approx(100 - 2.25 / 0.5, abs=8)


def test_spots_tell_it_in_one_frame() -> None:
    noise = camera_noise(recorded(scene(1)))
    assert noise.grows
    assert noise.gain == pytest.approx(0.5, rel=0.2)


def test_a_gradient_tells_it_even_in_one_frame() -> None:
    slope = torch.linspace(5, 400, 192).expand(1, 192, 192)
    assert camera_noise(recorded(slope)).gain == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(("gain", "spots"), [(0.5, 20), (3.0, 20), (1.0, 120)])
def test_spots_that_come_and_go_tell_it_by_what_fits_leave_of_them(gain: float, spots: int) -> None:
    generator = torch.Generator().manual_seed(0)
    theta = torch.rand(10, spots, 3, generator=generator) * torch.tensor([192.0, 192.0, 2000.0])
    flat, wide = torch.full((10,), 10.0), torch.full((10,), 1.1)
    expected = light(GaussianPSF(), theta, flat, wide, (192, 192))
    counts = Camera(read_noise=1.5, gain=gain, offset=100.0).expose(expected, generator)
    noise = camera_noise(counts)
    assert noise.grows
    assert noise.gain == pytest.approx(gain, rel=0.15)
    assert noise.unsure < 0.15
    shape = spot_shape((counts - noise.offset) * noise.gain, 0.0)
    assert shape is not None
    assert shape.sigma_px == pytest.approx(1.1, rel=0.04), "overlapping ones are no wider spots"


@pytest.mark.parametrize("background", [1.0, 10.0])
@pytest.mark.parametrize("frames", [1, 8])
def test_few_photons_are_told_by_the_tail_of_their_noise(background: float, frames: int) -> None:
    counts = Camera(gain=0.5, offset=100.0).expose(
        torch.full((frames, 192, 192), background), torch.Generator().manual_seed(0)
    )
    noise = camera_noise(counts)
    assert not noise.grows
    assert noise.gain == pytest.approx(0.5, rel=0.2)
    assert noise.offset == pytest.approx(100, abs=6)


@pytest.mark.parametrize("frames", [1, 8])
def test_an_even_background_tells_how_much_noise_there_is_and_no_more(frames: int) -> None:
    counts = recorded(torch.full((frames, 192, 192), 50.0))
    noise = camera_noise(counts)
    assert not noise.grows
    photons = (counts - noise.offset) * noise.gain
    assert photons.mean().item() == pytest.approx(photons.var().item(), rel=0.05)


def test_read_noise_is_what_is_beyond_that_of_light() -> None:
    for noise in (0.0, 1.5, 6.0):
        counts = recorded(scene(6), noise)
        variance = read_variance((counts - 100) * 0.5)
        assert math.sqrt(variance) == pytest.approx(noise, abs=0.3), noise


@pytest.mark.parametrize("width", [0.7, 1.1, 2.0, 3.2])
def test_widths_are_those_of_what_stands_out(width: float) -> None:
    image = (recorded(scene(2, width, background=3.0)) - 100) * 0.5
    shape = spot_shape(image, 1.5**2)
    assert shape is not None
    assert shape.sigma_px == pytest.approx(width, rel=0.08)
    assert shape.ratio == 1


def bright(xy: Tensor, photons: float, ratio: float = 1.0) -> Tensor:
    """A frame (1, 160, 160) with spots at (N, 2)."""
    spots = torch.cat([xy, torch.full((len(xy), 1), photons)], dim=1)[None]
    flat, wide = torch.tensor([10.0]), torch.tensor([1.1])
    expected = light(GaussianPSF(ratio), spots, flat, wide, (160, 160))
    return torch.poisson(expected, generator=torch.Generator().manual_seed(0))


def places(count: int) -> Tensor:
    """Places (N, 2) on a grid, far from each other, at any place within their pixels."""
    side = math.ceil(math.sqrt(count))
    grid = torch.cartesian_prod(torch.arange(side), torch.arange(side))[:count] * 150 / side + 15
    return grid + torch.rand(count, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ratio", [0.6, 1.3, 2.0])
@pytest.mark.parametrize("count", [1, 3, 30])
def test_elliptic_spots_tell_of_their_ratio(ratio: float, count: int) -> None:
    shape = spot_shape(bright(places(count), 20_000.0, ratio), 0.0)
    assert shape is not None
    assert shape.ratio == pytest.approx(ratio, rel=0.03)
    assert shape.sigma_px == pytest.approx(1.1, rel=0.02)
    assert shape.odd == 0
    told = spot_shape(bright(places(count), 20_000.0, ratio), 0.0, 1.0)
    assert told is not None
    assert told.ratio == 1
    assert told.odd == 1


@pytest.mark.parametrize("away", [2.0, 3.0])
def test_pairs_are_no_elliptic_spots(away: float) -> None:
    middle = places(30)
    angle = torch.rand(30, generator=torch.Generator().manual_seed(2)) * math.pi
    half = away / 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    shape = spot_shape(bright(torch.cat([middle + half, middle - half]), 20_000.0), 0.0)
    assert shape is not None
    assert shape.ratio == 1
    assert shape.odd > 0.9


def test_nothing_stands_out_of_noise_and_hot_pixels_are_no_spots() -> None:
    image = (recorded(torch.full((4, 192, 192), 10.0)) - 100) * 0.5
    assert spot_shape(image, 1.5**2) is None
    image[:, 20:150:13, 31] += 500
    assert spot_shape(image, 1.5**2) is None


def test_a_single_frame_of_any_size_tells_of_its_spots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many pixels a part is looked at first, which of one frame is all."""
    monkeypatch.setattr("pixel_spotter.estimators.calibration._ENOUGH", 1000)
    shape = spot_shape(bright(places(30), 20_000.0), 0.0)
    assert shape is not None
    assert shape.sigma_px == pytest.approx(1.1, rel=0.05)


@pytest.mark.parametrize("side", [7, 9, 11, 13, 15])
def test_frames_that_are_smaller_than_a_spots_window_tell_what_noise_there_is(side: int) -> None:
    spot = torch.tensor([[[side / 2, side / 2, 1000.0]]]).expand(60, -1, -1)
    flat, wide = torch.full((60,), 10.0), torch.full((60,), 1.2)
    expected = light(GaussianPSF(), spot, flat, wide, (side, side))
    noise = camera_noise(torch.poisson(expected, generator=torch.Generator().manual_seed(0)))
    assert 0 < noise.gain < 2


@pytest.mark.parametrize("count", [1, 6])
def test_noise_that_is_alike_in_neighbouring_pixels_is_seen(count: int) -> None:
    raw = recorded(scene(count, blinking=True))
    beside, below = raw.roll(1, dims=2), raw.roll(1, dims=1)
    assert are_smoothed((raw + beside) / 2)  # shifted by half a pixel
    assert are_smoothed(raw / 2 + (beside + below) / 4)
    assert not are_smoothed(raw)
    assert not are_smoothed(raw[:, ::2, ::2] + raw[:, 1::2, ::2])  # binned


def test_no_light_is_taken_for_smoothed_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(192)
    many = torch.rand(4, 900, 3, generator=generator) * torch.tensor([192.0, 192.0, 2000.0])
    flat, wide = torch.full((4,), 10.0), torch.full((4,), 1.2)
    for expected in (
        light(GaussianPSF(), many, flat, wide, (192, 192)),
        10.0 + 80 * (place > 96).expand(4, 192, 192),  # an edge
        10.0 + 90 * (place / 192).square().expand(4, 192, 192),
        torch.full((4, 192, 192), 0.1),
        torch.full((4, 192, 192), 1.0),
    ):
        assert not are_smoothed(recorded(expected))
        assert not are_smoothed(torch.poisson(expected, generator=generator))


def test_frames_without_noise_are_refused() -> None:
    with pytest.raises(UserError, match="hold no noise"):
        camera_noise(torch.full((3, 64, 64), 100.0))
