"""White pixels in black images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pixel_spotter.arguments import require_whole
from pixel_spotter.coordinates import Columns, as_size, as_xy
from pixel_spotter.data.base import PointData
from pixel_spotter.data.splits import Split, seen_fraction, split_positions
from pixel_spotter.randomness import generator
from pixel_spotter.simulation.pixels import render_pixels


class PixelDataModule(PointData):
    """One white pixel in each black image, on positions shared out between train, val and test.

    Args:
        image_size: side of the square image, or [height, width], px.
        split: one of `splits.SPLITS`: ``uniform``, ``quadrant``, ``border`` or ``iid``.
        train_samples: samples to train on: so many training positions, or all of them repeatedly.
        val_fraction, test_fraction: shares of all positions, for validation and to test.
        batch_size, num_workers: see `PointData`.
        seed: what the split and the order of samples follow from.
        epoch_samples: samples drawn in an epoch, every position once before any comes again;
            None draws ``train_samples``.
    """

    def __init__(
        self,
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
        super().__init__(as_size(image_size), batch_size, num_workers, seed)
        require_whole("data.train_samples", train_samples, 1)
        require_whole("data.epoch_samples", 1 if epoch_samples is None else epoch_samples, 1)
        self.save_hyperparameters(logger=False)
        parts = split_positions(split, self.size, val_fraction, test_fraction, train_samples, seed)
        self.positions: Split = parts._replace(train=parts.train[:train_samples])
        self.train_samples = train_samples
        self.counts = {
            "train": train_samples if epoch_samples is None else epoch_samples,
            "val": len(self.positions.val),
            "test": len(self.positions.test),
        }
        self._drawn = (-1, torch.empty(0))

    def truth(self, split: str, epoch: int, samples: Tensor) -> Columns:
        positions: Tensor = getattr(self.positions, split)
        if split == "train":
            positions = positions[self._draw(epoch)]
        xy = positions.to(samples.device)[samples].float()
        return {"x_true": xy[:, 0], "y_true": xy[:, 1]}

    def render(self, truth: Columns, split: str, epoch: int, samples: Tensor) -> Tensor:
        return render_pixels(as_xy(truth, "_true").long(), self.size)

    def seen_in_training(self, trained_on: Sequence[PointData]) -> float:
        seen = [data.positions.train for data in trained_on if isinstance(data, PixelDataModule)]
        return seen_fraction(self.positions.test, torch.cat(seen)) if seen else 0.0

    def _draw(self, epoch: int) -> Tensor:
        """Return which training position each sample of an epoch has; kept for the next batch."""
        if self._drawn[0] != epoch:
            samples = max(self.counts["train"], self.train_samples)
            self._drawn = epoch, shuffled(len(self.positions.train), samples, self.seed, epoch)
        return self._drawn[1]


def shuffled(count: int, samples: int, seed: int, epoch: int) -> Tensor:
    """Return an epoch's draw (samples,) of ``count`` indices, each once before any comes again."""
    rng = generator(seed, "train", epoch)
    rounds = -(-samples // count)
    return torch.cat([torch.randperm(count, generator=rng) for _ in range(rounds)])[:samples]
