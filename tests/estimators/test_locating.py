"""Spots in frames: as many false alarms as asked for, all spots found, and as exactly as can be."""

import math

import pytest
import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.estimators.detection import is_uneven, threshold, unevenness
from pixel_spotter.estimators.locating import Search
from pixel_spotter.estimators.residuals import STRUCTURED
from pixel_spotter.estimators.spots import Spots
from pixel_spotter.simulation.psf import GaussianPSF, MeasuredPSF, light

PSF = GaussianPSF()


def exposed(expected: Tensor, read_noise: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(expected.shape, generator=generator)
    return torch.poisson(expected, generator=generator) + read_noise * noise


def found(image: Tensor, **settings: object) -> Spots:
    return Search(image, **{"read_variance": 0, "psf": PSF, "sigma_px": 1.0, **settings}).all()  # type: ignore[arg-type]


def made(count: int, **settings: object) -> tuple[Tensor, Columns]:
    """Frames (count, 32, 32) with a spot of 1,000 photons each, and what is true of them."""
    data = SpotDataModule(**{"image_size": 32, "margin_px": 8, **settings})  # type: ignore[arg-type]
    batch = data.batch("test", 0, torch.arange(count))
    return batch.image[:, 0], batch.truth


def matched(spots: Spots, truth: Columns) -> tuple[float, float, int]:
    """Return rmse over bound, the share within a deviation, and how many others were found.

    Each frame's spot must have been found.
    """
    xy = as_xy(truth, "_true")
    distance = (spots.theta[:, :2] - xy[spots.frame]).norm(dim=1)
    nearest = torch.full((len(xy),), torch.inf).scatter_reduce(0, spots.frame, distance, "amin")
    assert nearest.max() < 2, "not found"
    own = distance == nearest[spots.frame]
    error = spots.theta[own, :2] - xy[spots.frame[own]]
    deviation = spots.covariance[own].diagonal(dim1=1, dim2=2)[:, :2].sqrt()
    bound = torch.stack([truth["bound_x"], truth["bound_y"]])
    ratio = error.square().mean().sqrt() / bound.square().mean().sqrt()
    return ratio.item(), (error.abs() < deviation).double().mean().item(), int((~own).sum())


X = torch.linspace(-1, 1, 128)
VIGNETTING = 1 - 0.3 * (X.square() + X[:, None].square())


@pytest.mark.parametrize(
    ("background", "read_noise", "sigma", "shape"),
    [
        (100.0, 0.0, 1.1, None),
        (10.0, 2.0, 1.1, None),
        (1.0, 0.0, 1.1, None),
        (1.0, 2.0, 1.1, None),
        (0.1, 0.0, 1.1, None),
        (10.0, 1.0, 2.0, None),
        (10.0, 1.0, 0.7, None),
        (300.0, 1.0, 1.1, VIGNETTING),
    ],
)
@pytest.mark.parametrize("fit_width", [False, True])
def test_empty_frames_have_as_many_false_alarms_as_asked_for(
    background: float, read_noise: float, sigma: float, shape: Tensor | None, fit_width: bool
) -> None:
    count = 80
    expected = (background * (torch.ones(128, 128) if shape is None else shape)).expand(
        count, -1, -1
    )
    image = exposed(expected, read_noise)
    spots = found(
        image, read_variance=read_noise**2, sigma_px=sigma, false_alarms=0.6, fit_width=fit_width
    )
    # Twice and half as many as 48, and what so few leave to chance.
    assert 0.5 * 48 - 2 * math.sqrt(24) < len(spots.frame) < 2 * 48 + 2 * math.sqrt(96)


def test_the_threshold_grows_with_the_frame_and_falls_with_what_is_accepted() -> None:
    assert threshold(0.01, (256, 256), 1.1) > threshold(0.1, (256, 256), 1.1)
    assert threshold(0.01, (256, 256), 1.1) > threshold(0.01, (64, 64), 1.1)
    assert threshold(0.01, (256, 256), 1.1) > threshold(0.01, (256, 256), 2.0)
    # In one place, it is what a Gaussian exceeds that often.
    assert threshold(0.01, (1, 1), 100.0) == pytest.approx(2.33, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 1.0),
        ({"photons": 300.0}, 1.0),
        ({"margin_px": 0}, 1.03),
        ({"camera": {"read_noise": 4.0}}, 1.0),
        ({"background": 0.5}, 1.0),
    ],
)
def test_spots_are_found_on_the_bound_and_nothing_else_is(
    settings: dict[str, object], most: float
) -> None:
    """3,000 coordinates know the ratio to 1.3%."""
    image, truth = made(1500, **settings)
    noise = 16.0 if "camera" in settings else 0.0
    ratio, covered, others = matched(found(image, read_variance=noise), truth)
    assert ratio < most + 0.04
    assert covered == pytest.approx(0.683, abs=0.03)
    assert others < 40, "0.01 in each frame were accepted"


