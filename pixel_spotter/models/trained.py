"""A model that was trained before, as one without anything to learn: so studies can have it."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn

from pixel_spotter.coordinates import Columns
from pixel_spotter.data.base import PointData
from pixel_spotter.models.loading import describe_model, load_described
from pixel_spotter.models.solved import SolvedRegressor


class TrainedBefore(SolvedRegressor):
    """What answers with models of checkpoints: it counts as trained on what these were."""

    trained_on: list[PointData]

    @classmethod
    def rebuild(cls, hparams: Mapping[str, Any], trust: Sequence[str] = ()) -> Self:
        return cls(**{**hparams, "trust": trust})

    def training_data(self, data: PointData) -> list[PointData]:
        return self.trained_on


class TrainedRegressor(TrainedBefore):
    """Answers with the model of a checkpoint.

    Args:
        image_size: side of the square image, or [height, width], px.
        checkpoint: a file; or what such a file says of its model, without its weights.
        margin_px: no point lies closer to the image's edge, px, for models that look for it.
        trust: modules of the user's own that the model may come from.

    Raises:
        UserError: if the file is none, or its model is for images of another size.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        checkpoint: str | Mapping[str, Any],
        margin_px: float = 0,
        trust: Sequence[str] = (),
    ) -> None:
        super().__init__(image_size)
        model, self.trained_on = load_described(checkpoint, trust)
        model.search(self.size, margin_px)
        self.save_hyperparameters(
            {
                "image_size": image_size,
                "checkpoint": describe_model(model, self.trained_on),
                "margin_px": margin_px,
            },
            logger=False,
        )
        self.any_size, self.takes_gaps = model.any_size, model.takes_gaps
        self.model = model
        self.features = nn.ModuleDict({"model": model})

    def estimate(self, image: Tensor) -> Columns:
        """Return what the model estimates."""
        return self.model.estimate(image)
