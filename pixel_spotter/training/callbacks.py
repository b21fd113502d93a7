"""What the Trainer does beside training: seeding, checkpoints, logs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
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


class StopEarly(EarlyStopping):
    """Stops a run without progress, and a continued one that had stopped already."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further if patience had run out before."""
        super().on_train_start(trainer, pl_module)
        trainer.should_stop = self.wait_count >= self.patience


class KeptCheckpoint(ModelCheckpoint):
    """One checkpoint file, replaced at the end of an epoch.

    Args:
        path: the file.
        monitor: the logged value whose smallest so far the file belongs to; without one, it is
            replaced every epoch.
    """

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
        """Go on from the best so far, wherever the run folder has been moved to meanwhile."""
        score = state_dict["best_model_score"]
        moved = {
            "dirpath": self.dirpath,
            "best_model_path": self.path,
            "kth_best_model_path": self.path,
            "best_k_models": {} if score is None else {self.path: score},
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
