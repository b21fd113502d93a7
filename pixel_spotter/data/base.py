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

    The truth has the columns ``x_true, y_true`` and what else is known, (B,) each, float32. The
    weight is that of the mean loss, so that the mean over devices is that over all their samples.
    """

    image: Tensor
    truth: Columns
    samples: Tensor
    weight: float = 1.0


class PointData(L.LightningDataModule, ABC):
    """Images with a point in each, made a batch at a time on the device that trains.

    Loaders hand out sample numbers only. Sample i of epoch e of a split follows from (seed, split,
    e, i) alone: batch size, workers, devices and resuming change nothing about it.

    A subclass sets ``counts`` and ``train_samples``, and says what is true of samples and what
    their images look like; it saves its constructor's arguments with ``save_hyperparameters``, so
    that checkpoints name them. What it calls ``split`` stands in the figures.

    Args:
        size: height and width of the images, px.
        batch_size: images in a batch, which several devices share.
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
        return self.batch(split, epoch, batch["samples"])._replace(weight=batch["weight"])

    def _loader(self, split: str) -> DataLoader[Any]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        share = pieces(self.counts[split], self.batch_size, rank, world_size, split == "train")
        return DataLoader(
            [{"split": split, **piece._asdict()} for piece in share],  # type: ignore[arg-type]
            batch_size=None,  # they are batches already
            num_workers=self.num_workers,
            # Without one of its own, a loader draws from the global stream, which dropout needs.
            generator=generator(self.seed, "loader"),
        )


class Piece(NamedTuple):
    """A device's piece of a batch: its samples' numbers (B,), and the weight of their mean loss."""

    samples: Tensor
    weight: float


def pieces(
    count: int, batch_size: int, rank: int = 0, world_size: int = 1, trains: bool = False
) -> list[Piece]:
    """Share out samples 0 .. count-1, in order, a batch at a time: those of the device ``rank``.

    Several devices see together the batches that one sees; noise of consecutive samples stays
    together (see `randomness.for_samples`). All go through as many batches, one that is left none
    of a batch's samples through one without. Where it ``trains``, this has no loss: it takes
    another's sample, with weight 0.
    """
    found = []
    for batch in torch.split(torch.arange(count), batch_size):
        samples = batch.tensor_split(world_size)[rank]
        weight = len(samples) * world_size / max(1, len(batch))
        found.append(Piece(samples if len(samples) or not trains else batch[:1], weight))
    return found
