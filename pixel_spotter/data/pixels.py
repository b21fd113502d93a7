"""Positions in, batches of rendered images out."""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from pixel_spotter.coordinates import as_size
from pixel_spotter.data.splits import Split, seen_fraction, split_positions
from pixel_spotter.randomness import generator
from pixel_spotter.simulation.pixels import render_pixels

Batch = tuple[Tensor, Tensor]
"""Images (B, 1, H, W) and their xy_px (B, 2), both float32."""


class PixelDataModule(L.LightningDataModule):
    """White pixels in black images, rendered a batch at a time on the device that trains.

    Only positions are stored. Sample i of epoch e follows from (seed, split, e, i) alone: batch
    size, workers, devices and resuming change nothing about it.

    Args:
        image_size: side of the square image, or [height, width], px.
        split: ``uniform``, ``quadrant``, ``border`` or ``iid``; see `split_positions`.
        train_samples: samples to train on. As many of the training positions, if there are more
            of them; all of them repeatedly, if there are fewer.
        epoch_samples: samples drawn in an epoch, every position once before any comes again;
            None draws ``train_samples``.
        val_fraction: share of all positions used for validation.
        test_fraction: share of all positions used for testing.
        batch_size: images in a batch, on each device.
        num_workers: processes that draw batches of positions; 0 is fastest, as there is nothing
            to read.
        seed: what the split and the order of samples follow from.

    Raises:
        ValueError: if an argument is out of its range, or a part of the split is left empty.
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
        super().__init__()
        for name, value, least in (
            ("train_samples", train_samples, 1),
            ("epoch_samples", 1 if epoch_samples is None else epoch_samples, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if type(value) is not int or value < least:
                raise ValueError(
                    f"data.{name} must be a whole number of at least {least}, got {value!r}"
                )
        self.save_hyperparameters(logger=False)
        self.size = as_size(image_size)
        self.train_samples = train_samples
        self.epoch_samples = train_samples if epoch_samples is None else epoch_samples
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        shared_out = split_positions(
            split, self.size, val_fraction, test_fraction, train_samples, seed
        )
        self.positions: Split = shared_out._replace(train=shared_out.train[:train_samples])

    def seen_in_training(self, trained_on: Sequence["PixelDataModule"]) -> float:
        """Return which fraction of the test positions are training positions of such data."""
        seen = torch.cat([data.positions.train for data in trained_on])
        return seen_fraction(self.positions.test, seen, self.size[1])

    def training_samples(self, device: torch.device) -> Batch:
        """Return all samples to train on, on a device: (N, 1, H, W), (N, 2)."""
        draw = ShuffledBatches(
            len(self.positions.train), self.train_samples, self.batch_size, self.seed
        ).draw()
        return self.on_after_batch_transfer((self.positions.train[draw].to(device),), 0)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the loader of an epoch's shuffled training positions."""
        shuffled = ShuffledBatches(
            len(self.positions.train), self.epoch_samples, self.batch_size, self.seed, *self._rank()
        )
        if self.trainer:
            # A continued run fetches its first batch before the Trainer names the epoch (and
            # before current_epoch is right).
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            shuffled.set_epoch(progress.processed)
        return self._loader(self.positions.train, shuffled)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the loader of the validation positions, each once."""
        return self._loader(self.positions.val, self._in_order(self.positions.val))

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the loader of the test positions, each once."""
        return self._loader(self.positions.test, self._in_order(self.positions.test))

    def on_after_batch_transfer(self, batch: tuple[Tensor], dataloader_idx: int) -> Batch:
        """Render the batch's positions where they have arrived."""
        (xy,) = batch
        return render_pixels(xy, self.size), xy.float()

    def _loader(
        self, positions: Tensor, batches: Sampler[Tensor]
    ) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(
            TensorDataset(positions),
            sampler=batches,
            batch_size=None,  # the sampler's whole batch of indices picks its rows in one operation
            num_workers=self.num_workers,
            # Without one of its own, a loader draws from the global stream, which dropout needs.
            generator=generator(self.seed, "loader"),
        )

    def _in_order(self, positions: Tensor) -> "OrderedBatches":
        return OrderedBatches(len(positions), self.batch_size, *self._rank())

    def _rank(self) -> tuple[int, int]:
        """Which of how many devices this process feeds."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


class OrderedBatches(Sampler[Tensor]):
    """Indices 0 .. count-1 in order, a batch at a time, every ``world_size``-th for each rank."""

    def __init__(self, count: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = torch.arange(count)[rank::world_size]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Tensor]:
        if len(self.indices):
            yield from torch.split(self.indices, self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)


class ShuffledBatches(Sampler[Tensor]):
    """An epoch's draw of ``samples`` out of ``count`` indices, a batch at a time.

    Every index comes once before any comes again. The draw follows from (seed, epoch); devices
    take every ``world_size``-th sample of it, the same number each.
    """

    def __init__(
        self,
        count: int,
        samples: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.count = count
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws: the Trainer calls this."""
        self.epoch = epoch

    def draw(self) -> Tensor:
        """Return the epoch's indices over all devices, in order: (samples,), int64."""
        rng = generator(self.seed, "train", self.epoch)
        rounds = -(-self.samples // self.count)
        shuffles = [torch.randperm(self.count, generator=rng) for _ in range(rounds)]
        return torch.cat(shuffles)[: self.samples]

    def __iter__(self) -> Iterator[Tensor]:
        mine = self.draw()[self.rank :: self.world_size][: self.samples // self.world_size]
        if len(mine):
            yield from torch.split(mine, self.batch_size)

    def __len__(self) -> int:
        return -(-(self.samples // self.world_size) // self.batch_size)
