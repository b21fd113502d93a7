"""Each axis as a classification over bins finer than pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_spotter.arguments import require, require_whole
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.cnn import cnn_trunk
from pixel_spotter.models.heads import AxisBins

_MARGIN_SIGMAS = 3


class SimCCRegressor(PointRegressor):
    """Classifies x and y apart from each other; the answer is what the bins' softmax expects.

    Li et al. 2022 (arXiv 2107.03332), on the CNN's features. The labels are Gaussians around the
    true coordinate. The bins go on beyond the image's edges, so that no label is cut off and the
    expectation of each is the true coordinate, also at the border.

    Args:
        image_size: side of the square image, or [height, width], px.
        channels, hidden, dropout: see `CNNRegressor`.
        bins_per_px: bins per pixel.
        sigma_px: standard deviation of the labels.
    """

    head: AxisBins

    def __init__(
        self,
        image_size: int | Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        bins_per_px: int = 2,
        sigma_px: float = 1.0,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        require_whole("model.bins_per_px", bins_per_px, 1)
        require(sigma_px > 0, "model.sigma_px", "more than 0", sigma_px)
        self.sigma_px = sigma_px
        self.features, width = cnn_trunk(self.size, channels, hidden, dropout)
        self.head = AxisBins(width, self.size, bins_per_px, _MARGIN_SIGMAS * sigma_px)
        self.to(memory_format=torch.channels_last)

    def training_loss(self, image: Tensor, truth: Columns) -> Tensor:
        """Return the cross-entropy from the smoothed labels, summed over both axes, nats."""
        features = self.encode(image)
        with torch.autocast(image.device.type, enabled=False):
            axes = self.head.logits(features)
        loss, centres_px = features.new_zeros(()), (self.head.x_px, self.head.y_px)
        true_px = as_xy(truth, "_true").unbind(1)
        for logits, centres, true in zip(axes, centres_px, true_px, strict=True):
            distance = (centres - true.unsqueeze(1)) / self.sigma_px
            loss = loss + F.cross_entropy(logits, (-distance.square() / 2).softmax(dim=1))
        return loss
