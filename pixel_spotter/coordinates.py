"""The coordinate convention, and nothing else.

Integers are pixel centres, ``x`` is the column and ``y`` the row, always in this order. A 3x2
image (``size == (H, W) == (2, 3)``) in pixels, and in the unit coordinates that networks use::

        x   0     1     2                 -2/3   0   2/3
      y   +-----+-----+-----+           +-----+-----+-----+  -1
      0   |(0,0)|(1,0)|(2,0)|      -1/2 |     |     |     |
          +-----+-----+-----+           +-----+-----+-----+
      1   |(0,1)|(1,1)|(2,1)|       1/2 |     |     |     |
          +-----+-----+-----+           +-----+-----+-----+   1
       -0.5   0.5   1.5   2.5           -1               1
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pixel_spotter.arguments import require

Size = tuple[int, int]  # height and width of an image, px

Columns = dict[str, Tensor]
"""Named columns of a table, each (N,): ``x, y, x_true, y_true, ...``, see docs/design.md."""

FLAGS = (
    "", "nothing found", "outside", "unlike training", "saturated", "crowded", "at the edge",
)  # fmt: skip
"""Why to doubt an answer: the column ``flag`` holds an index of these, files hold the words."""


def as_size(image_size: int | Sequence[int], key: str = "data.image_size") -> Size:
    """Read an image size, of a square or (height, width), at least 1; or raise a UserError."""
    sides = list(image_size) if isinstance(image_size, Sequence) else [image_size] * 2
    fits = len(sides) == 2 and all(type(side) is int and side >= 1 for side in sides)
    wanted = "one whole number or [height, width] of at least 1"
    require(fits, key, wanted, image_size)
    return sides[0], sides[1]


def as_columns(xy_px: Tensor) -> Columns:
    """Name the columns of xy_px (N, 2): ``x`` and ``y``."""
    return {"x": xy_px[:, 0], "y": xy_px[:, 1]}


def as_xy(columns: Mapping[str, Tensor], suffix: str = "") -> Tensor:
    """Return xy_px (N, 2) of columns; with the suffix ``_true``, of the truth."""
    return torch.stack([columns[f"x{suffix}"], columns[f"y{suffix}"]], dim=1)


def all_positions(size: Size) -> Tensor:
    """Return every integer (x, y) of an image, row by row: (H*W, 2), int64."""
    height, width = size
    return from_index(torch.arange(height * width), size)


def from_index(index: Tensor, size: Size) -> Tensor:
    """Turn places in a flattened image, (N,), into their (x, y): (N, 2), int64."""
    width = size[1]
    return torch.stack([index % width, index // width], dim=1)


def pixel_of(xy_px: Tensor, size: Size | None = None) -> Tensor:
    """Return the pixel (x, y) that points (N, 2) lie in: int64.

    Points outside an image of a given size, its far edges included, belong to its nearest pixel.
    """
    pixel = (xy_px + 0.5).floor().long()
    return pixel if size is None else pixel.clamp(min=0).minimum(sides_px(size, pixel) - 1)


def sides_px(size: Size, like: Tensor) -> Tensor:
    """Return (W, H), in the order of (x, y), with the dtype and device of ``like``: (2,)."""
    height, width = size
    return torch.tensor([width, height], dtype=like.dtype, device=like.device)


def to_px(unit: Tensor, size: Size) -> Tensor:
    """Turn unit coordinates, where the image spans [-1, 1] on both axes, into xy_px: (..., 2).

    As in Nibali et al. 2018 (arXiv 1801.07372, section 3), +-1 are its outer edges, no centres.
    """
    return ((unit + 1) * sides_px(size, unit) - 1) / 2


def to_unit(xy_px: Tensor, size: Size) -> Tensor:
    """Turn xy_px into unit coordinates: the inverse of `to_px`."""
    return (2 * xy_px + 1) / sides_px(size, xy_px) - 1