@pytest.mark.parametrize(("apart", "most"), [(6.0, 1.0), (4.0, 1.05), (3.0, 1.10)])
def test_neighbours_are_both_found_and_fitted_together(apart: float, most: float) -> None:
    image, truth = made(800, neighbour_probability=1.0, neighbour_px=apart, margin_px=12)
    spots = found(image)
    both = torch.bincount(spots.frame, minlength=800) == 2
    assert both.double().mean() > 0.98
    ratio, covered, _ = matched(spots, truth)
    assert ratio < most + 0.05
    assert covered == pytest.approx(0.683, abs=0.04)


def test_a_faint_spot_beside_a_bright_one_is_found_once_that_is_taken_away() -> None:
    image, _ = made(
        100, photons=20_000.0, neighbour_probability=1.0, neighbour_px=5.0, neighbour_ratio=0.05
    )
    spots = found(image)
    assert (torch.bincount(spots.frame, minlength=100) == 2).double().mean() > 0.95


def test_bright_pixels_of_a_spot_of_another_shape_are_not_hot() -> None:
    y, x = torch.meshgrid(*[torch.arange(-60.0, 61) / 5] * 2, indexing="ij")
    psf = MeasuredPSF(torch.exp(-((x + y) ** 2) / 3.4 - (x - y) ** 2 / 1.6), 5)
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)) * 30 + 16
    place = grid + torch.rand(9, 2, generator=torch.Generator().manual_seed(0))
    share = psf.share(place, torch.ones(9), (96, 96)).sum(dim=0)
    search = Search(exposed(10 + 1e5 * share)[None], 0, PSF, 1.1, fit_width=True)
    spots = search.all()
    assert search.field.image.isfinite().all()
    assert (torch.cdist(place, spots.theta[:, :2]).amin(dim=1) < 1).all()


def test_two_close_pairs_beside_each_other_are_four() -> None:
    four = torch.tensor([[15.0, 16.2], [16.9, 16.2], [21.6, 16.2], [23.5, 16.2]])
    spots = torch.cat([four, torch.full((4, 1), 4000.0)], dim=1).expand(20, -1, -1)
    flat, wide = torch.full((20,), 10.0), torch.ones(20)
    image = exposed(light(PSF, spots, flat, wide, (32, 40)))
    count = torch.bincount(found(image).frame, minlength=20)
    assert (count == 4).float().mean() > 0.9


def test_hot_pixels_are_no_spots_and_hide_none() -> None:
    image, truth = made(200, photons=2000.0)
    pixel = as_xy(truth, "_true").round().long()
    image[torch.arange(200), pixel[:, 1] + 2, pixel[:, 0] - 1] += 300
    image[:, 2, 3] += 300
    ratio, _, others = matched(found(image), truth)
    assert others < 8
    assert ratio < 1.3


def test_spots_of_any_number_in_a_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(6, 80, 2, generator=generator) * 128 - 0.5
    much = torch.full((6, 80, 1), 1000.0)
    ten, one = torch.full((6,), 10.0), torch.ones(6)
    image = exposed(light(PSF, torch.cat([xy, much], dim=2), ten, one, (128, 128)))
    spots = found(image)
    distance = [
        torch.cdist(there, spots.theta[spots.frame == frame, :2]) for frame, there in enumerate(xy)
    ]
    assert sum((one.amin(dim=1) < 1).sum() for one in distance) > 0.97 * 480
    assert sum((one.amin(dim=0) > 1).sum() for one in distance) < 0.02 * 480


def test_gaps_and_what_lies_outside_are_no_spots() -> None:
    image = exposed(torch.full((3, 40, 50), 20.0))
    image[0] = torch.nan
    image[1, :, 20] = torch.nan
    image[2] = 20.0
    assert len(found(image).frame) == 0
    with pytest.raises(ValueError, match="at least 7 px"):
        found(image[:, :6])
    assert len(found(image[:, :7, :8]).frame) == 0


def test_an_even_background_is_left_alone_and_an_uneven_one_is_known() -> None:
    even = exposed(torch.full((20, 128, 128), 10.0))
    assert unevenness(even).abs().amax(dim=(1, 2)).count_nonzero() <= 1
    shape = VIGNETTING * 300
    left = unevenness(exposed(shape.expand(4, -1, -1))) - (shape - shape.mean())
    assert left.abs().mean() < 2
    assert not unevenness(even[:, :63]).any()


PLACE = torch.stack(torch.meshgrid(*[torch.arange(128.0)] * 2, indexing="xy"), dim=-1)
AROUND = torch.rand(4, 2, generator=torch.Generator().manual_seed(3)) * 88 + 20
AWAY = (PLACE - AROUND[:, None, None]).norm(dim=-1)


def test_bumps_of_the_background_are_no_spots_and_hide_none() -> None:
    bumps = 50 + 50 * torch.exp(-(AWAY / 20).square() / 2).sum(dim=0)
    expected = bumps.expand(20, -1, -1)
    # 8 are accepted; with the background of 32 px only, there are 28.
    assert len(found(exposed(expected), sigma_px=1.1, false_alarms=0.4).frame) < 16
    place = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)) * 117 + 5
    flat, wide = torch.zeros(20), torch.full((20,), 1.1)
    one = torch.cat([place, torch.full((20, 1), 600.0)], dim=1)[:, None]
    spots = found(exposed(expected + light(PSF, one, flat, wide, (128, 128))), sigma_px=1.1)
    near = (spots.theta[:, :2] - place[spots.frame]).norm(dim=1) < 1
    assert torch.unique(spots.frame[near]).tolist() == [*range(20)]


