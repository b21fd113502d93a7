"""The white pixel made harder: dim, on grey, blurred, in noise, among others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pixel_spotter.arguments import require, require_whole
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.randomness import for_samples
from pixel_spotter.simulation.psf import GaussianPSF

_SHARPEST_PX = 0.05
"""A Gaussian this narrow lies in one pixel."""


class DiverseDataModule(PixelDataModule):
    """One brightest spot on a whole pixel, in images between black (0) and white (1).

    Positions are those of `PixelDataModule`; what their images look like is drawn anew for every
    sample of every epoch.

    Args:
        brightness: how far the spot's pixel is from the background to white, in (0, 1]; a number,
            or [lowest, highest], as are the next three.
        background: grey of the background, in [0, 1).
        blur_px: standard deviation of the Gaussian that the pixel became, px; 0 is a pixel. It is
            as bright in its middle as the pixel was.
        noise: standard deviation of Gaussian noise in every pixel.
        distractors: up to so many others in an image, anywhere.
        distractor_brightness: the largest that one has, as a share of the spot's.
        image_size, split, train_samples, val_fraction, test_fraction, batch_size, num_workers,
            seed, epoch_samples: see `PixelDataModule`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        brightness: float | Sequence[float] = (0.3, 1.0),
        background: float | Sequence[float] = (0.0, 0.5),
        blur_px: float | Sequence[float] = (0.0, 1.0),
        noise: float | Sequence[float] = (0.0, 0.05),
        distractors: int = 3,
        distractor_brightness: float = 0.5,
        image_size: int | Sequence[int] = 50,
        split: str = "uniform",
        train_samples: int = 2500,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        epoch_samples: int | None = None,
    ) -> None:
        super().__init__(
            image_size, split, train_samples, val_fraction, test_fraction, batch_size,
            num_workers, seed, epoch_samples,
        )  # fmt: skip
        self.ranges = {
            "brightness_true": _within("brightness", brightness, 1.0),
            "background_true": _within("background", background, 0.99),
            "blur_px_true": _within("blur_px", blur_px, 20.0),
            "noise_true": _within("noise", noise, 1.0),
        }
        lowest = self.ranges["brightness_true"][0]
        require(lowest > 0, "data.brightness", "more than 0", brightness)
        require_whole("data.distractors", distractors, 0)
        share = distractor_brightness
        require(0 <= share < 1, "data.distractor_brightness", "in [0, 1)", share)
        self.distractors, self.distractor_brightness = distractors, share
        self.save_hyperparameters(logger=False)

    def truth(self, split: str, epoch: int, samples: Tensor) -> Columns:
        """Return the columns of `PixelDataModule`, and the four that ``ranges`` names, (B,)."""
        u = self._uniform(len(self.ranges), split, epoch, samples, "look")
        looks = {
            name: low + (high - low) * u[:, k]
            for k, (name, (low, high)) in enumerate(self.ranges.items())
        }
        return {**super().truth(split, epoch, samples), **looks}

    def render(self, truth: Columns, split: str, epoch: int, samples: Tensor) -> Tensor:
        """Return images (B, 1, H, W)."""
        height, width = self.size
        u = self._uniform(4 * self.distractors, split, epoch, samples, "distractors")
        x, y, share, there = u.view(len(samples), 4, self.distractors).unbind(1)
        others = torch.stack([(x * width).floor(), (y * height).floor()], dim=2)
        share = share * self.distractor_brightness * (there < 0.5)  # half of them, on average
        places = torch.cat([as_xy(truth, "_true")[:, None], others], dim=1)
        bright = torch.cat([share.new_ones(len(samples), 1), share], dim=1)
        blur = truth["blur_px_true"].clamp(min=_SHARPEST_PX)[:, None].expand(places.shape[:-1])
        light = GaussianPSF().share(places, blur, self.size)
        peak = torch.erf(0.5**1.5 / blur[:, 0]).square()
        bright = bright * (truth["brightness_true"] / peak)[:, None]
        above = (bright[..., None, None] * light).sum(dim=1).clamp(max=1)
        background = truth["background_true"][:, None, None]
        noise = for_samples(
            samples,
            lambda n, rng: torch.randn(n, height, width, generator=rng, device=rng.device),
            *(self.seed, split, epoch, "noise"),
        )
        image = background + (1 - background) * above + truth["noise_true"][:, None, None] * noise
        return image.clamp(0, 1)[:, None]

    def _uniform(self, count: int, split: str, epoch: int, samples: Tensor, name: str) -> Tensor:
        return for_samples(
            samples,
            lambda n, rng: torch.rand(n, count, generator=rng, device=rng.device),
            *(self.seed, split, epoch, name),
        )


def _within(name: str, value: float | Sequence[float], most: float) -> tuple[float, float]:
    """Read a number, or [lowest, highest], from 0 to the most there can be."""
    pair = [value] * 2 if isinstance(value, float | int) else [*value]
    fits = len(pair) == 2 and 0 <= pair[0] <= pair[1] <= most
    require(fits, f"data.{name}", f"in [0, {most:g}], or [lowest, highest] of such", value)
    return float(pair[0]), float(pair[1])
