"""Pure functions from positions to images."""

import torch
from torch import Tensor

from pixel_spotter.coordinates import Size, sides_px


def render_pixels(xy: Tensor, size: Size) -> Tensor:
    """Draw one white pixel, at whole positions xy (B, 2), into each black image: (B, 1, H, W).

    Raises:
        ValueError: if a position lies outside the image.
    """
    if ((xy < 0) | (xy >= sides_px(size, xy))).any():
        raise ValueError(f"positions outside the image of {size[0]}x{size[1]} px (height x width)")
    height, width = size
    images = torch.zeros(len(xy), 1, height, width, device=xy.device)
    flat_index = xy[:, 1:] * width + xy[:, :1]
    images.view(len(xy), height * width).scatter_(1, flat_index, 1.0)
    return images