def test_bright_spots_on_bumps_have_the_background_that_is_there() -> None:
    """They are fitted again once it is known: it is 7 photons off where they are not."""
    bumps = 50 + 50 * torch.exp(-(AWAY / 12).square() / 2).sum(dim=0)
    at = torch.tensor([[40.0, 30.0], [74.0, 60.0], [100.0, 90.0]])
    spots = torch.cat([at, torch.full((3, 1), 3000.0)], dim=1)
    shown = light(PSF, spots[None], torch.zeros(1), torch.full((1,), 1.1), (128, 128))
    search = Search(exposed((bumps + shown).expand(16, -1, -1)), 0, PSF, 1.1)
    answers = search.all()
    near, which = torch.cdist(answers.theta[:, :2], at).min(dim=1)
    answers, which = answers.rows(near < 1), which[near < 1]
    assert len(which) == 48
    x, y = at[which].long().unbind(dim=1)
    error = answers.theta[:, 3] + search.field.uneven[answers.frame, y, x] - bumps[y, x]
    assert error.square().mean().sqrt() < 4


def test_sharp_edges_are_hardly_spots_and_those_that_are_can_be_told() -> None:
    discs = 50 + 50 * torch.sigmoid(20 - AWAY).amax(dim=0)
    spots = found(exposed(discs.expand(10, -1, -1)), sigma_px=1.1, false_alarms=0.1)
    assert len(spots.frame) < 60, "609 where all are believed"
    assert (spots.unrest > STRUCTURED).float().mean() > 0.9
    alone, _ = made(200)
    assert (found(alone).unrest > STRUCTURED).float().mean() < 0.02


def test_a_sharp_edge_hides_no_spots_on_its_dark_side() -> None:
    """There, the even background is taken for more light than it is, and its noise for less."""
    xy = 12 + 16 * PLACE[:7, :4].reshape(-1, 2) * torch.tensor([0.75, 1.0])
    spots = torch.cat([xy, torch.full((28, 1), 1000.0)], dim=1).expand(4, -1, -1)
    expected = light(PSF, spots, torch.full((4,), 10.0), torch.full((4,), 1.2), (128, 128))
    expected[:, :, 64:] += 80
    answers = found(exposed(expected), sigma_px=1.2)
    for frame in range(4):
        away = torch.cdist(xy, answers.theta[answers.frame == frame, :2]).amin(dim=1)
        assert (away < 1).sum() >= 26


def test_dark_corners_have_hardly_more_false_alarms() -> None:
    """Where the background was made even, its noise is less than that of light so bright."""
    place = torch.arange(128) - 63.5
    falls_off = 5 + 45 * torch.exp(-(place.square() + place[:, None].square()) / 3200)
    answers = found(exposed(falls_off.expand(100, -1, -1)), sigma_px=1.2, false_alarms=1.0)
    x, y = answers.theta[:, :2].round().long().clamp(0, 127).unbind(dim=1)
    dark = falls_off[y, x] < falls_off.flatten().quantile(0.25)
    assert dark.sum() / 100 < 0.42, "0.25 is a quarter of what is accepted"


def test_frames_may_lie_in_memory_in_any_order() -> None:
    image = made(3)[0]
    turned = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    torch.testing.assert_close(found(turned).theta, found(image).theta)


def test_many_spots_make_no_background_uneven() -> None:
    """As the spots of a block raise its mean, each frame is taken for uneven, at first."""
    xy = torch.rand(4, 200, 2, generator=torch.Generator().manual_seed(0)) * 256 - 0.5
    much = torch.full((4, 200, 1), 1000.0)
    ten, wide = torch.full((4,), 10.0), torch.full((4,), 1.1)
    image = exposed(light(PSF, torch.cat([xy, much], dim=2), ten, wide, (256, 256)))
    search = Search(image, 0, PSF, 1.1)
    first = search.field.uneven.clone()
    spots = search.all()
    assert first.abs().mean() > 0.05
    assert search.field.uneven.abs().mean() < first.abs().mean() / 2
    there = [
        torch.cdist(one, spots.theta[spots.frame == frame, :2]).amin(dim=1) < 1
        for frame, one in enumerate(xy)
    ]
    assert sum(one.sum() for one in there) >= 0.9865 * 800


def test_what_noise_makes_of_blocks_is_even() -> None:
    even = exposed(torch.full((20, 128, 128), 10.0))
    even[:, 30:50, 30:50] = torch.nan
    assert is_uneven(even, 13).sum() <= 1
    assert is_uneven(even + 2 * torch.sin(PLACE[..., 0] / 6), 13).all()
    assert not is_uneven(even[:, :25] + PLACE[:25, :, 0], 13).any()
