"""Sample numbers in, batches of rendered images out: what all data share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pixel_spotter.arguments import require_whole
from pixel_spotter.coordinates import Columns, Size
from pixel_spotter.randomness import generator


class Batch(NamedTuple):
    """Images (B, 1, H, W), float32, what is true of them, and their samples' numbers (B,), int64.

    The truth has the columns ``x_true, y_true`` and what else is known, (B,) each, float32.
    """

    image: Tensor
    truth: Columns
    samples: Tensor


class PointData(L.LightningDataModule, ABC):
    """Images with a point in each, made a batch at a time on the device that trains.

    Loaders hand out sample numbers only. Sample i of epoch e of a split follows from (seed, split,
    e, i) alone: batch size, workers, devices and resuming change nothing about it.

    A subclass sets ``counts`` and ``train_samples``, and says what is true of samples and what
    their images look like; it saves its constructor's arguments with ``save_hyperparameters``, so
    that checkpoints name them. What it calls ``split`` stands in the figures.

    Args:
        size: height and width of the images, px.
        batch_size: images in a batch, on each device.
        num_workers: processes that hand out batches; 0 is fastest, as there is nothing to read.
        seed: what the samples follow from.
    """

    in_photons: bool = False
    """Whether images are in photons; others are 0 where black and 1 where white."""
    has_gaps: bool = False
    """Whether images may have pixels without a value, nan."""
    counts: dict[str, int]
    """How many samples an epoch of ``train``, ``val`` and ``test`` has."""
    train_samples: int
    """How many samples there are to train on, over all epochs."""

    def __init__(self, size: Size, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        require_whole("data.batch_size", batch_size, 1)
        require_whole("data.num_workers", num_workers, 0)
        require_whole("data.seed", seed, 0)
        self.size, self.seed = size, seed
        self.batch_size, self.num_workers = batch_size, num_workers

    @abstractmethod
    def truth(self, split: str, epoch: int, samples: Tensor) -> Columns:
        """Return what is true of samples (B,): ``x_true`` and ``y_true``, px, at least."""

    @abstractmethod
    def render(self, truth: Columns, split: str, epoch: int, samples: Tensor) -> Tensor:
        """Return the samples' images (B, 1, H, W), noise included."""

    def floor(self, truth: Columns) -> Columns:
        """Return how well samples can be found at all, ``bound_x`` and ``bound_y``, if known."""
        return {}

    @abstractmethod
    def seen_in_training(self, trained_on: "Sequence[PointData]") -> float:
        """Return which fraction of the test samples are among those that were trained on."""

    def batch(self, split: str, epoch: int, samples: Tensor) -> Batch:
        """Return samples (B,) as models see them, on the device of the numbers."""
        truth = self.truth(split, epoch, samples)
        image = self.render(truth, split, epoch, samples)
        floor = {} if split == "train" else self.floor(truth)
        return Batch(image, {**truth, **floor}, samples)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> Batch:
        split = batch["split"]
        epoch = self.trainer.current_epoch if self.trainer and split == "train" else 0
        return self.batch(split, epoch, batch["samples"])

    def _loader(self, split: str) -> DataLoader[Any]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        equal = split == "train"
        numbers = batches(self.counts[split], self.batch_size, rank, world_size, equal)
        return DataLoader(
            [{"split": split, "samples": samples} for samples in numbers],  # type: ignore[arg-type]
            batch_size=None,  # they are batches already
            num_workers=self.num_workers,
            # Without one of its own, a loader draws from the global stream, which dropout needs.
            generator=generator(self.seed, "loader"),
        )


def batches(
    count: int, batch_size: int, rank: int = 0, world_size: int = 1, equal: bool = False
) -> list[Tensor]:
    """Return the sample numbers 0 .. count-1 in order, a batch at a time, of the device ``rank``.

    Each of several devices takes its piece of what would be one's larger batch: two with batches of
    32 see together what one with batches of 64 sees, and noise of consecutive samples stays
    together (see `randomness.for_samples`). With ``equal`` they get the same number of samples in
    the same number of batches, as training together needs; up to ``world_size - 1`` are left out
    then. Without, one that would get none gets a batch without samples, to go through the same.
    """
    if equal:
        count -= count % world_size
    shared = torch.split(torch.arange(count), batch_size * world_size) if count else ()
    mine = [one.tensor_split(world_size)[rank] for one in shared]
    return [batch for batch in mine if len(batch)] or ([] if equal else [torch.arange(0)])
