"""What the Trainer does beside training: seeding, checkpoints, logs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from pixel_spotter.randomness import derive_seed


class SeedEachEpoch(Callback):
    """Restarts the global random stream with every epoch.

    An epoch's dropout then follows from (seed, epoch), also in a run that was interrupted.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seed the epoch."""
        seed = derive_seed(self.seed, "epoch", trainer.current_epoch, trainer.global_rank)
        torch.manual_seed(seed)


class BestAndLast(ModelCheckpoint):
    """Keeps two checkpoints, replaced every epoch: ``best.ckpt`` and ``last.ckpt``.

    Args:
        best: path of the checkpoint with the smallest monitored value.
        last: path, in the same folder, of the checkpoint to continue from.
        monitor: name of the logged value that tells which is best.
    """

    def __init__(self, best: Path, last: Path, monitor: str) -> None:
        super().__init__(
            dirpath=best.parent,
            filename=best.stem,
            monitor=monitor,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.CHECKPOINT_NAME_LAST = last.stem
        self.best = str(best.absolute())
        self.last = str(last.absolute())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best so far, wherever the run folder has been moved to meanwhile."""
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": self.best,
            "kth_best_model_path": self.best,
            "best_k_models": {self.best: state_dict["best_model_score"]},
            "last_model_path": self.last,
        }
        super().load_state_dict({**state_dict, **moved})


class EpochLogger(TensorBoardLogger):
    """Writes TensorBoard files straight into a run folder, with epochs on the horizontal axis."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write what the Trainer logs, at its epoch instead of its step."""
        values = dict(metrics)
        epoch = values.pop("epoch", step)
        super().log_metrics(values, None if epoch is None else int(epoch))

    def save(self) -> None:
        """Write what is pending; the settings are in ``.hydra/`` already."""
        self.experiment.flush()
