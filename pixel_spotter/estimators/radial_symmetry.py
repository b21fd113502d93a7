"""The point that all gradients point to."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_spotter.coordinates import Columns
from pixel_spotter.estimators.answers import answers
from pixel_spotter.estimators.finder import brightest


def radial_symmetry(
    image: Tensor, window: int = 9, margin_px: int = 0, saturation: float | None = None
) -> Columns:
    """Return the centre of radial symmetry (Parthasarathy 2012, doi 10.1038/nmeth.2071).

    Gradients are taken between pixels, along the diagonals, and smoothed; the answer is the point
    with the smallest squared distance from the lines along them, weighted by the gradient's square
    over the distance from the gradients' centre of mass.

    Args:
        image: (B, H, W), photons; pixels without a value are nan.
        window: side of the part around the brightest spot that is looked at, px, odd.
        margin_px: no spot is looked for closer to the frame's edge than this.
        saturation: what a pixel holds at most, photons, which a flag tells; None guesses it.

    Returns:
        ``x``, ``y``, px, and ``flag``.
    """
    image, parts = brightest(image, window, margin_px, saturation, within=True)
    pixels = parts.image
    # u along (1, -1) and v along (1, 1), at the corners between pixels
    by_u = pixels[:, :-1, 1:] - pixels[:, 1:, :-1]
    by_v = pixels[:, 1:, 1:] - pixels[:, :-1, :-1]
    by_u, by_v = (F.avg_pool2d(one[:, None], 3, 1, 1)[:, 0] for one in (by_u, by_v))
    by_x, by_y = by_u + by_v, by_v - by_u
    at = torch.arange(window - 1, dtype=pixels.dtype, device=pixels.device) + 0.5
    x, y = at[None, None, :], at[None, :, None]
    square = by_x.square() + by_y.square()
    total = square.sum(dim=(1, 2), keepdim=True)
    from_x, from_y = (
        x - (square * x).sum(dim=(1, 2), keepdim=True) / total,
        y - (square * y).sum(dim=(1, 2), keepdim=True) / total,
    )
    weight = 1 / (from_x.square() + from_y.square()).sqrt().clamp(min=1e-3)  # times square / square
    # The normal of a gradient's line is (by_y, -by_x), its distance from (a, b) is that times
    # (a - x, b - y), over the gradient's length.
    xx, yy, xy = weight * by_y.square(), weight * by_x.square(), -weight * by_x * by_y
    sums = [part.sum(dim=(1, 2)) for part in (xx, yy, xy, xx * x + xy * y, yy * y + xy * x)]
    sum_xx, sum_yy, sum_xy, right_x, right_y = sums
    determinant = sum_xx * sum_yy - sum_xy.square()
    found = torch.stack(
        [sum_yy * right_x - sum_xy * right_y, sum_xx * right_y - sum_xy * right_x], dim=1
    )
    return answers(parts, image, found / determinant[:, None])
