"""A camera's frames to a table of spots: what is not told is estimated from the frames."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixel_spotter.arguments import check_arguments, require
from pixel_spotter.coordinates import FLAGS, Columns, pixel_of
from pixel_spotter.errors import UserError
from pixel_spotter.estimators.calibration import (
    are_smoothed,
    camera_noise,
    noise_ratio,
    read_variance,
    spot_shape,
)
from pixel_spotter.estimators.finder import windows
from pixel_spotter.estimators.gaussian_fit import least_squares
from pixel_spotter.estimators.locating import Search
from pixel_spotter.estimators.residuals import CROWDED, STRUCTURED
from pixel_spotter.estimators.spots import Spots
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import PSF, GaussianPSF, MeasuredPSF, make_psf

_CLOSE = 2.0
"""Spots that are closer than so many of their widths may be one, of another shape."""

_ODD = 0.25
"""If so many of spots that are alone have another shape, it is not what was estimated."""

_OFF_CENTRE_PX = 0.05
"""A measured psf whose light is so far from its array's centre may have been cut out wrongly."""

_FEW = 8
"""So many frames tell whether they were smoothed."""

USUAL_PX = 1.2
"""The width of spots that are looked for where none stands out."""


class _Computing:
    """How many of Python's threads compute with one of PyTorch's, and how many there were before.

    The number is the whole process's: the last one to end has it be as it was.
    """

    def __init__(self) -> None:
        self.lock, self.many, self.threads = Lock(), 0, 1


