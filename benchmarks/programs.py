"""The programs that ``peers.py`` and ``stuck_particles.py`` measure: one function each."""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from pixel_spotter import estimators
from pixel_spotter.coordinates import Columns
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.loading import load_model

SIDE = 13
"""Of the crops, px."""
BATCH = {"cpu": 512, "cuda": 65_536}
"""Images that Pixel Spotter takes at a time."""


class Spots(NamedTuple):
    """What all programs get, and what is true of it.

    Args:
        frames: photons, (N, F, F), float32.
        crops: of them, (N, 13, 13); None where the frames are to be searched.
        corner: ``x`` and ``y`` of the crops' first pixel in the frames, px, (2,).
        margin_px: the spots are no closer than this to the crops' edges.
        start: near each spot, and its neighbour if it has one, in the crops: (N, K, 2).
        sigma_px: their width.
        xy: where they are in the frames, (N, 2).
        bounds: of their positions, (N, 2) each, with an unknown width and with a known one.
    """

    frames: np.ndarray
    crops: np.ndarray | None
    corner: np.ndarray
    margin_px: int
    start: np.ndarray
    sigma_px: float
    xy: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]

    def first(self, count: int | None) -> "Spots":
        """Return the first so many of them, all without a number."""
        crops = None if self.crops is None else self.crops[:count]
        return self._replace(frames=self.frames[:count], crops=crops, start=self.start[:count])


class Program(NamedTuple):
    """What is measured; its answers are rows of x, y, sd_x and sd_y, px, nan where it has none.

    Args:
        fit: spots with crops -> (N, 4), in the crops.
        find: frames (N, F, F) and the width -> (M, 4) for each frame: all spots found in it.
        told_width: whether it makes use of the width.
        side: of the images it takes around spots, px; 0: crops, or frames to find spots in.
        most: spots that it is given, where all would take too long.
    """

    fit: Callable[[Spots], np.ndarray]
    find: Callable[[np.ndarray, float], list[np.ndarray]] | None
    told_width: bool
    side: int = 0
    most: int | None = None


def ours(
    estimate: Callable[[torch.Tensor], Columns], images: np.ndarray, device: str
) -> np.ndarray:
    """Ask an estimator or a model, a batch at a time."""
    parts = []
    with torch.inference_mode():
        for batch in torch.from_numpy(images).split(BATCH[device]):
            columns = estimate(batch.to(device))
            none = torch.full_like(columns["x"], torch.nan)
            chosen = [columns.get(name, none) for name in ("x", "y", "sd_x", "sd_y")]
            parts.append(torch.stack(chosen, dim=1).cpu())
    return torch.cat(parts).numpy()


def our_estimator(name: str, knows_width: bool, device: str) -> Program:
    """Take an estimator of Pixel Spotter, which looks for the spot where it may be."""
    estimator: Callable[..., Columns] = getattr(estimators, name)
    looks = name not in ("argmax", "centre_of_mass")

    def ask(images: np.ndarray, sigma_px: float, margin_px: int) -> np.ndarray:
        width = {"sigma_px": sigma_px} if knows_width else {}
        margin = {"margin_px": margin_px} if looks else {}
        return ours(partial(estimator, **width, **margin), images, device)

    def fit(spots: Spots) -> np.ndarray:
        return ask(spots.crops, spots.sigma_px, spots.margin_px)

    def find(frames: np.ndarray, sigma_px: float) -> list[np.ndarray]:
        return np.split(ask(frames, sigma_px, 0), len(frames))

    return Program(fit, find, knows_width)


