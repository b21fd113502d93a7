"""Detection: the point as a box, in the manner of YOLO."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, complete_box_iou_loss, sigmoid_focal_loss

from pixel_spotter.arguments import require
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.heads import BestBox


class YOLORegressor(PointRegressor):
    """An anchor-free detector: every cell says whether it holds a point, where, and how large.

    Convolutions of stride 2 lead to a grid of cells; the answer is the box of the cell with the
    largest objectness. Redmon et al. 2016 (arXiv 1506.02640), without anchors and with one box a
    cell, as YOLOX (arXiv 2107.08430) has it.

    The loss is the focal loss of the objectness, the complete IoU loss of the box, and the squared
    error of its centre, in cells. The true box is a single pixel: two such boxes overlap only less
    than a pixel apart, and half a pixel off on both axes the IoU is 1/7. It forms the size; it is
    the squared error that leads the centre.

    Args:
        image_size: side of the square image, or [height, width], px.
        channels: width of each convolution of stride 2.
        box_px: side of the true box.
    """

    any_size = True
    head: BestBox

    def __init__(
        self,
        image_size: int | Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        box_px: float = 1.0,
    ) -> None:
        super().__init__(image_size)
        self.save_hyperparameters(logger=False)
        require(min(channels, default=0) >= 1, "model.channels", "widths of at least 1", channels)
        require(box_px > 0, "model.box_px", "more than 0", box_px)
        self.box_px = box_px
        layers: list[nn.Module] = []
        for before, after in zip([1, *channels], channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        layers.append(nn.Conv2d(channels[-1], 5, 1))
        self.features = nn.Sequential(*layers)
        self.head = BestBox(self.size, 2 ** len(channels), box_px)
        self.to(memory_format=torch.channels_last)

    def training_loss(self, image: Tensor, truth: Columns) -> Tensor:
        """Return the loss of the objectness and of the box in the cell that holds the point."""
        cells, xy_px = self.encode(image), as_xy(truth, "_true")
        objectness, boxes = self.head.boxes(cells)
        holds = self.head.cell_of(xy_px)
        found = boxes[torch.arange(len(boxes)), holds]
        box = torch.cat([xy_px, torch.full_like(xy_px, self.box_px)], dim=1)
        focal = sigmoid_focal_loss(objectness, F.one_hot(holds, objectness.shape[1]).float())
        pair = (box_convert(boxes, "cxcywh", "xyxy") for boxes in (found, box))
        ciou = complete_box_iou_loss(*pair, reduction="mean")
        centre = F.mse_loss(found[:, :2] / self.head.stride, xy_px / self.head.stride)
        loss: Tensor = focal.sum(dim=1).mean() + ciou + centre
        return loss
