"""What turns features into columns, shared by models."""

import torch
from torch import Tensor, nn

from pixel_spotter.coordinates import (
    Columns,
    Size,
    all_positions,
    as_columns,
    pixel_of,
    sides_px,
    to_px,
)


class LinearHead(nn.Module):
    """One linear layer from features (B, in_features) to ``x`` and ``y``.

    It answers in unit coordinates, which are then scaled to px; or, with ``scale_output`` off, in
    px: outputs and gradients are then tens of times larger than a fresh network is made for.
    """

    def __init__(self, in_features: int, size: Size, scale_output: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2)
        self.size, self.scale_output = size, scale_output

    def forward(self, features: Tensor) -> Columns:
        output = self.linear(features)
        return as_columns(to_px(output, self.size) if self.scale_output else output)


class SoftArgmax(nn.Module):
    """Turns logits (B, 1, H + 2 margin, W + 2 margin) into the ``x``, ``y`` of their softmax.

    In larger maps, a part of that size around the largest logit is all that counts: the small
    probabilities of a background that was never that large in training would add up.
    """

    def __init__(self, size: Size, margin: int = 0) -> None:
        super().__init__()
        self.sides = (size[0] + 2 * margin, size[1] + 2 * margin)
        self.margin = margin
        positions = all_positions(self.sides).float() - margin
        self.positions = nn.Buffer(positions, persistent=False)

    def forward(self, maps: Tensor) -> Columns:
        sides = (maps.shape[2], maps.shape[3])
        if not torch.compiler.is_exporting() and sides == self.sides:  # or it is for all sizes
            return as_columns(maps.flatten(1).softmax(dim=1) @ self.positions)
        positions = all_positions(sides).to(self.positions)
        peak = positions[maps.flatten(1).argmax(dim=1)]
        height, width = map(min, sides, self.sides)
        window = sides_px((height, width), peak)
        first = (peak - window // 2).clamp(min=0).minimum(sides_px(sides, peak) - window)
        inside = ((positions >= first[:, None]) & (positions < (first + window)[:, None])).all(2)
        logits = maps.flatten(1).masked_fill(~inside, -torch.inf)
        return as_columns(logits.softmax(dim=1) @ (positions - self.margin))


class PoolHead(nn.Module):
    """Makes two maps of unit coordinates with the last convolution; answers with max or mean."""

    def __init__(self, last: nn.Module, size: Size, pooling: str) -> None:
        super().__init__()
        self.last, self.size, self.pooling = last, size, pooling

    def forward(self, features: Tensor) -> Columns:
        values = self.last(features).flatten(2)
        # amax, as AdaptiveMaxPool2d has no deterministic gradient on a GPU
        unit = values.amax(-1) if self.pooling == "max" else values.mean(-1)
        return as_columns(to_px(unit, self.size))


class AxisBins(nn.Module):
    """Classifies features (B, in_features) into bins along x and y, and expects ``x`` and ``y``.

    The bins, ``bins_per_px`` in each pixel, go on ``margin_px`` beyond the image's edges.
    """

    def __init__(
        self, in_features: int, size: Size, bins_per_px: int, margin_px: float = 0.0
    ) -> None:
        super().__init__()
        outside = round(margin_px * bins_per_px)
        y_px, x_px = (
            (torch.arange(-outside, side * bins_per_px + outside) + 0.5) / bins_per_px - 0.5
            for side in size
        )
        self.x_px = nn.Buffer(x_px, persistent=False)
        self.y_px = nn.Buffer(y_px, persistent=False)
        self.linear = nn.Linear(in_features, len(self.x_px) + len(self.y_px))

    def logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the bins along x (B, X) and y (B, Y)."""
        x, y = self.linear(features).split([len(self.x_px), len(self.y_px)], dim=1)
        return x, y

    def forward(self, features: Tensor) -> Columns:
        x, y = self.logits(features)
        return {"x": x.softmax(1) @ self.x_px, "y": y.softmax(1) @ self.y_px}


class BestBox(nn.Module):
    """Reads cells (B, 5, h, w) as boxes; answers with the best one.

    That is ``x, y, box_width_px, box_height_px``, and ``objectness``, 0 to 1. A cell's five numbers
    are its objectness (a logit), the centre's offset in x and y from the cell's own centre, in
    cells of ``stride`` px, and the logarithm of the box's width and height in ``box_px``.
    """

    def __init__(self, size: Size, stride: int, box_px: float) -> None:
        super().__init__()
        self.size, self.stride, self.box_px = size, stride, box_px
        self.cells = (-(-size[0] // stride), -(-size[1] // stride))
        self.centres = nn.Buffer(self._centres(self.cells), persistent=False)

    def boxes(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return every cell's objectness (B, N) and box (x, y, width, height), px: (B, N, 4)."""
        numbers = cells.flatten(2).mT
        there = (cells.shape[2], cells.shape[3])
        known = not torch.compiler.is_exporting() and there == self.cells  # or it is for all sizes
        centres = self.centres if known else self._centres(there).to(self.centres)
        centre = centres + self.stride * numbers[..., 1:3]
        side = self.box_px * numbers[..., 3:].clamp(-8, 8).exp()
        return numbers[..., 0], torch.cat([centre, side], dim=2)

    def _centres(self, cells: Size) -> Tensor:
        """Return the cells' centres (x, y), px: (N, 2)."""
        return (all_positions(cells) + 0.5) * self.stride - 0.5

    def cell_of(self, xy_px: Tensor) -> Tensor:
        """Return which cell points (B, 2) lie in: (B,)."""
        x, y = (pixel_of(xy_px, self.size) // self.stride).unbind(1)
        return y * self.cells[1] + x

    def forward(self, cells: Tensor) -> Columns:
        objectness, boxes = self.boxes(cells)
        largest = objectness.max(dim=1)
        best = boxes[torch.arange(len(boxes)), largest.indices]
        names = ("x", "y", "box_width_px", "box_height_px")
        columns = dict(zip(names, best.unbind(1), strict=True))
        return {**columns, "objectness": largest.values.sigmoid()}
