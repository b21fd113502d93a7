"""The base of models without gradient descent."""

from typing import Any

from torch import Tensor

from pixel_spotter.data import Batch
from pixel_spotter.models.regression import PointRegressor


class SolvedRegressor(PointRegressor):
    """A model that is solved when the Trainer starts, or has nothing to learn.

    A subclass that learns overrides `solve`. The Trainer then validates, saves and tests it as
    any other, after one epoch in which nothing more happens.
    """

    def solve(self, image: Tensor, xy_px: Tensor) -> None:
        """Learn from an epoch's samples: images (N, 1, H, W) and xy_px (N, 2)."""

    def configure_optimizers(self) -> None:
        """There is nothing to optimize step by step."""

    def on_train_start(self) -> None:
        """Solve the model, unless a continued run has brought its solution along."""
        if self.current_epoch == 0:
            trainer: Any = self.trainer
            self.solve(*trainer.datamodule.training_samples(self.device))

    def on_train_epoch_start(self) -> None:
        """There is no learning rate to log."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """There is nothing left to learn."""

    def on_train_epoch_end(self) -> None:
        """Stop after one epoch."""
        self.trainer.should_stop = True
