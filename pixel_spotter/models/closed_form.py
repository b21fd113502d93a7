"""An estimator as a model, so that every study can have it."""

from collections.abc import Sequence

from torch import Tensor, nn

from pixel_spotter import estimators
from pixel_spotter.coordinates import Columns
from pixel_spotter.models.solved import SolvedRegressor


class ClosedForm(SolvedRegressor):
    """Answers with an estimator of `pixel_spotter.estimators`: there is nothing to train.

    Args:
        image_size: side of the square image, or [height, width], px.
        estimator: the function's name.
    """

    def __init__(self, image_size: int | Sequence[int], estimator: str) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        if estimator not in estimators.__all__:
            raise ValueError(
                f"model.estimator must be one of {', '.join(estimators.__all__)}, got {estimator!r}"
            )
        self.estimator = getattr(estimators, estimator)
        self.features = nn.Identity()

    def decode(self, features: Tensor) -> Columns:
        """Return what the estimator makes of images (B, 1, H, W)."""
        columns: Columns = self.estimator(features[:, 0])
        return columns
