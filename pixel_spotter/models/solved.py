"""The base of models without gradient descent."""

from pixel_spotter.data.base import Batch, PointData
from pixel_spotter.models.base import PointRegressor


class SolvedRegressor(PointRegressor):
    """A model that is solved when the Trainer starts, or has nothing to learn.

    A subclass that learns overrides `solve`. The Trainer then validates, saves and tests it as
    any other, after one epoch in which nothing more happens.
    """

    def solve(self, data: PointData) -> None:
        """Learn from the data's training samples: nothing, unless a model overrides it."""

    def configure_optimizers(self) -> None:
        """There is nothing to optimize step by step."""

    def on_train_start(self) -> None:
        if self.current_epoch == 0:  # a continued run has brought its solution along
            self.solve(self.trainer.datamodule)  # type: ignore[attr-defined]
        self.trainer.should_stop = self.current_epoch > 0

    def on_train_epoch_start(self) -> None:
        """There is no learning rate to log."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """There is nothing left to learn."""

    def on_train_epoch_end(self) -> None:
        self.trainer.should_stop = True
