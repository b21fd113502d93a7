"""Convolutions that can see where they are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import Size, all_positions, to_unit
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.heads import PoolHead

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "none": nn.Identity}


class CoordConvRegressor(PointRegressor):
    """The regression network of Liu et al. 2018 (arXiv 1807.03247).

    The image and two channels with every pixel's coordinates; 1x1 convolutions, then 3x3 ones to
    two maps, whose maxima are the coordinates.

    Args:
        image_size: side of the square image, or [height, width], px.
        pointwise: width of each 1x1 convolution.
        channels: width of each 3x3 convolution before the last, which makes the two maps.
        coordinates: whether the network sees the coordinate channels; else they are zero, so
            that the number of parameters stays the same.
        activation: ``relu``, ``gelu`` or ``none``, after each convolution but the last.
        pooling: ``max`` (the paper's) or ``mean`` over each map.
        init: ``glorot``, which fails with many seeds; or ``pixel``, which then turns and scales
            weights so that a map's maximum is nearly always the white pixel from the start.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        pointwise: Sequence[int] = (8, 8, 8),
        channels: Sequence[int] = (8,),
        coordinates: bool = True,
        activation: str = "relu",
        pooling: str = "max",
        init: str = "pixel",
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        for name, widths in (("pointwise", pointwise), ("channels", channels)):
            require(min(widths, default=1) >= 1, f"model.{name}", "widths of at least 1", widths)
        require(activation in ACTIVATIONS, "model.activation", ", ".join(ACTIVATIONS), activation)
        require(pooling in ("max", "mean"), "model.pooling", "max or mean", pooling)
        require(init in ("pixel", "glorot"), "model.init", "pixel or glorot", init)
        layers: list[nn.Module] = [AddCoordinates(self.size, coordinates)]
        widths = [3, *pointwise, *channels, 2]
        kernels = [1] * len(pointwise) + [3] * (len(channels) + 1)
        for before, after, kernel in zip(widths, widths[1:], kernels, strict=False):
            layers += [nn.Conv2d(before, after, kernel, padding="same"), ACTIVATIONS[activation]()]
        *inner, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
        self.features = nn.Sequential(*layers[:-2])
        self.head = PoolHead(last, self.size, pooling)
        for layer in (*inner, last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if init == "pixel":
            self._let_the_pixel_win(inner[0], last)
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def _let_the_pixel_win(self, first: nn.Conv2d, last: nn.Conv2d) -> None:
        """Start with maps whose maximum is, nearly always, the white pixel.

        A gradient reaches a map's maximum only. Where that is an edge, because of the coordinates,
        nothing is ever learned about the pixel, and the image's centre becomes the answer.
        """
        first.weight[:, 0] *= 10  # the image's: so much larger than the coordinates'
        height, width = self.size
        image = torch.zeros(2, 1, height, width)
        image[1, 0, height // 2, width // 2] = 1
        black, pixel = last(self.features(image)).sum(dim=(-1, -2))
        last.weight[pixel < black] *= -1
        nn.init.constant_(last.bias, -1)  # type: ignore[arg-type]  # the lower edge


class AddCoordinates(nn.Module):
    """Appends two channels to images (B, C, H, W): x and y in unit coordinates, or zeros."""

    def __init__(self, size: Size, visible: bool = True) -> None:
        super().__init__()
        unit = to_unit(all_positions(size).float(), size).T.reshape(1, 2, *size)
        self.unit = nn.Buffer(unit if visible else unit * 0, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, self.unit.to(image.dtype).expand(len(image), -1, -1, -1)], dim=1)