def our_model(model: PointRegressor, device: str, pixel_known: bool = True) -> Program:
    """Take a trained model.

    One that takes any size gets the same as others do, or, if it is not to know the spot's pixel,
    images of the size that it was trained on, with its own margin; another always gets those.
    """
    own = None if model.any_size and pixel_known else getattr(model, "margin_px", 0)

    def ask(images: np.ndarray, margin_px: float) -> np.ndarray:
        if model.any_size:
            model.search((images.shape[1], images.shape[2]), margin_px)
        return ours(lambda image: model.estimate(image[:, None]), images, device)

    def fit(spots: Spots) -> np.ndarray:
        return ask(spots.crops, spots.margin_px if own is None or not spots.margin_px else own)

    def find(frames: np.ndarray, sigma_px: float) -> list[np.ndarray]:
        return np.split(ask(frames, 0), len(frames))

    side = 0 if own is None else model.size[0]
    return Program(fit, find if model.any_size else None, False, side)


def picasso() -> Program:
    """Take Picasso's maximum likelihood with a round Gaussian, and its own deviations."""
    from picasso import localize

    def fit_crops(crops: np.ndarray) -> np.ndarray:
        settings = {"mle": True, "spherical": True}
        theta, likelihood, iterations, _ = localize.fit_spots_gauss(
            crops, return_stats=True, **settings
        )
        middle = np.full(len(crops), crops.shape[1] // 2)
        places = {"frame": np.arange(len(crops)), "x": middle, "y": middle, "net_gradient": middle}
        table = localize.locs_from_fits_gauss(
            pd.DataFrame(places), theta, crops.shape[1], False,
            log_likelihood=likelihood, iterations=iterations, **settings,
        )  # fmt: skip
        return table[["x", "y", "lpx", "lpy"]].to_numpy(copy=True)

    def find(frames: np.ndarray, sigma_px: float, box: int = 7) -> list[np.ndarray]:
        places = [localize.identify_in_frame(frame, 0.0, box)[:2] for frame in frames]
        row, column = (np.concatenate(one)[:, None] for one in zip(*places, strict=True))
        counts = [len(y) for y, _ in places]
        around = np.arange(box) - box // 2
        number = np.repeat(np.arange(len(frames)), counts)[:, None, None]
        fitted = fit_crops(frames[number, (row + around)[:, :, None], (column + around)[:, None]])
        fitted[:, :2] += np.concatenate([column, row], axis=1) - box // 2
        return np.split(fitted, np.cumsum(counts)[:-1])

    return Program(lambda spots: fit_crops(spots.crops), find, told_width=False)


def picasso_integrated() -> Program:
    """Take Picasso's older fit, of a Gaussian integrated over pixels; it is found the same way."""
    from picasso import gaussmle

    def fit(spots: Spots) -> np.ndarray:
        theta, variance, _, _ = gaussmle.gaussmle(spots.crops, 0.001, 100, method="sigma")
        return np.concatenate([theta[:, :2], np.sqrt(variance[:, :2])], axis=1)

    return Program(fit, picasso().find, told_width=False)


def smappy() -> Program:
    """Take SMAPpy's maximum likelihood with a round Gaussian, whose fit starts with the width."""
    from smappy import api
    from smappy.psf import GaussianPSF

    camera = {"conversion": 1.0, "offset": 0.0, "pixelsize_um": 0.001, "read_noise_e": 0.0}
    columns = ["x_nm", "y_nm", "x_err_nm", "y_err_nm"]  # 1 nm is 1 px

    def fit(spots: Spots) -> np.ndarray:
        model = GaussianPSF(sigma=spots.sigma_px)
        fitted = model.unpack(model.fit(spots.crops, n_threads=1))
        return np.stack([fitted[n] for n in ("x_roi", "y_roi", "x_err_pix", "y_err_pix")], axis=1)

    def find(frames: np.ndarray, sigma_px: float) -> list[np.ndarray]:
        table = api.fit(frames, camera=camera, sigma=sigma_px, roisize=7, threads=1)
        if len(table) == 0:
            return [np.zeros((0, 4))] * len(frames)
        rows = np.stack([table.columns[name] for name in columns], axis=1)
        return [rows[table.columns["frame"] == frame] for frame in range(len(frames))]

    return Program(fit, find, told_width=False)


def sep() -> Program:
    """Take sep's windowed positions, which have no deviations."""
    import sep

    def window(image: np.ndarray, x: np.ndarray, y: np.ndarray, sigma_px: float) -> np.ndarray:
        x, y, _ = sep.winpos(image, x, y, sigma_px)
        return np.stack([x, y, np.full_like(x, np.nan), np.full_like(x, np.nan)], axis=1)

    def fit(spots: Spots) -> np.ndarray:
        above = spots.crops - background(spots.crops)
        pairs = zip(above, spots.start.astype(float), strict=True)
        return np.concatenate([window(one, *at[:1].T, spots.sigma_px) for one, at in pairs])

    def find(frames: np.ndarray, sigma_px: float) -> list[np.ndarray]:
        found = []
        for frame in frames:
            level = sep.Background(frame)
            above = frame - level.back()
            objects = sep.extract(above, 3.0, err=level.globalrms)
            found.append(window(above, objects["x"], objects["y"], sigma_px))
        return found

    return Program(fit, find, told_width=True)


def photutils() -> Program:
    """Take photutils' PSF photometry; it is told of neighbours, and fits both at once.

    Weighted with recorded values, a little smoothed, which suits it better than either extreme.
    """
    from astropy.table import Table
    from photutils.detection import DAOStarFinder
    from photutils.psf import CircularGaussianPRF, PSFPhotometry
    from scipy.ndimage import gaussian_filter

    pitch = SIDE + 8  # in one picture, which is faster than a call for each; masked in between

    def settings(sigma_px: float) -> dict[str, Any]:
        prf = CircularGaussianPRF(fwhm=2.3548 * sigma_px)
        return {"psf_model": prf, "fit_shape": (SIDE, SIDE), "aperture_radius": 2 * sigma_px}

    def deviation(images: np.ndarray) -> np.ndarray:
        return np.sqrt(gaussian_filter(images, 0.6, axes=(1, 2)).clip(min=0.5))

    def rows(table: Table) -> np.ndarray:
        names = ["x_fit", "y_fit", "x_err", "y_err"]
        return np.stack([np.asarray(table[name], float) for name in names], axis=1)

    def fit(spots: Spots) -> np.ndarray:
        count, several = spots.start.shape[:2]
        above = spots.crops - background(spots.crops)
        corner = mosaic_corners(count, pitch)
        data, error, seen = (
            mosaic(images, pitch) for images in (above, deviation(spots.crops), above * 0 + 1)
        )
        x, y = (spots.start + corner[:, None]).reshape(-1, 2).T
        starts = Table({"x_init": x, "y_init": y, "group_id": np.arange(x.size) // several + 1})
        photometry = PSFPhotometry(**settings(spots.sigma_px))
        table = photometry(data, error=error, mask=seen == 0, init_params=starts)
        return rows(table)[::several] - np.pad(corner, ((0, 0), (0, 2)))

    def find(frames: np.ndarray, sigma_px: float) -> list[np.ndarray]:
        found = []
        for frame, error in zip(frames - background(frames), deviation(frames), strict=True):
            finder = DAOStarFinder(3 * np.median(error), 2.3548 * sigma_px)
            table = PSFPhotometry(finder=finder, **settings(sigma_px))(frame, error=error)
            found.append(np.zeros((0, 4)) if table is None else rows(table))
        return found

    return Program(fit, find, told_width=True, most=1000)


def trackpy() -> Program:
    """Take trackpy's centroids of bandpassed images, 3 widths around the middle."""
    import trackpy

    trackpy.quiet()

    def diameter(sigma_px: float) -> int:
        return 2 * round(3 * sigma_px) + 1

    def fit(spots: Spots) -> np.ndarray:
        size = diameter(spots.sigma_px)
        pad = ((0, 0), (size, size), (size, size))
        crops = np.pad(spots.crops, pad, mode="reflect")
        corner = mosaic_corners(len(crops), crops.shape[1])
        image = mosaic(crops, crops.shape[1])
        passed = trackpy.bandpass(image, 1, size, threshold=1)
        at = (spots.start[:, 0].round() + corner + size).astype(int)[:, ::-1]
        table = trackpy.refine_com(image, passed, size // 2, at, engine="numba")
        xy = table[["x", "y"]].to_numpy() - corner - size
        return np.concatenate([xy, np.full_like(xy, np.nan)], axis=1)

    def find(frames: np.ndarray, sigma_px: float) -> list[np.ndarray]:
        found = []
        for frame in frames:
            table = trackpy.locate(frame, diameter(sigma_px), engine="numba")
            xy = table[["x", "y"]].to_numpy()
            found.append(np.concatenate([xy, np.full_like(xy, np.nan)], axis=1))
        return found

    return Program(fit, find, told_width=True)


def background(images: np.ndarray) -> np.ndarray:
    """Return the mean of each image's two outermost rings without outliers, (N, 1, 1)."""
    border = np.ones(images.shape[1:], bool)
    border[2:-2, 2:-2] = False
    values = images[:, border]
    centre, spread = np.median(values, axis=1, keepdims=True), values.std(axis=1, keepdims=True)
    for _ in range(3):
        inside = np.abs(values - centre) <= 3 * spread
        count = inside.sum(axis=1, keepdims=True).clip(min=1)
        centre = (values * inside).sum(axis=1, keepdims=True) / count
        spread = np.sqrt(((values - centre) ** 2 * inside).sum(axis=1, keepdims=True) / count)
    return centre[:, :, None]


def mosaic(images: np.ndarray, pitch: int) -> np.ndarray:
    """Put images (N, S, S) into one, at `mosaic_corners`; 0 in between."""
    whole = np.zeros(mosaic_corners(len(images), pitch).max(axis=0)[::-1] + pitch, images.dtype)
    for image, (x, y) in zip(images, mosaic_corners(len(images), pitch), strict=True):
        whole[y : y + image.shape[0], x : x + image.shape[1]] = image
    return whole


def mosaic_corners(count: int, pitch: int) -> np.ndarray:
    """Return ``x`` and ``y`` of each image's first pixel in a `mosaic`, (N, 2)."""
    columns = int(np.ceil(np.sqrt(count)))
    return np.stack([np.arange(count) % columns, np.arange(count) // columns], axis=1) * pitch


PEERS: dict[str, tuple[str, Callable[[], Program]]] = {
    "Picasso": ("picassosr", picasso),
    "Picasso, older fit": ("picassosr", picasso_integrated),
    "SMAPpy": ("smappy-smlm", smappy),
    "sep": ("sep", sep),
    "photutils": ("photutils", photutils),
    "trackpy": ("trackpy", trackpy),
}
"""Other programs: the packages that hold them, and what they can do."""


def load_programs(
    checkpoints: Sequence[Path], only: Sequence[str], device: str = "cpu"
) -> dict[str, Program]:
    """Return all programs whose names hold one of ``only``, and that are installed."""
    ways: dict[str, Callable[[], Program]] = {}
    for name in estimators.__all__:
        ways[f"our {name}"] = partial(our_estimator, name, False, device)
        if "sigma_px" in inspect.signature(getattr(estimators, name)).parameters:
            ways[f"our {name}, width known"] = partial(our_estimator, name, True, device)
    for path in checkpoints:
        run = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
        model, _ = load_model(path)
        model.to(device)
        ways[f"our model {run}"] = partial(our_model, model, device)
        if model.any_size:
            ways[f"our model {run}, pixel unknown"] = partial(our_model, model, device, False)
    ways |= {name: load for name, (_, load) in PEERS.items()}
    programs = {}
    for name, load in ways.items():
        if not only or any(part in name for part in only):
            try:
                programs[name] = load()
            except ImportError as error:
                print(f"{name} is left out ({error}): see docs/peers.md for how to install it")
    return programs


def versions() -> str:
    """Return which versions of packages were measured."""
    names = dict.fromkeys(["torch", "numpy", "numba", *(package for package, _ in PEERS.values())])
    found = []
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)
