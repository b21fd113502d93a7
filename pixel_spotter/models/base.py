"""The base of every model: it owns all that follows from a prediction."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pixel_spotter.coordinates import Size, as_size, to_px
from pixel_spotter.data.pixels import Batch, PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import Predictions, point_metrics

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class PointRegressor(L.LightningModule):
    """Predicts xy_px from images; trained with the mean squared error, in px².

    A model is a subclass that sets two modules in its constructor:

    * ``features``: images (B, 1, H, W) -> whatever its head takes. Runs in the Trainer's precision.
    * ``head``: features -> xy_px (B, 2). Always runs in float32: with bfloat16's eight bits of
      mantissa a coordinate near 50 is rounded by up to 0.125 px.

    Where the mean squared error is not what it should learn from, it overrides `training_loss`.
    What it estimates beside the point it names in ``extras`` and returns from `extra_estimates`.
    Whose parts have been trained on other data names these in ``trained_before``.

    Args:
        image_size: side of the square image, or [height, width], px.
        optimizer: makes the optimizer from the parameters; needed to train, not to predict.
        scheduler: makes the learning-rate scheduler, stepped once an epoch, from the optimizer.
    """

    features: nn.Module
    head: nn.Module
    extras: tuple[str, ...] = ()

    def __init__(
        self,
        image_size: int | Sequence[int],
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__()
        self.size = as_size(image_size)
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.trained_before: Sequence[PixelDataModule] = ()
        self.predictions = {"val": Predictions(), "test": Predictions()}
        self.figures: dict[str, dict[str, float]] = {}

    @classmethod
    def rebuild(cls, hparams: Mapping[str, Any]) -> Self:
        """Make the model that a checkpoint's weights will be loaded into.

        Args:
            hparams: the constructor's arguments when the checkpoint was written.
        """
        return cls(**hparams)

    @classmethod
    def class_name(cls) -> str:
        """Return the full name by which checkpoints find the class again."""
        return f"{cls.__module__}.{cls.__qualname__}"

    def forward(self, image: Tensor) -> Tensor:
        """Predict xy_px (B, 2), float32, from images (B, 1, H, W) in [0, 1].

        Raises:
            ValueError: if the images do not have the model's size.
        """
        return self.decode(self.encode(image))

    def estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict xy_px (B, 2) and what ``extras`` names (B, E), from images (B, 1, H, W)."""
        features = self.encode(image)
        return self.decode(features), self.extra_estimates(features)

    def encode(self, image: Tensor) -> Tensor:
        """Turn images (B, 1, H, W) into what the head takes, in float32.

        Raises:
            ValueError: if the images do not have the model's size.
        """
        if image.shape[1:] != (1, *self.size):
            raise ValueError(
                f"expected images (B, 1, {self.size[0]}, {self.size[1]}), got {tuple(image.shape)}"
            )
        features: Tensor = self.features(image)
        return features.float()

    def decode(self, features: Tensor) -> Tensor:
        """Turn what `encode` returned into xy_px (B, 2)."""
        with torch.autocast(features.device.type, enabled=False):
            xy_px: Tensor = self.head(features)
        return xy_px

    def extra_estimates(self, features: Tensor) -> Tensor:
        """Return the columns that ``extras`` names, from what `encode` returned: (B, E)."""
        return features.new_zeros(len(features), 0)

    def extra_figures(self, extra: Tensor, xy_pred: Tensor, xy_true: Tensor) -> dict[str, float]:
        """Return figures of this kind of model only, from extra estimates (N, E) and xy_px."""
        return {}

    def count_parameters(self) -> int:
        """Return how many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def training_loss(self, image: Tensor, xy_px: Tensor) -> Tensor:
        """Return the loss to minimize: here the mean squared error over both axes, px²."""
        return F.mse_loss(self(image), xy_px)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss of a batch."""
        image, xy_px = batch
        loss = self.training_loss(image, xy_px)
        self.log(
            "train/loss", loss, on_epoch=True, on_step=False, batch_size=len(xy_px), sync_dist=True
        )
        return loss

    def on_train_epoch_start(self) -> None:
        """Log the epoch's learning rate."""
        optimizer: Any = self.optimizers()
        self.log("lr", optimizer.param_groups[0]["lr"])

    def on_validation_epoch_start(self) -> None:
        """Forget the predictions of the epoch before."""
        self.predictions["val"].reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect a batch's predictions."""
        self._collect(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Sum up the validation positions, and log how they go while training."""
        self._sum_up("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            for name, value in self.figures["val"].items():
                shown = name in ("mean_error_px", "hit_rate")
                self.log(f"val/{name}", float(value), prog_bar=shown, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Forget the predictions of the epoch before."""
        self.predictions["test"].reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect a batch's predictions."""
        self._collect(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Sum up the test positions."""
        self._sum_up("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and the scheduler that the run was composed with."""
        if self.optimizer_factory is None:
            return None
        try:
            optimizer = self.optimizer_factory(self.parameters())
            if self.scheduler_factory is None:
                return optimizer
            return [optimizer], [self.scheduler_factory(optimizer)]
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"optim or scheduler: {error}") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down which class the checkpoint's weights belong to."""
        checkpoint["model_class"] = self.class_name()

    def _collect(self, batch: Batch, split: str) -> None:
        image, xy_px = batch
        xy_pred, extra = self.estimate(image)
        self.predictions[split].update(xy_pred, xy_px, extra)

    def _sum_up(self, split: str) -> None:
        """Keep an epoch's figures in ``figures``."""
        gathered = self.predictions[split].to(self.device).compute()
        xy_pred, xy_true, extra = (values.cpu() for values in gathered)
        if not xy_pred.isfinite().all():
            raise UserError(
                f"training diverged: predictions are no longer finite after "
                f"{self.current_epoch + 1} epochs; try a smaller optim.lr"
            )
        self.figures[split] = {
            **point_metrics(xy_pred, xy_true),
            **self.extra_figures(extra, xy_pred, xy_true),
        }


class LinearHead(nn.Module):
    """One linear layer from features (B, in_features) to xy_px (B, 2).

    Args:
        in_features: width of the features.
        size: height and width of the image, px.
        scale_output: whether the layer answers in unit coordinates, which are then scaled to px,
            or in px directly: its outputs and gradients are then tens of times larger than what
            a freshly initialized network is made for.
    """

    def __init__(self, in_features: int, size: Size, scale_output: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2)
        self.size = size
        self.scale_output = scale_output

    def forward(self, features: Tensor) -> Tensor:
        """Return xy_px (B, 2)."""
        output = self.linear(features)
        return to_px(output, self.size) if self.scale_output else output
