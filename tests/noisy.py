"""Data as a user of Pixel Spotter would add them: noise, and truths between the pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, all_positions, as_size, as_xy, sides_px
from pixel_spotter.data.base import PointData
from pixel_spotter.randomness import for_samples

EDGES_PX = torch.tensor([[-0.3, 7.2], [15.5, 3.0], [4.4, -0.5], [15.49, 15.5]])
"""Where the first test samples are in an image of 16x16 px: at its very edges."""


class NoisyPoints(PointData):
    """Bright blurred points anywhere in the image, and Gaussian noise.

    Args:
        image_size: as everywhere.
        split: its only one.
        train_samples: in an epoch; no epoch has those of another.
        batch_size: as everywhere.
        num_workers: as everywhere.
        seed: as everywhere.
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 16,
        split: str = "everywhere",
        train_samples: int = 80,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(as_size(image_size), batch_size, num_workers, seed)
        self.save_hyperparameters(logger=False)
        self.train_samples = train_samples
        self.counts = {"train": train_samples, "val": 30, "test": 45}

    def truth(self, split: str, epoch: int, samples: Tensor) -> Columns:
        drawn = for_samples(samples, _uniform, self.seed, split, epoch, "position")
        xy = drawn * sides_px(self.size, drawn) - 0.5
        if split == "test":
            first = samples < len(EDGES_PX)
            xy[first] = EDGES_PX[samples[first]]
        return {"x_true": xy[:, 0], "y_true": xy[:, 1], "photons_true": 100 + samples.float()}

    def render(self, truth: Columns, split: str, epoch: int, samples: Tensor) -> Tensor:
        height, width = self.size
        distance = all_positions(self.size) - as_xy(truth, "_true")[:, None]
        clean = (-distance.square().sum(-1) / 2).exp().view(-1, 1, height, width)

        def noise(count: int, rng: torch.Generator) -> Tensor:
            return torch.randn(count, 1, height, width, generator=rng)

        return clean + 0.1 * for_samples(samples, noise, self.seed, split, epoch, "noise")

    def seen_in_training(self, trained_on: Sequence[PointData]) -> float:
        return 0.0


def _uniform(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, 2, generator=rng)
