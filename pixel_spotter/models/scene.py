"""A spot before a camera: its images, what everyone answers for it, and what the bound allows."""

import inspect
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pixel_spotter import estimators
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.simulation.bound import fisher_information, inverse
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import GaussianPSF, expected_image, light

SIDE = 25
"""Of the square images, px."""


class Scene(NamedTuple):
    """What images are of.

    Args:
        spots: ``x``, ``y``, px, and photons of the spot and any neighbour, (K, 3).
        background: photons per pixel.
        sigma_px: width of the spots.
        read_noise: its standard deviation, electrons.
    """

    spots: Tensor
    background: float
    sigma_px: float
    read_noise: float


class Standing(NamedTuple):
    """How an estimator does, each answer held against the spot that is closest to it.

    Args:
        away: answers less that spot's position, px, (N, 2).
        of: which spot that is, (N,), int64.
        flag: why to doubt the first answer, an index of `FLAGS`.
        sd: the deviation that the first answer claims, px, over both axes; nan if it claims none.
        rmse: root mean square over both axes of what answers for the first spot are away, px; nan
            if there are none.
        others: the share of answers that are for the neighbour.
    """

    away: Tensor
    of: Tensor
    flag: int
    sd: float
    rmse: float
    others: float


def record(scene: Scene, count: int, seed: int) -> Tensor:
    """Return images of a scene, (count, H, W), photons, that differ in their noise alone."""
    expected = light(GaussianPSF(), *_made_of(scene, torch.float32), (SIDE, SIDE))
    camera = Camera(float(scene.read_noise))
    generator = torch.Generator().manual_seed(seed)
    return camera.to_photons(camera.expose(expected.expand(count, -1, -1), generator))


def smallest_covariance(scene: Scene) -> Tensor:
    """Return the bound: the covariance of x and y that no unbiased estimate has less of, (K, 2, 2).

    Positions and photons of all spots, and the background, are unknown; nan where spots cannot be
    told apart.
    """
    spots, background, sigma_px = _made_of(scene, torch.float64)
    expected, derivatives = expected_image(GaussianPSF(), spots, background, sigma_px, (SIDE, SIDE))
    information = Camera(float(scene.read_noise)).information(expected)
    covariance = inverse(fisher_information(derivatives[:, :-1], information))[0]
    return torch.stack(
        [covariance[k : k + 2, k : k + 2] for k in range(0, 3 * len(scene.spots), 3)]
    )


def ask(images: Tensor, scene: Scene, models: Mapping[str, PointRegressor]) -> dict[str, Columns]:
    """Return what every estimator, and every model of spots, answers for images (N, H, W).

    Fits are told the spots' width and the read noise, others nothing.
    """
    told = {"sigma_px": float(scene.sigma_px), "read_noise": float(scene.read_noise)}
    answers = {}
    for name in estimators.__all__:
        estimator = getattr(estimators, name)
        taken = inspect.signature(estimator).parameters
        answers[name] = estimator(images, **{key: told[key] for key in told if key in taken})
    with torch.inference_mode():
        return answers | {name: model.estimate(images[:, None]) for name, model in models.items()}


def standing(answer: Columns, scene: Scene) -> Standing:
    """Return how answers (N,) do."""
    away = as_xy(answer).double()[:, None] - scene.spots[:, :2].double()
    of = away.square().sum(dim=2).nan_to_num(nan=math.inf).argmin(dim=1)
    away = away[torch.arange(len(of)), of]
    own = away[(of == 0) & away.isfinite().all(dim=1)]
    claimed = (answer[name][0].double().square() for name in ("sd_x", "sd_y") if name in answer)
    variance = [*claimed]
    return Standing(
        away,
        of,
        int(answer["flag"][0]),
        math.sqrt(sum(map(float, variance)) / 2) if variance else math.nan,
        own.square().mean().sqrt().item(),
        (of != 0).double().mean().item(),
    )


def _made_of(scene: Scene, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return spots (1, K, 3), background and sigma_px, (1,) each, as PSFs take them."""
    background, sigma_px = torch.tensor([[scene.background], [scene.sigma_px]], dtype=dtype)
    return scene.spots[None].to(dtype), background, sigma_px
