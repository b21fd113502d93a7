"""The blog's baseline: convolutions, then fully connected layers."""

from collections.abc import Sequence

import torch
from torch import nn

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import Size
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.heads import LinearHead


class CNNRegressor(PointRegressor):
    """3x3 convolutions, each with ReLU and 2x2 pooling, then fully connected layers.

    Args:
        image_size: side of the square image, or [height, width], px. Every convolution halves it.
        channels: width of each convolution.
        hidden: width of each fully connected layer before the head.
        dropout: probability of dropping a unit after each of them.
        pooling: ``max`` or ``mean``.
        scale_output: see `LinearHead`.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        pooling: str = "max",
        scale_output: bool = True,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        self.features, width = cnn_trunk(self.size, channels, hidden, dropout, pooling)
        self.head = LinearHead(width, self.size, scale_output)
        self.to(memory_format=torch.channels_last)


def cnn_trunk(
    size: Size, channels: Sequence[int], hidden: Sequence[int], dropout: float, pooling: str = "max"
) -> tuple[nn.Sequential, int]:
    """Return what `CNNRegressor` does before its head, and the width of the features it makes."""
    height, width = (side // 2 ** len(channels) for side in size)
    if min(height, width) < 1:
        raise ValueError(
            f"model.channels: {len(channels)} poolings need an image of at least "
            f"{2 ** len(channels)} px a side, data.image_size is {size[0]}x{size[1]}"
        )
    require(min(channels, default=0) >= 1, "model.channels", "widths of at least 1", channels)
    require(min(hidden, default=1) >= 1, "model.hidden", "widths of at least 1", hidden)
    require(0 <= dropout < 1, "model.dropout", "in [0, 1)", dropout)
    require(pooling in ("max", "mean"), "model.pooling", "max or mean", pooling)
    layers: list[nn.Module] = []
    for before, after in zip([1, *channels], channels, strict=False):
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        # The largest value's ReLU is the largest ReLU, at a quarter of the work.
        max_first = [nn.MaxPool2d(2), nn.ReLU()]
        layers += max_first if pooling == "max" else [nn.ReLU(), nn.AvgPool2d(2)]
    layers.append(nn.Flatten())
    widths = [channels[-1] * height * width, *hidden]
    for before, after in zip(widths, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers), widths[-1]
