"""The brightest pixel."""

from collections.abc import Sequence

from torch import Tensor, nn

from pixel_spotter.coordinates import Size, from_index
from pixel_spotter.models.solved import SolvedRegressor


class ArgmaxRegressor(SolvedRegressor):
    """Answers with the centre of the brightest pixel: exact on clean images, without parameters.

    Of several equally bright ones, the first in reading order.

    Args:
        image_size: side of the square image, or [height, width], px.
    """

    def __init__(self, image_size: int | Sequence[int]) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        self.features = nn.Identity()
        self.head = Argmax(self.size)


class Argmax(nn.Module):
    """Turns maps (B, 1, H, W) into the xy_px (B, 2) of their largest values.

    Args:
        size: height and width of the maps, px.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """Return xy_px (B, 2)."""
        return from_index(maps.flatten(1).argmax(dim=1), self.size).to(maps.dtype)
