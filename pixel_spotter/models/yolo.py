"""Detection: the point as a box, in the manner of YOLO."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou, complete_box_iou_loss, sigmoid_focal_loss

from pixel_spotter.coordinates import Size, from_index
from pixel_spotter.models.base import OptimizerFactory, PointRegressor, SchedulerFactory


class YOLORegressor(PointRegressor):
    """An anchor-free detector: every cell says whether it holds a point, where, and how large.

    Convolutions of stride 2 lead to a grid of cells; the answer is the box of the cell with the
    largest objectness. Redmon et al. 2016 (arXiv 1506.02640), without anchors and with one box a
    cell, as YOLOX (arXiv 2107.08430) has it.

    The loss is the focal loss of the objectness, the complete IoU loss of the box, and the squared
    error of its centre. The true box is a single pixel: two such boxes overlap only where they are
    less than a pixel apart, so that their IoU alone says nothing about where to go, and little
    about hits: a box half a pixel off on both axes has an IoU of 1/7. The squared error leads the
    centre, and is measured in cells, as large as the other two terms; the IoU loss forms the size.

    Args:
        image_size: side of the square image, or [height, width], px.
        channels: width of each convolution of stride 2.
        box_px: side of the true box.
        optimizer: see `PointRegressor`.
        scheduler: see `PointRegressor`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    head: "BestBox"
    extras = ("box_width_px", "box_height_px", "objectness")

    def __init__(
        self,
        image_size: int | Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        box_px: float = 1.0,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(image_size, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        if min(channels, default=0) < 1 or box_px <= 0:
            raise ValueError(
                "model.channels must be widths of at least 1, model.box_px more than 0"
            )
        self.box_px = box_px
        layers: list[nn.Module] = []
        for before, after in zip([1, *channels], channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        layers.append(nn.Conv2d(channels[-1], 5, 1))
        self.features = nn.Sequential(*layers)
        self.head = BestBox(self.size, 2 ** len(channels), box_px)
        self.to(memory_format=torch.channels_last)

    def training_loss(self, image: Tensor, xy_px: Tensor) -> Tensor:
        """Return the loss of the objectness and of the box in the cell that holds the point."""
        cells = self.encode(image)
        objectness, boxes = self.head.decode(cells)
        holds = self.head.cell_of(xy_px)
        found = boxes[torch.arange(len(boxes)), holds]
        truth = torch.cat([xy_px, torch.full_like(xy_px, self.box_px)], dim=1)
        focal = sigmoid_focal_loss(objectness, F.one_hot(holds, objectness.shape[1]).float())
        ciou = complete_box_iou_loss(corners(found), corners(truth), reduction="mean")
        centre = F.mse_loss(found[:, :2] / self.head.stride, xy_px / self.head.stride)
        loss: Tensor = focal.sum(dim=1).mean() + ciou + centre
        return loss

    def extra_estimates(self, features: Tensor) -> Tensor:
        """Return the best box's width and height, px, and its objectness, 0 to 1: (B, 3)."""
        objectness, box = self.head.best(features)
        return torch.cat([box[:, 2:], objectness.sigmoid().unsqueeze(1)], dim=1)

    def extra_figures(self, extra: Tensor, xy_pred: Tensor, xy_true: Tensor) -> dict[str, float]:
        """Return ``box_iou``, the mean IoU of predicted and true boxes."""
        boxes = torch.cat([xy_pred, extra[:, :2]], dim=1)
        truth = torch.cat([xy_true, torch.full_like(xy_true, self.box_px)], dim=1)
        return {"box_iou": box_iou(corners(boxes), corners(truth)).diagonal().mean().item()}


class BestBox(nn.Module):
    """Reads cells (B, 5, h, w) as boxes; answers with the centre of the best one, xy_px (B, 2).

    A cell's five numbers are its objectness (a logit), the centre's offset in x and y from the
    cell's own centre, in cells, and the logarithm of the box's width and height in ``box_px``.

    Args:
        size: height and width of the image, px.
        stride: side of a cell, px.
        box_px: side of a box whose logarithm is 0.
    """

    def __init__(self, size: Size, stride: int, box_px: float) -> None:
        super().__init__()
        self.stride = stride
        self.box_px = box_px
        self.cells = tuple(-(-side // stride) for side in size)
        rows, columns = self.cells
        index = from_index(torch.arange(rows * columns), (rows, columns))
        self.centres: Tensor
        self.register_buffer("centres", (index + 0.5) * stride - 0.5, persistent=False)

    def decode(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return every cell's objectness (B, N) and box (x, y, width, height), px: (B, N, 4)."""
        numbers = cells.flatten(2).mT
        centre = self.centres + self.stride * numbers[..., 1:3]
        side = self.box_px * numbers[..., 3:].clamp(-8, 8).exp()
        return numbers[..., 0], torch.cat([centre, side], dim=2)

    def cell_of(self, xy_px: Tensor) -> Tensor:
        """Return which cell points (B, 2) lie in: (B,)."""
        x, y = ((xy_px + 0.5) / self.stride).floor().long().unbind(1)
        return y * self.cells[1] + x

    def best(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest objectness (B,) and its box, px (B, 4)."""
        objectness, boxes = self.decode(cells)
        largest = objectness.max(dim=1)
        return largest.values, boxes[torch.arange(len(boxes)), largest.indices]

    def forward(self, cells: Tensor) -> Tensor:
        """Return xy_px (B, 2)."""
        return self.best(cells)[1][:, :2]


def corners(boxes: Tensor) -> Tensor:
    """Turn (x, y, width, height) into (x1, y1, x2, y2): (N, 4)."""
    xyxy: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return xyxy
