"""Pixel Spotter from Python: ``pixel_spotter.locate``, ``load`` and ``bound``; NumPy in and out."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import FLAGS, Size, as_size
from pixel_spotter.data.reading import MOST_PIXELS
from pixel_spotter.data.values import saturated_at, white_of
from pixel_spotter.errors import UserError
from pixel_spotter.estimators.locating import LEAST_SIDE
from pixel_spotter.models.locator import make_locator
from pixel_spotter.simulation.bound import crlb, fisher_information
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import expected_image, make_psf

if TYPE_CHECKING:
    from pixel_spotter.models.base import PointRegressor


def locate(
    frames: ArrayLike,
    camera: Mapping[str, Any] | None = None,
    psf: Mapping[str, Any] | None = None,
    false_alarms: float = 0.01,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Find every spot in frames, and say where it is, how exactly, and how sure that is.

    Args:
        frames: counts as the camera recorded them, (F, H, W) or (H, W); pixels without a value are
            nan, or masked. Arrays mapped from a file are read a part at a time.
        camera: ``gain``, electrons per count, ``offset``, counts of no light, ``read_noise``,
            electrons, a number or a map (H, W), ``em_gain``, and ``saturation``, counts. What is
            not given is estimated from the first frames, but for ``em_gain``, 1, and
            ``saturation``: the largest number of the array's type, or what looks cut off, which a
            warning tells.
        psf: ``sigma_px`` and ``ratio`` of a Gaussian, or ``file``, a measured one: an array or a
            ``.npy`` file, and its ``oversampling``. A width that is not given is estimated.
        false_alarms: so many are accepted in an empty frame, on average.
        checkpoint: of a spotter, which then says where the spots are that were found.
        device: where to compute: cpu or cuda.

    Returns:
        A row for each spot: ``frame``, from 0, ``x, y, sd_x, sd_y``, px, ``corr_xy``,
        ``photons``, ``background`` per pixel, ``sigma_px``, ``score``, how many deviations it
        stands out, and ``flag``, why to doubt it. ``.attrs["estimated"]`` has what was estimated.

    Raises:
        UserError: if frames or settings cannot be used.
    """
    wanted = "frames must be numbers (F, H, W) or (H, W)"
    try:
        frames = frames if isinstance(frames, np.ndarray) else np.ma.asarray(frames)
    except ValueError as error:  # rows of different lengths
        raise UserError(f"{wanted}: {error}") from error
    if frames.ndim == 2:
        frames = frames[None]
    if frames.ndim != 3 or frames.size == 0 or frames.dtype.kind not in "biuf":
        raise UserError(f"{wanted}, got {frames.dtype} {frames.shape}")
    for name, settings in (("camera", camera), ("psf", psf)):
        require(settings is None or isinstance(settings, Mapping), name, "a dict", settings)
    fits = device == "cpu" or (str(device).startswith("cuda") and torch.cuda.is_available())
    require(fits, "device", "cpu, or cuda where PyTorch sees a GPU", device)
    if min(frames.shape[1:]) < LEAST_SIDE:
        raise UserError(f"frames must be at least {LEAST_SIDE} px wide and high")
    locator = make_locator(camera or {}, psf or {}, false_alarms, checkpoint)
    step = max(1, MOST_PIXELS // frames[0].size)
    told, white = locator.saturation, white_of(frames.dtype)
    known: float | None = None
    tables = []
    for start in range(0, len(frames), step):
        part = np.ma.filled(frames[start : start + step].astype(np.float32), np.nan)
        part[~np.isfinite(part)] = np.nan
        if told is None:
            locator.saturation, guessed = saturated_at(part, white, known)
            if guessed:
                known = locator.saturation
                warnings.warn(guessed, stacklevel=2)
        counts = torch.from_numpy(part).to(device)
        if start == 0:
            for line in locator.learn(counts):
                if "estimated" not in line:
                    warnings.warn(line, stacklevel=2)
        columns = {name: column.cpu().numpy() for name, column in locator(counts).items()}
        columns["flag"] = np.array(FLAGS)[columns["flag"].astype(int)]
        tables.append(pd.DataFrame(columns | {"frame": columns["frame"] + start}))
    found = pd.concat(tables, ignore_index=True)
    found.attrs["estimated"] = dict(locator.estimated)
    return found


def load(path: str | Path, trust: tuple[str, ...] = ()) -> "PointRegressor":
    """Load a model, whose ``predict(array)`` takes images (N, H, W); see its own words.

    Args:
        path: a checkpoint.
        trust: modules of one's own that it may name.

    Raises:
        UserError: if the file is none, or holds more than data.
    """
    from pixel_spotter.models.loading import load_model  # who only locates needs no seconds for it

    return load_model(path, trust)[0]


def bound(
    photons: ArrayLike,
    background: ArrayLike,
    sigma_px: ArrayLike = 1.0,
    size: int | Size | np.ndarray = (50, 50),
    xy: ArrayLike | None = None,
    read_noise: float = 0.0,
    psf: Mapping[str, Any] | None = None,
    width_known: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Cramér-Rao bound: no unbiased estimate scatters less, px.

    With position, photons and background unknown (Smith et al. 2010, doi 10.1038/nmeth.1449), the
    width too if it is not known; exact for shot noise and read noise.

    Args:
        photons: of the spot; as is what follows, a number, or an array (...).
        background: photons per pixel.
        sigma_px: the spot's width.
        size: of the frame, (height, width), px.
        xy: where the spot is, (..., 2), px; None is the middle of the pixel in the middle.
        read_noise: standard deviation, electrons.
        psf: the arguments of `make_psf`; None is a round Gaussian.
        width_known: whether the width is none of what is unknown.

    Returns:
        ``bound_x`` and ``bound_y``, (...).

    Raises:
        ValueError: if nothing can be so.
    """
    height, width = as_size(size.tolist() if isinstance(size, np.ndarray) else size, "size")
    place = np.array([(width - 1) // 2, (height - 1) // 2]) if xy is None else np.asarray(xy)
    require(place.shape[-1:] == (2,), "xy", "positions (..., 2), px", xy)
    *values, x, y = np.broadcast_arrays(
        *(np.asarray(value, float) for value in (photons, background, sigma_px)),
        place[..., 0],
        place[..., 1],
    )
    for name, value in zip(("photons", "background", "sigma_px"), values, strict=True):
        require(bool((value > 0).all()), name, "more than 0", value.tolist())
    flat = [torch.from_numpy(value.astype(float).ravel().copy()) for value in (*values, x, y)]
    much, dark, sigma, x_px, y_px = flat
    try:
        spread = make_psf(**{"name": "gaussian", **(psf or {})})
    except TypeError as error:
        raise UserError(f"psf: {error}") from error
    spots = torch.stack([x_px, y_px, much], dim=1)[:, None]
    expected, derivatives = expected_image(spread, spots, dark, sigma, (height, width))
    unknown = 4 if width_known or not spread.has_width else 5
    information = Camera(read_noise).information(expected)
    variance = crlb(fisher_information(derivatives[:, :unknown], information))
    bound_x, bound_y = variance[:, :2].sqrt().numpy().T.reshape(2, *x.shape)
    return bound_x, bound_y
