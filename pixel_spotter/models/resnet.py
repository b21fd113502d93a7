"""The blog's second model: a pretrained ResNet18 with a coordinate for its last layer."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights, resnet18

from pixel_spotter.arguments import require
from pixel_spotter.errors import UserError
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.heads import LinearHead
from pixel_spotter.models.loading import read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DOWNLOAD_TIMEOUT_S = 20.0


class ResNet18Regressor(PointRegressor):
    """Torchvision's ResNet18 (He et al. 2016, arXiv 1512.03385) that answers with a coordinate.

    Args:
        image_size: side of the square image, or [height, width], px.
        weights: what to start from: the name of a torchvision weight such as ``IMAGENET1K_V1``,
            the path of a state dict in torchvision's layout, or None for random weights.
        stem: ``imagenet`` keeps the stride-2 convolution and the max-pooling that shrink an image
            to a quarter; ``small`` keeps the same filters at stride 1 and drops the pooling, as
            is usual for small images: 16 times the work.
        scale_output: see `LinearHead`.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        weights: str | None = "IMAGENET1K_V1",
        stem: str = "imagenet",
        scale_output: bool = True,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        require(stem in ("imagenet", "small"), "model.stem", "imagenet or small", stem)
        network = resnet18()
        if weights is not None:
            _load_pretrained(network, weights)
        network.conv1 = GreyInput(network.conv1)
        if stem == "small":
            network.conv1.conv.stride = (1, 1)
            network.maxpool = nn.Identity()
        self.features = network
        self.head = LinearHead(network.fc.in_features, self.size, scale_output)
        network.fc = nn.Identity()
        self.to(memory_format=torch.channels_last)

    @classmethod
    def rebuild(cls, hparams: Mapping[str, Any], trust: Sequence[str] = ()) -> Self:
        """Rebuild without looking for pretrained weights: the checkpoint's own replace them."""
        return cls(**{**hparams, "weights": None})


class GreyInput(nn.Module):
    """An RGB input convolution turned into one for a grey image in [0, 1].

    Equals the grey image in all three channels, each normalized as torchvision's ImageNet weights
    expect. The filters' sum acts on the image. What the normalization subtracts acts on a channel
    of ones: as a plain bias it would be wrong at the border, where the padding is 0.
    """

    def __init__(self, rgb: nn.Conv2d) -> None:
        super().__init__()
        like: Any = rgb
        self.conv = nn.Conv2d(
            2, like.out_channels, like.kernel_size, like.stride, like.padding, bias=False
        )
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.no_grad():
            on_image = (rgb.weight / std).sum(1)
            on_ones = -(rgb.weight * mean / std).sum(1)
            self.conv.weight.copy_(torch.stack([on_image, on_ones], dim=1))

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.conv(torch.cat([image, torch.ones_like(image)], dim=1))
        return maps


def _load_pretrained(network: ResNet, weights: str) -> None:
    if weights in ResNet18_Weights.__members__:
        state = _fetch(ResNet18_Weights[weights])
    elif Path(weights).is_file():
        state = read_weights(Path(weights))
    else:
        raise UserError(
            f"model.weights: {weights!r} is neither a file nor one of torchvision's ResNet18 "
            f"weights ({', '.join(ResNet18_Weights.__members__)}); model=resnet18_scratch trains "
            f"without"
        )
    # The classifier is replaced anyway, whatever its number of classes.
    state |= {f"fc.{name}": value for name, value in network.fc.state_dict().items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        why = shorten(str(error), 300)
        raise UserError(f"model.weights: {weights} does not fit torchvision's: {why}") from error


def _fetch(weights: ResNet18_Weights) -> dict[str, Tensor]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # whatever network, disk and unpickling can come up with
        raise UserError(
            f"pretrained weights {weights.name} are neither in the torch hub cache nor to be "
            f"downloaded ({error}); give a file with model.weights=PATH, or train without "
            f"with model.weights=null (in a grid: model=resnet18_scratch)"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
