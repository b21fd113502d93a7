"""The base of every model: it owns all that follows from an estimate."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns, Size, as_size, as_xy
from pixel_spotter.data.base import Batch, PointData
from pixel_spotter.data.values import white_of
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import figures_of
from pixel_spotter.models.collected import Predictions
from pixel_spotter.models.doubts import familiar_looks, score, with_flag

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class PointRegressor(L.LightningModule):
    """Estimates columns from images, ``x`` and ``y`` among them; learns by the mean squared error.

    A model is a subclass that sets two modules in its constructor:

    * ``features``: images (B, 1, H, W) -> whatever its head takes. Runs in the Trainer's precision.
    * ``head``: features -> columns, (B,) each. Always runs in float32: with bfloat16's eight bits
      of mantissa a coordinate near 50 is rounded by up to 0.125 px.

    It overrides `training_loss`, where it learns by another, and saves its constructor's arguments
    with ``save_hyperparameters``, so that checkpoints name them.

    Args:
        image_size: side of the square image, or [height, width], px.
        optimizer: makes the optimizer from the parameters; without one, ``optimizer_factory`` and
            ``scheduler_factory`` are to be set before training, as the command does.
        scheduler: makes the learning-rate scheduler, stepped once an epoch, from the optimizer.
    """

    any_size: bool = False
    """Whether it takes images of other sizes than that which it was trained on."""
    takes_gaps: bool = False
    """Whether pixels without a value, nan, are nothing that disturbs it."""
    learns_in_bfloat16: bool = False
    """Whether it was shown to become as exact where ``trainer.precision=auto`` takes bfloat16."""
    features: nn.Module
    head: nn.Module

    def __init__(
        self,
        image_size: int | Sequence[int],
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__()
        self.size = as_size(image_size)
        self.optimizer_factory, self.scheduler_factory = optimizer, scheduler
        self.name = type(self).__module__.rpartition(".")[2]
        self.in_photons = False
        self.learned_from: PointData | None = None
        self.trained_before: list[PointData] = []
        self.predictions = {"val": Predictions(), "test": Predictions()}
        self.columns: dict[str, Columns] = {}
        self.figures: dict[str, dict[str, float]] = {}
        self._familiar: Tensor | None = None

    @classmethod
    def rebuild(cls, hparams: Mapping[str, Any], trust: Sequence[str] = ()) -> Self:
        """Make a checkpoint's model, but its weights, from our parts and those of ``trust``."""
        return cls(**hparams)

    def forward(self, image: Tensor) -> Tensor:
        """Estimate xy_px (B, 2), float32, from images (B, 1, H, W) in [0, 1]."""
        return as_xy(self.estimate(image))

    def estimate(self, image: Tensor) -> Columns:
        """Estimate ``x``, ``y`` and what else the model knows, (B,) each, from images as above."""
        return self.decode(self.encode(image))

    def search(self, size: Size, margin_px: float = 0) -> None:
        """Take images of this size (height, width), px, from now on, or refuse it with a UserError.

        No point lies closer to their edge than ``margin_px``: for models that look for it.
        """
        if size != self.size and not self.any_size:
            raise UserError(
                f"data.image_size: the model takes images of {self.size[0]}x{self.size[1]} px, not "
                f"of {size[0]}x{size[1]} px"
            )
        self.size = size

    def encode(self, image: Tensor) -> Tensor:
        """Turn images (B, 1, H, W), of the model's size or any, into what the head takes."""
        height, width = self.size
        sized = (self.any_size and image.ndim == 4) or image.shape[2:] == self.size
        if image.shape[1:2] != (1,) or not sized:
            raise ValueError(f"expected images (B, 1, {height}, {width}), got {tuple(image.shape)}")
        features: Tensor = self.features(image)
        return features.float()

    def decode(self, features: Tensor) -> Columns:
        """Turn what `encode` returned into columns, (B,) each."""
        with torch.autocast(features.device.type, enabled=False):
            columns: Columns = self.head(features)
        return columns

    @torch.inference_mode()
    def predict(self, images: np.ndarray, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Estimate ``x``, ``y``, px, and what else it knows, (N,) each, from images in memory.

        Images, ``batch_size`` at a time, are (N, H, W) or (H, W) of the model's size, if it does
        not take any; in photons if the model was trained on such; if not, whole numbers of up to 16
        bits are divided by the largest of their type, others are taken as they are: black is 0,
        white 1. Added to what it knows are ``score``, how many standard deviations a spot stands
        out of the noise at the answer, see `doubts.score`, and ``flag``, an index of
        `coordinates.FLAGS`; where that is ``nothing found``, the score is 0 and the others nan.

        Raises:
            ValueError: if images are of another size, or whole numbers that do not say what is
                white.
        """
        images = np.asarray(images)
        if images.ndim == 2:
            images = images[None]
        if images.ndim != 3 or (images.shape[1:] != self.size and not self.any_size):
            height, width = self.size
            raise ValueError(f"expected images (N, {height}, {width}), got {images.shape}")
        white: float | None = 1.0
        if np.issubdtype(images.dtype, np.integer) and not self.in_photons:
            white = white_of(images.dtype)
        if white is None:
            raise ValueError(f"{images.dtype} does not say what is white: divide the images by it")
        self.eval()
        parts = []
        for part in np.split(images, range(batch_size, len(images), batch_size)):
            image = torch.from_numpy(part.astype(np.float32) / np.float32(white))[:, None]
            image = image.to(self.device)
            columns = self.estimate(image)
            if "flag" not in columns:
                columns = with_flag(columns, image, self._familiar_looks())
            flag = columns.pop("flag")
            parts.append({**columns, "score": score(columns, image), "flag": flag})
        return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}

    def _familiar_looks(self) -> Tensor | None:
        """Return the looks of what it was trained on, if that is known; they are kept."""
        if self._familiar is None and self.learned_from is not None:
            self._familiar = familiar_looks(self.training_data(self.learned_from))
        return self._familiar

    def count_parameters(self) -> int:
        """Return how many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def training_data(self, data: PointData) -> list[PointData]:
        """Return all data that the model has been trained on once it has been trained on this."""
        return [*self.trained_before, data]

    def training_loss(self, image: Tensor, truth: Columns) -> Tensor:
        """Return the loss to minimize: here the mean squared error over both axes, px²."""
        return F.mse_loss(self(image), as_xy(truth, "_true"))

    def setup(self, stage: str) -> None:
        """Refuse images that the model cannot take; remember those that it learns from."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit":
            self.learned_from, self._familiar = data, None
        if data.has_gaps and not self.takes_gaps:
            raise UserError(
                f"{self.name} takes no images with pixels without a value, which "
                "data.cut_probability makes: model=spotter and estimators do"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        loss = self.training_loss(batch.image, batch.truth)
        count: Any = float(len(batch.samples) if batch.weight else 0)  # no int: means round these
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=count, sync_dist=True)
        return loss * batch.weight

    def on_train_epoch_start(self) -> None:
        optimizer: Any = self.optimizers()
        self.log("lr", optimizer.param_groups[0]["lr"], sync_dist=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._collect(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self._sum_up("val")
        if self.trainer.state.fn == TrainerFn.FITTING:
            for name, value in self.figures["val"].items():
                shown = name in ("mean_error_px", "hit_rate")
                self.log(f"val/{name}", float(value), prog_bar=shown, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._collect(batch, "test")

    def on_test_epoch_end(self) -> None:
        self._sum_up("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.optimizer_factory is None:
            raise UserError("there is nothing to train with: set the model's optimizer_factory")
        try:
            optimizer = self.optimizer_factory(self.parameters())
            made = [self.scheduler_factory(optimizer)] if self.scheduler_factory else []
            return [optimizer], made
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"optim or scheduler: {error}") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down the classes the checkpoint is of, how, on what and where it was trained."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["model_class"] = class_name(type(self))
        checkpoint["model_name"] = self.name
        checkpoint["data_class"] = class_name(type(data))
        checkpoint["precision"] = self.trainer.precision
        checkpoint["trained_before"] = [describe(before) for before in self.trained_before]
        checkpoint["where_it_ran"] = runs.where_it_ran(self.device)

    def _collect(self, batch: Batch, split: str) -> None:
        columns = self.estimate(batch.image)
        self.predictions[split].update({**columns, **batch.truth}, batch.samples)

    def _sum_up(self, split: str) -> None:
        """Keep what an epoch's samples have shown: their ``columns``, and its ``figures``."""
        self.columns[split] = columns = self.predictions[split].to(self.device).columns()
        self.predictions[split].reset()
        answered = as_xy(columns).isfinite().all(dim=1)
        learned = self.trainer.state.fn == TrainerFn.FITTING and self.count_parameters() > 0
        if "flag" in columns and not learned and not answered.any():
            raise UserError("nothing was found in any of the images")
        if not answered.any() or ("flag" not in columns and not answered.all()):
            raise UserError(
                f"training diverged: predictions are no longer finite after "
                f"{self.current_epoch + 1} epochs; try a smaller optim.lr"
            )
        self.figures[split] = figures_of(columns)


def class_name(cls: type) -> str:
    """Return the full name by which checkpoints find a class again."""
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(data: PointData) -> dict[str, Any]:
    """Return what a checkpoint says of data: their class, and their constructor's arguments."""
    return {"data_class": class_name(type(data)), "hyper_parameters": dict(data.hparams)}
