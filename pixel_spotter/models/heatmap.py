"""A map of where the point may be, and its expectation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.heads import SoftArgmax


class HeatmapRegressor(PointRegressor):
    """A small fully convolutional network whose last map becomes coordinates by a soft-argmax.

    The differentiable spatial to numerical transform (DSNT) of Nibali et al. 2018 (arXiv
    1801.07372). What it learns in one place holds in all others, so that it also answers where
    it was never trained. To keep that true at the border, the image is set into black once,
    wide enough that no convolution needs padding and the whole response to a point lies on the
    map, also to one in a corner.

    Args:
        image_size: side of the square image, or [height, width], px.
        channels: width of each 3x3 convolution before the last, which makes the map.
        js_weight: weight of the paper's regularizer (its equations 10 and 11), which pulls the
            map towards a Gaussian around the true position, px² per nat; 0 is without.
        sigma_px: standard deviation of that Gaussian.
    """

    any_size = True
    head: SoftArgmax

    def __init__(
        self,
        image_size: int | Sequence[int],
        channels: Sequence[int] = (8,),
        js_weight: float = 0.0,
        sigma_px: float = 1.0,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        require(min(channels, default=1) >= 1, "model.channels", "widths of at least 1", channels)
        require(js_weight >= 0, "model.js_weight", "at least 0", js_weight)
        require(sigma_px > 0, "model.sigma_px", "more than 0", sigma_px)
        self.js_weight, self.sigma_px = js_weight, sigma_px
        reach = len(channels) + 1  # px that a point's response spreads to each side
        layers: list[nn.Module] = [nn.ZeroPad2d(2 * reach)]
        for before, after in zip([1, *channels], [*channels, 1], strict=True):
            layers += [nn.Conv2d(before, after, 3), nn.ReLU()]
        self.features = nn.Sequential(*layers[:-1])
        self.head = SoftArgmax(self.size, margin=reach)
        self.to(memory_format=torch.channels_last)

    def training_loss(self, image: Tensor, truth: Columns) -> Tensor:
        """Return the mean squared error, px², plus the weighted regularizer."""
        maps, xy_px = self.encode(image), as_xy(truth, "_true")
        loss = F.mse_loss(as_xy(self.decode(maps)), xy_px)
        if self.js_weight:
            divergence = js_divergence(maps, self.head.positions, xy_px, self.sigma_px)
            loss = loss + self.js_weight * divergence.mean()
        return loss


def js_divergence(maps: Tensor, positions: Tensor, xy_px: Tensor, sigma_px: float) -> Tensor:
    """Return the Jensen-Shannon divergence of maps' softmax from Gaussians, nats: (B,).

    Logits (B, 1, h, w) at positions (h*w, 2); Gaussians around xy_px (B, 2), normalized over these.
    """
    log_p = maps.flatten(1).log_softmax(dim=1)
    squared = (positions - xy_px.unsqueeze(1)).square().sum(dim=-1)
    log_q = (-squared / (2 * sigma_px**2)).log_softmax(dim=1)
    log_m = torch.logaddexp(log_p, log_q) - torch.tensor(2.0).log()
    to_p = F.kl_div(log_m, log_p, log_target=True, reduction="none")
    to_q = F.kl_div(log_m, log_q, log_target=True, reduction="none")
    return (to_p + to_q).sum(dim=1) / 2
