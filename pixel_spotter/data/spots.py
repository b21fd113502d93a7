"""Spots as cameras record them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pixel_spotter.arguments import check_arguments, require_whole
from pixel_spotter.coordinates import Columns, as_size
from pixel_spotter.data.base import PointData
from pixel_spotter.randomness import BLOCK, for_samples, generator, whole_blocks
from pixel_spotter.simulation.bound import crlb, fisher_information
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import expected_image, kept_psf, light, make_psf

Range = float | Sequence[float]
"""A number, or the lowest and the highest."""

_CUT = 7
"""A cut frame shows less than this many columns, or rows, beside the spot's pixel."""

_MOST = 1e9
"""No setting is larger; float32 counts photons one by one up to 1.7e7."""

_FLOOR_PIXELS = 2_000_000
"""So many pixels' derivatives are in memory at a time while bounds are computed."""


class SpotDataModule(PointData):
    """A spot in each image, in photons: blurred, between pixels, with the noise of a camera.

    Each sample is drawn anew, none comes twice: nothing that is tested was trained on.

    Args:
        image_size: side of the square image, or [height, width], px.
        photons: of the spot, over all the plane; a number, or [lowest, highest]: log-uniform.
        background: photons per pixel; likewise.
        sigma_px: the spot's width, px; likewise. Null for a psf that was measured.
        margin_px: no spot lies closer to the image's edge than this, px; 0: edges included.
        neighbour_probability: how many images have a second spot.
        neighbour_px: its distance from the first, px; a number, or [lowest, highest].
        neighbour_ratio: its photons over those of the first; a number, or a log-uniform range.
        cut_probability: of how many images a part lies outside the frame and is nan: along x or y
            or both, up to the middle of the image.
        read_noise: electrons, a number or a range, uniform; null: the camera's.
        camera: the arguments of `Camera`.
        psf: those of `make_psf`.
        train_samples: images in an epoch.
        val_samples: images for validation.
        test_samples: images to test.
        batch_size: images in a batch, which several devices share.
        num_workers: processes that hand out batches; 0 is fastest, as there is nothing to read.
        seed: what the samples follow from.

    Raises:
        ValueError: if an argument is out of its range.
    """

    in_photons = True

    def __init__(
        self,
        image_size: int | Sequence[int] = 50,
        photons: Range = 1000.0,
        background: Range = 10.0,
        sigma_px: Range | None = 1.0,
        margin_px: float = 0.0,
        neighbour_probability: float = 0.0,
        neighbour_px: Range = (2.5, 9.5),
        neighbour_ratio: Range = 1.0,
        cut_probability: float = 0.0,
        read_noise: Range | None = None,
        camera: Mapping[str, Any] | None = None,
        psf: Mapping[str, Any] | None = None,
        train_samples: int = 100_000,
        val_samples: int = 2000,
        test_samples: int = 10_000,
        batch_size: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(as_size(image_size), batch_size, num_workers, seed)
        for name, count in (("train", train_samples), ("val", val_samples), ("test", test_samples)):
            require_whole(f"data.{name}_samples", count, 1)
        self.psf = make_psf(**(psf or {"name": "gaussian"}))
        check_arguments(Camera, camera or {}, "camera")
        self.camera = Camera(**(camera or {}))
        self.photons = _range("photons", photons)
        self.background = _range("background", background)
        if self.psf.has_width == (sigma_px is None):
            raise ValueError(
                "data.sigma_px must be a width for a psf that has one, and null for one that was "
                f"measured; got {sigma_px}"
            )
        self.sigma_px = _range("sigma_px", 1.0 if sigma_px is None else sigma_px)
        self.neighbour_px = _range("neighbour_px", neighbour_px)
        self.neighbour_ratio = _range("neighbour_ratio", neighbour_ratio)
        self.read_noise = (
            None if read_noise is None else _range("read_noise", read_noise, zero=True)
        )
        self.chances = neighbour_probability, cut_probability
        for name, chance in zip(("neighbour", "cut"), self.chances, strict=True):
            if not 0 <= chance <= 1:
                raise ValueError(f"data.{name}_probability must lie in [0, 1], got {chance}")
        if not 0 <= 2 * margin_px < min(self.size):
            raise ValueError(
                f"data.margin_px must leave a part of {self.size[0]}x{self.size[1]} px, got "
                f"{margin_px}"
            )
        own_noise = self.camera.read_noise
        if read_noise is not None and torch.as_tensor(own_noise).any():
            raise ValueError(
                "data.read_noise and camera.read_noise both say how much noise there is: set "
                "data.read_noise=null for the camera's"
            )
        if isinstance(own_noise, Tensor) and own_noise.shape != self.size:
            raise ValueError(
                f"camera.read_noise is a map of {tuple(own_noise.shape)} px, the images have "
                f"{self.size}"
            )
        self.margin_px, self.has_gaps = margin_px, cut_probability > 0
        self.save_hyperparameters(logger=False)
        if psf is not None:
            self.hparams["psf"] = kept_psf(psf, self.psf)
        if isinstance(own_noise, Tensor):
            self.hparams["camera"] = {**(camera or {}), "read_noise": own_noise}
        self.train_samples = train_samples
        self.counts = {"train": train_samples, "val": val_samples, "test": test_samples}

    def truth(self, split: str, epoch: int, samples: Tensor) -> Columns:
        """Return what the samples (B,) are made of.

        Returns:
            ``x_true, y_true, photons_true, background_true, sigma_px_true``; with neighbours
            ``neighbour_x_true``, ... ``_y_``, ``_photons_``, 0 where there is none; with cuts
            ``cut_x_true``, ... ``_y_``, of how many columns and rows are outside the frame, at the
            far side if negative; with a range of read noise, ``read_noise_true``: float32.
        """
        drawn = for_samples(
            samples,
            lambda n, rng: torch.rand(n, 16, generator=rng, device=rng.device),
            *(self.seed, split, epoch, "truth"),
        )
        u = iter(drawn.unbind(1))
        height, width = self.size
        x, y = (
            self.margin_px - 0.5 + next(u) * (side - 2 * self.margin_px) for side in (width, height)
        )
        photons = _log_uniform(self.photons, next(u))
        columns = {
            "x_true": x,
            "y_true": y,
            "photons_true": photons,
            "background_true": _log_uniform(self.background, next(u)),
            "sigma_px_true": _log_uniform(self.sigma_px, next(u)),
        }
        neighbours, cuts = self.chances
        there, angle, distance, ratio = (next(u) for _ in range(4))
        if neighbours:
            low, high = self.neighbour_px
            distance, angle = low + distance * (high - low), 2 * math.pi * angle
            light = photons * _log_uniform(self.neighbour_ratio, ratio)
            columns["neighbour_x_true"] = x + distance * angle.cos()
            columns["neighbour_y_true"] = y + distance * angle.sin()
            columns["neighbour_photons_true"] = torch.where(there < neighbours, light, 0)
        noise, cut, which = (next(u) for _ in range(3))
        if self.read_noise is not None:
            low, high = self.read_noise
            columns["read_noise_true"] = low + noise * (high - low)
        if cuts:
            for axis, at, side in (("x", x, width), ("y", y, height)):
                here = (cut < cuts) & ((which < 2 / 3) if axis == "x" else (which > 1 / 3))
                kept = (next(u) * _CUT).floor()  # between the frame's edge and the spot's pixel
                pixel = (at + 0.5).floor().clamp(0, side - 1)
                near, far = (pixel - kept).clamp(min=0), (pixel + kept + 1 - side).clamp(max=0)
                columns[f"cut_{axis}_true"] = torch.where(
                    here, torch.where(next(u) < 0.5, near, far), 0
                )
        return columns

    def render(self, truth: Columns, split: str, epoch: int, samples: Tensor) -> Tensor:
        """Return images in photons, as a calibrated camera records them: (B, 1, H, W)."""
        whole, place = whole_blocks(samples)
        if len(whole) != len(samples):
            truth = self.truth(split, epoch, whole)
        elif not torch.equal(whole, samples):
            truth = {name: column[place.argsort()] for name, column in truth.items()}
        expected = light(self.psf, *self._made_of(truth), self.size)
        noise = truth.get("read_noise_true", torch.zeros(0))[:, None, None]
        parts = []
        for first in range(0, len(whole), BLOCK):
            block = slice(first, first + BLOCK)
            rng = generator(
                *(self.seed, split, epoch, "noise", int(whole[first]) // BLOCK),
                device=expected.device,
            )
            parts.append(
                self.camera.expose(expected[block], rng, noise[block] if len(noise) else None)
            )
        image = self.camera.to_photons(torch.cat(parts))
        return torch.where(self._seen(truth), image, torch.nan)[place][:, None]

    def floor(self, truth: Columns) -> Columns:
        """Return the Cramér-Rao bounds of samples, ``bound_x`` and ``bound_y``, px: (B,), float32.

        For unknown position, photons and background, of the neighbour too, and unknown width where
        it is drawn from a range; of what the frame shows.
        """
        exact = {name: column.double().cpu() for name, column in truth.items()}
        alone = exact.get("neighbour_photons_true", torch.zeros_like(exact["x_true"])) == 0
        variance = torch.full((len(alone), 2), torch.nan, dtype=torch.float64)
        step = max(1, _FLOOR_PIXELS // (self.size[0] * self.size[1]))
        for group in (alone.nonzero()[:, 0], (~alone).nonzero()[:, 0]):
            for rows in torch.split(group, step):
                variance[rows] = self._bound({name: one[rows] for name, one in exact.items()})
        # Of a neighbour that throws no light on what the frame shows, nothing can be known.
        unseen = variance.isnan().any(dim=1) & ~alone
        if unseen.any():
            rest = {name: one[unseen] for name, one in exact.items() if "neighbour" not in name}
            variance[unseen] = self._bound(rest)
        deviation = variance.sqrt().to(truth["x_true"])
        return {"bound_x": deviation[:, 0], "bound_y": deviation[:, 1]}

    def seen_in_training(self, trained_on: Sequence[PointData]) -> float:
        """Return 0: every sample is drawn anew."""
        return 0.0

    def _bound(self, truth: Columns) -> Tensor:
        """Return the smallest variances of x and y, (B, 2); all have a neighbour or none has."""
        expected, derivatives = expected_image(self.psf, *self._made_of(truth), self.size)
        if self.sigma_px[0] == self.sigma_px[1]:
            derivatives = derivatives[:, :-1]
        noise = truth.get("read_noise_true")
        information = self.camera.information(
            expected, None if noise is None else noise[:, None, None]
        )
        return crlb(fisher_information(derivatives, information * self._seen(truth)))[:, :2]

    def _made_of(self, truth: Columns) -> tuple[Tensor, Tensor, Tensor]:
        """Return spots (B, K, 3), background and sigma_px, (B,) each, as PSFs take them."""
        spots = [torch.stack([truth["x_true"], truth["y_true"], truth["photons_true"]], dim=1)]
        if "neighbour_photons_true" in truth and truth["neighbour_photons_true"].any():
            names = [f"neighbour_{name}_true" for name in ("x", "y", "photons")]
            spots.append(torch.stack([truth[name] for name in names], dim=1))
        return torch.stack(spots, dim=1), truth["background_true"], truth["sigma_px_true"]

    def _seen(self, truth: Columns) -> Tensor:
        """Return which pixels lie in the frame: (B, H, W) or (1, 1, 1), bool."""
        if "cut_x_true" not in truth:
            return torch.ones(1, 1, 1, dtype=torch.bool, device=truth["x_true"].device)
        inside = []
        for axis, side in (("x", self.size[1]), ("y", self.size[0])):
            cut = truth[f"cut_{axis}_true"][:, None]
            place = torch.arange(side, device=cut.device)
            inside.append((place >= cut) & (place < side + cut.clamp(max=0)))
        return inside[1][:, :, None] & inside[0][:, None, :]


def _range(name: str, value: Range, zero: bool = False) -> tuple[float, float]:
    """Read a positive number or [lowest, highest]; ``zero``: or 0."""
    pair = [value, value] if isinstance(value, float | int) else [*value]
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= _MOST or (pair[0] == 0 and not zero):
        wanted = f"{'at least' if zero else 'more than'} 0, at most {_MOST:g}"
        raise ValueError(f"data.{name} must be {wanted}, or [lowest, highest], got {value!r}")
    return float(pair[0]), float(pair[1])


def _log_uniform(limits: tuple[float, float], u: Tensor) -> Tensor:
    """Turn uniform numbers in [0, 1) into log-uniform ones between limits."""
    low, high = limits
    return low * (high / low) ** u
