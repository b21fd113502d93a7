"""What the Trainer does beside training: seeding, time, stopping, figures by epoch, checkpoints."""

import io
import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pixel_spotter import runs
from pixel_spotter.files import atomic_write, read_tensors
from pixel_spotter.randomness import derive_seed

log = logging.getLogger("pixel_spotter.epochs")


class SeedEachEpoch(Callback):
    """Restarts the random stream with every epoch: dropout follows from (seed, epoch) alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seed = derive_seed(self.seed, "epoch", trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(seed)


class StopEarly(EarlyStopping):
    """Stops a run without progress, and a continued one that had stopped already."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # Not the count: with trainer.min_epochs there may have been progress since.
        trainer.should_stop = self.stopped_epoch > 0


class TimeLimit(Timer):
    """Measures the time of training, over all commands that continued it, and limits this one's.

    The limit is looked at after each epoch: what continues has lost nothing.
    """

    def __init__(self, max_time: timedelta | None = None) -> None:
        super().__init__(max_time, interval="epoch")

    @property
    def ran_out(self) -> bool:
        """Tell whether the time was up."""
        left = self.time_remaining()
        return left is not None and left <= 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self._duration is not None:
            self._duration += self._offset  # the time of earlier commands


class Stopwatch(Callback):
    """Measures how fast a device answers in a test, from the second batch on if there is one."""

    def __init__(self) -> None:
        self.laps: list[tuple[int, float]] = []

    @property
    def images_per_second(self) -> float:
        """Return how many images were answered in a second, over all batches."""
        laps = self.laps[1:] or self.laps
        return sum(images for images, _ in laps) / sum(seconds for _, seconds in laps)

    def on_test_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.start_s = _now(trainer)

    def on_test_batch_end(
        self, trainer: L.Trainer, model: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self.laps.append((len(batch.samples), _now(trainer) - self.start_s))


def _now(trainer: L.Trainer) -> float:
    """Return the time, s, when a device has done all that it was told."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()


class EpochTable(Callback):
    """Keeps what is logged of each epoch in a run's ``epochs.csv``, and says it in the log."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = runs.read_epochs(self.run_dir)
        seen = before["epoch"] < trainer.current_epoch  # by a continued run's checkpoint
        self.rows = before[seen].to_dict("records")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start_s = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model: Any = pl_module
        # What was logged keeps its last value where an epoch has none: a figure must not.
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k[:4] != "val/"}
        figures |= {f"val/{name}": value for name, value in model.figures["val"].items()}
        seconds = round(time.monotonic() - self.start_s, 3)
        self.rows.append({"epoch": trainer.current_epoch, **figures, "seconds": seconds})
        if trainer.is_global_zero:
            runs.write_epochs(self.run_dir, self.rows)
        shown = ("train/loss", "val/mean_error_px", "val/hit_rate", "lr")
        words = ", ".join(f"{name} {figures[name]:.5g}" for name in shown if name in figures)
        log.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, words)


class EpochLogger(TensorBoardLogger):
    """Writes TensorBoard files straight into a run folder, with epochs on the horizontal axis."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = values.pop("epoch", step)
        super().log_metrics(values, None if epoch is None else int(epoch))

    def save(self) -> None:
        self.experiment.flush()  # and nothing more: the settings are in .hydra/ already


class AtomicCheckpointIO(TorchCheckpointIO):
    """Makes the Trainer write checkpoints atomically and read them as plain data."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_tensors(Path(path))


class KeptCheckpoint(ModelCheckpoint):
    """One file, replaced after every epoch, or after those with the smallest ``monitor`` so far."""

    def __init__(self, path: Path, monitor: str | None = None) -> None:
        super().__init__(
            dirpath=path.parent,
            filename=path.stem,
            monitor=monitor,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.path = str(path.absolute())
        # A model that is solved makes no step; step 0 counts as saved already otherwise.
        self._last_global_step_saved = -1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        score = state_dict["best_model_score"]
        # The run folder may have been moved meanwhile.
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": self.path,
            "kth_best_model_path": self.path,
            "best_k_models": {} if score is None else {self.path: score},
        }
        super().load_state_dict({**state_dict, **moved})
