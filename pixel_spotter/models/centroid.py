"""The centre of mass."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixel_spotter.coordinates import Size, all_positions
from pixel_spotter.models.solved import SolvedRegressor


class CentroidRegressor(SolvedRegressor):
    """Answers with the intensity-weighted mean of all pixel centres.

    Exact on clean images, without parameters; every bright pixel elsewhere pulls it away. A black
    image has no centroid: the answer is the image's centre.

    Args:
        image_size: side of the square image, or [height, width], px.
    """

    def __init__(self, image_size: int | Sequence[int]) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        self.features = nn.Identity()
        self.head = Centroid(self.size)


class Centroid(nn.Module):
    """Turns maps (B, 1, H, W) of weights into the xy_px (B, 2) of their centres of mass.

    Args:
        size: height and width of the maps, px.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.positions: Tensor
        self.register_buffer("positions", all_positions(size).float(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return xy_px (B, 2)."""
        weights = maps.flatten(1)
        total = weights.sum(dim=1, keepdim=True)
        centroid = weights @ self.positions / torch.where(total == 0, 1, total)
        return torch.where(total == 0, self.positions.mean(dim=0), centroid)