_computing = _Computing()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have PyTorch compute with one thread: of what is small, several wait for each other most.

    Where other programs use the cores, they do so many times as long as the work takes.
    """
    with _computing.lock:
        if not _computing.many:
            _computing.threads = torch.get_num_threads()
        _computing.many += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _computing.lock:
            _computing.many -= 1
            if not _computing.many:
                torch.set_num_threads(_computing.threads)


class Locator:
    """Finds every spot in frames, as counts.

    What is None is estimated by `learn`, from the first frames that there are.

    Args:
        sigma_px: width of the spots, px; if it is None, each spot is fitted with its own.
        gain: electrons per count; with ``offset``, or neither.
        offset: counts of no light.
        read_noise: its standard deviation, electrons: a number, a ``.npy`` map or the map (H, W).
        em_gain: of an electron-multiplying register; 1 has none.
        saturation: what a pixel holds at most, counts: those that do are left out, and spots beside
            them flagged. None knows of none.
        psf: the arguments of `make_psf`; None is a Gaussian, whose ratio is estimated.
        false_alarms: how many are accepted in an empty frame, on average.
        model: a `SpotterRegressor`, which says where the spots are that were found, from a window
            around each; None leaves that to the fit that found them.

    Raises:
        ValueError: if an argument is out of its range, or gain or offset stands alone.
    """

    def __init__(
        self,
        sigma_px: float | None = None,
        gain: float | None = None,
        offset: float | None = None,
        read_noise: float | str | Tensor | None = None,
        em_gain: float = 1.0,
        saturation: float | None = None,
        psf: Mapping[str, Any] | None = None,
        false_alarms: float = 0.01,
        model: torch.nn.Module | None = None,
    ) -> None:
        self.model: Any = model
        if (gain is None) != (offset is None):
            raise UserError(
                "camera.gain and camera.offset go together: give both, or neither to have them "
                "estimated"
            )
        if gain is None and (read_noise is not None or em_gain != 1):
            raise UserError(
                "camera.read_noise and camera.em_gain are in electrons: give camera.gain and "
                "camera.offset as well"
            )
        for key, value in (("psf.sigma_px", sigma_px), ("camera.saturation", saturation)):
            fits = value is None or (_is_number(value) and value > 0)
            require(fits, key, "a positive number, or null", value)
        fits = sigma_px is None or 0.3 < sigma_px < 6
        require(fits, "psf.sigma_px", "between 0.3 and 6 px, or null", sigma_px)
        fits = _is_number(false_alarms) and 0 < false_alarms < 100
        require(fits, "false_alarms", "a number above 0 and below 100", false_alarms)
        given = {"gain": gain, "offset": offset, "em_gain": em_gain, "read_noise": read_noise}
        check_arguments(Locator, given, "camera")
        self.psf: PSF = make_psf(**(psf or {"name": "gaussian"}))
        if not self.psf.has_width and sigma_px is not None:
            raise UserError("psf.sigma_px: a psf that was measured is as wide as it is")
        self.ratio = (psf or {}).get("ratio")  # of a Gaussian; None: to be estimated
        self.fit_width = self.psf.has_width and sigma_px is None
        self.sigma_px = sigma_px if self.psf.has_width else _width_of(self.psf)
        self.saturation, self.false_alarms = saturation, false_alarms
        self.estimated: dict[str, float] = {}
        self.camera: Camera | None = None
        self.read_noise: float | Tensor | None = None
        if gain is not None and offset is not None:
            self.camera = Camera(0.0 if read_noise is None else read_noise, gain, offset, em_gain)
            self.read_noise = None if read_noise is None else self.camera.read_noise

    @_one_thread()
    def learn(self, counts: Tensor) -> list[str]:
        """Estimate what was not told from frames (F, H, W); return what was, in words."""
        said: list[str] = []
        self.refuse(counts)
        counts = self._telling(counts)
        if are_smoothed(counts[:_FEW]):
            said.append(
                "camera: noise is alike in neighbouring pixels, as where frames were smoothed, "
                "interpolated or compressed: there may be more false alarms than accepted, and "
                "deviations may be wrong. Give frames as the camera recorded them"
            )
        if self.camera is None:
            noise = camera_noise(counts)
            self.restore({"gain": noise.gain, "offset": noise.offset})
            told = f"camera.gain={noise.gain:.4g} camera.offset={noise.offset:.4g}"
            said.append(
                f"{told}, estimated from how noise grows with light, to {noise.unsure:.0%}; all of "
                f"it counts as that of light"
                if noise.grows
                else "camera: the frames do not show how noise grows with light; photons are known "
                "but for a factor, and deviations of bright spots are too small. Give camera.gain "
                "and camera.offset"
            )
        if self.read_noise is None:
            assert self.camera is not None
            photons = self.camera.to_photons(counts) / self.camera.excess_noise
            self.restore({"read_noise": math.sqrt(read_variance(photons)) * self._scale()})
            said.append(f"camera.read_noise={self.read_noise:.3g}, estimated")
        if "gain" not in self.estimated:
            said += self._doubts(counts)
        return said + self._learn_shape(counts)

    def _learn_shape(self, counts: Tensor) -> list[str]:
        """Estimate width and ratio of the spots; return what is to say of it."""
        if isinstance(self.psf, MeasuredPSF):
            x, y = self.psf.middle_px()
            if max(abs(x), abs(y)) < _OFF_CENTRE_PX:
                return []
            return [
                f"psf.file: the mean of its light lies {x:.2f}, {y:.2f} px right of and below the "
                f"array's centre, which is where spots are said to be"
            ]
        shape = spot_shape(*self._photons(counts), self.ratio) if len(counts) else None
        if shape is None:
            if self.sigma_px is not None:
                return []
            self.restore({"sigma_px": USUAL_PX})
            return [f"psf.sigma_px: no spot stands out, those of {USUAL_PX} px are looked for"]
        said, odd = [], shape.odd >= _ODD
        if self.ratio is None and shape.ratio != 1:
            self.restore({"ratio": shape.ratio})
            said.append(f"psf.ratio={shape.ratio:.3f}, estimated")
        width = shape.sigma_px
        if self.sigma_px is None:
            self.restore({"sigma_px": width})
            said.append(f"psf.sigma_px={width:.3f}, estimated")
        elif not odd and abs(width - self.sigma_px) > max(0.03 * width, 4 * shape.unsure):
            said.append(
                f"psf.sigma_px={self.sigma_px:g} is told, but spots look {width:.3g} px wide: each "
                f"is fitted with its own width"
            )
            self.restore({"sigma_px": width})
        if odd and shape.alone >= 10:
            said.append(
                "psf: many spots are no Gaussians, or several: what is found near bright ones may "
                "be their shape. Give psf.file, if it was measured"
            )
        return said

    def refuse(self, counts: Tensor) -> None:
        """Refuse frames that are darker than the camera's offset allows.

        Raises:
            UserError: if most of their pixels hold less.
        """
        if self.camera is None or not counts.isfinite().any():
            return
        middle = counts.nanmedian().item()
        if middle < self.camera.offset - self._dark():
            raise UserError(
                f"camera.offset={self.camera.offset:g} is more than most pixels hold, {middle:g}: "
                f"it is how many counts the camera gives without any light"
            )

    def noise_ratio(self, counts: Tensor, side: int = 2**20) -> float | None:
        """Return the variance that frames (F, H, W) show over that of the camera; None: none.

        Args:
            counts: the frames.
            side: of the part in their middle that is looked at, px.
        """
        image, variance = self._photons(self._telling(counts))
        top, left = (max(0, (whole - side) // 2) for whole in image.shape[1:])
        try:
            return noise_ratio(image[:, top : top + side, left : left + side], variance)
        except UserError:
            return None

    def _doubts(self, counts: Tensor) -> list[str]:
        """Say whether frames show another noise than a camera has that was told."""
        ratio = self.noise_ratio(counts)
        if ratio is None or 0.7 < ratio < 1.4:
            return []
        return [
            f"camera: the frames show {ratio:.2g} times the variance that it is told to have, by "
            f"which false alarms and deviations are wrong: see camera.gain, offset and read_noise"
        ]

    def restore(self, estimated: Mapping[str, float]) -> None:
        """Take what was estimated before: some of ``gain`` and ``offset``, and the others."""
        if "ratio" in estimated:
            self.psf = GaussianPSF(estimated["ratio"])
        self.fit_width |= "sigma_px" in estimated
        self.estimated = {**self.estimated, **estimated}
        if "gain" in estimated:
            self.camera = Camera(gain=estimated["gain"], offset=estimated["offset"])
            self.read_noise = 0.0
        self.read_noise = estimated.get("read_noise", self.read_noise)
        self.sigma_px = estimated.get("sigma_px", self.sigma_px)

    @_one_thread()
    @torch.inference_mode()
    def __call__(self, counts: Tensor) -> Columns:
        """Find the spots of frames (F, H, W), after `learn` or `restore` where that is needed.

        Returns:
            ``frame``, the first is 0, ``x, y, sd_x, sd_y``, px, ``corr_xy``, ``photons``,
            ``background`` per pixel, of a psf that has one ``sigma_px``, ``score``, how many
            deviations a spot stands out, and ``flag``, an index of `coordinates.FLAGS`.
        """
        assert self.sigma_px is not None
        assert self.camera is not None
        counts, full = self._unsaturated(counts)
        image, variance = self._photons(counts)
        search = Search(image, variance, self.psf, self.sigma_px, self.fit_width, self.false_alarms)
        spots, field = search.all(), search.field
        spots = spots.rows(torch.argsort(spots.frame, stable=True))
        pixel = pixel_of(spots.theta[:, :2], field.size)
        columns = self._columns(spots, field.uneven[spots.frame, pixel[:, 1], pixel[:, 0]])
        if self.model is not None:
            columns |= self._seen_by(
                self.model, field.alone(spots, pixel, self.model.window), pixel
            )
        side = min(2 * round(3 * self.sigma_px) + 1, field.side)
        near = windows(full.to(image), pixel, side, of=spots.frame).image.flatten(1).any(dim=1)
        columns["flag"] = torch.where(near, float(FLAGS.index("saturated")), columns["flag"])
        return columns

    def _columns(self, spots: Spots, uneven: Tensor) -> Columns:
        """Name what was fitted; ``uneven`` is the background beside that which was fitted."""
        assert self.camera is not None
        x, y, photons, background, sigma = spots.theta.unbind(dim=1)
        sd_x, sd_y = (spots.covariance[:, k, k].sqrt() for k in (0, 1))
        excess = self.camera.excess_noise
        doubtful = (spots.misfit > CROWDED) | (spots.unrest > STRUCTURED)
        doubtful |= spots.close(_CLOSE * sigma)
        return {
            "frame": spots.frame,
            "x": x,
            "y": y,
            "sd_x": sd_x,
            "sd_y": sd_y,
            "corr_xy": spots.covariance[:, 0, 1] / (sd_x * sd_y),
            "photons": photons * excess,
            "background": (background + uneven) * excess,
            **({"sigma_px": sigma} if self.psf.has_width else {}),
            "score": spots.score,
            "flag": torch.where(doubtful, float(FLAGS.index("crowded")), 0.0),
        }

    def _seen_by(self, model: Any, image: Tensor, pixel: Tensor) -> Columns:
        """Return what a model says of the spots in the middle of windows (N, w, w)."""
        assert self.camera is not None
        model.search((model.window, model.window), model.window // 2)
        columns: Columns = (
            model.to(image.device).eval().estimate(image[:, None] * self.camera.excess_noise)
        )
        for axis, name in enumerate("xy"):
            columns[name] = columns[name] + pixel[:, axis] - model.window // 2
        return columns

    def _unsaturated(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return counts without saturated pixels, and where these are."""
        full = counts >= (math.inf if self.saturation is None else self.saturation)
        return torch.where(full, torch.nan, counts), full

    def _telling(self, counts: Tensor) -> Tensor:
        """Return the frames that show something, without saturated pixels."""
        counts = self._unsaturated(counts)[0]
        flat = counts.flatten(1).nan_to_num(nan=-1.0)
        return counts[(flat != flat[:, :1]).any(dim=1)]

    def _photons(self, counts: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return photons whose noise has the variance of their mean, and that of other noise."""
        assert self.camera is not None
        assert self.read_noise is not None
        image = self.camera.to_photons(counts) / self.camera.excess_noise
        noise = self.read_noise
        if isinstance(noise, Tensor):
            if noise.shape != counts.shape[1:]:
                raise UserError(
                    f"camera.read_noise is a map of {tuple(noise.shape)} px, the frames have "
                    f"{tuple(counts.shape[1:])}"
                )
            noise = noise.to(counts)
        return image, (noise / self._scale()) ** 2

    def _dark(self) -> float:
        """Return by how many counts the middle of a dark frame may lie below the offset."""
        assert self.camera is not None
        noise = torch.as_tensor(self.camera.read_noise).max().item()
        return 1 + noise * self.camera.em_gain / self.camera.gain

    def _scale(self) -> float:
        """Return the electrons of read noise that make one photon of noise."""
        assert self.camera is not None
        return self.camera.em_gain * self.camera.excess_noise


def find(locator: Locator, counts: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    """Return the columns of spots in frames (F, H, W)."""
    columns = locator(torch.from_numpy(counts).to(device))
    return {name: column.cpu().numpy() for name, column in columns.items()}


def make_locator(
    camera: Mapping[str, Any],
    psf: Mapping[str, Any],
    false_alarms: float = 0.01,
    checkpoint: str | Path | None = None,
    trust: Sequence[str] = (),
) -> Locator:
    """Return what finds spots, from what a user says of camera and spots.

    Args:
        camera: arguments of `Locator`, from ``gain`` to ``saturation``.
        psf: ``sigma_px`` and ``ratio``, or ``file`` and ``oversampling``; see `make_psf`.
        false_alarms: see `Locator`.
        checkpoint: a spotter's.
        trust: modules of one's own that it may name.

    Raises:
        UserError: if something cannot be so.
    """
    model = None
    if checkpoint is not None:
        # Processes that share the work have no use for Lightning otherwise, which takes seconds.
        from pixel_spotter.models.loading import load_model
        from pixel_spotter.models.spotter import SpotterRegressor

        loaded, _ = load_model(checkpoint, trust)
        if not isinstance(loaded, SpotterRegressor):
            raise UserError(f"checkpoint={checkpoint} is not of model=spotter")
        model = loaded
    own = ("gain", "offset", "read_noise", "em_gain", "saturation")
    for key, given, known in (
        ("camera", camera, own),
        ("psf", psf, ("sigma_px", "ratio", "file", "oversampling")),
    ):
        for name in {*given} - {*known}:
            raise UserError(f"{key}.{name} is no setting: there are {', '.join(known)}")
    camera, psf = ({name: _plain(value) for name, value in one.items()} for one in (camera, psf))
    kind: dict[str, Any] = {"name": "gaussian"}
    if psf.get("ratio") is not None:
        kind["ratio"] = psf["ratio"]
    if psf.get("file") is not None:
        file = psf["file"]
        file = torch.from_numpy(file) if isinstance(file, np.ndarray) else file
        kind = {"name": "measured", "file": file, "oversampling": psf.get("oversampling", 5)}
    noise = camera.get("read_noise")
    noise = torch.from_numpy(noise) if isinstance(noise, np.ndarray) else noise
    try:
        return Locator(
            sigma_px=psf.get("sigma_px"),
            psf=kind,
            false_alarms=_plain(false_alarms),
            model=model,
            **{**camera, "read_noise": noise},
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _plain(value: Any) -> Any:
    """Return Python's number for one of NumPy's, as means and medians are."""
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _width_of(psf: PSF) -> float:
    """Return the width of the Gaussian that a psf is most like, px."""
    size = (25, 25)
    share = psf.share(torch.full((1, 2), 12.0), torch.ones(1), size)
    fitted = least_squares(1e6 * share, window=25)
    width = float(fitted["sigma_px"])
    return width if math.isfinite(width) else USUAL_PX
