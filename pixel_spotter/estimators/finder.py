"""Where to look: the pixel in which a spot stands out most, and the window around it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_spotter.coordinates import from_index

WIDTH_PX = 1.2
"""The standard deviation of the spots that are looked for; others are found nearly as well."""


class Windows(NamedTuple):
    """Parts of images.

    Args:
        image: (B, w, w); 0 where nothing was recorded.
        seen: where something was, (B, w, w), bool.
        corner: ``x`` and ``y`` of each window's first pixel in its image, (B, 2), int64.
        moved: where a window is not around its pixel, as the frame's edge is too close, or should
            be whole and is not, (B,), bool.
        saturated: where pixels are saturated, (B,), bool; None if nobody knows.
        light: of spots known to be there, photons, (B, w, w); None if there are none.
    """

    image: Tensor
    seen: Tensor
    corner: Tensor
    moved: Tensor
    saturated: Tensor | None = None
    light: Tensor | None = None

    def rows(self, chosen: Tensor) -> "Windows":
        """Return some of them, by their numbers."""
        image, seen, corner, moved = (part[chosen] for part in self[:4])
        saturated, light = (None if part is None else part[chosen] for part in self[4:])
        return Windows(image, seen, corner, moved, saturated, light)


def brightest(
    image: Tensor,
    window: int,
    margin_px: int = 0,
    saturation: float | None = None,
    within: bool = False,
) -> tuple[Tensor, Windows]:
    """Cut a window around the pixel in which a spot stands out most.

    Args:
        image: (B, H, W), photons, of any type; pixels without a value are nan.
        window: side of the windows, px, odd, at least 5.
        margin_px: no spot is looked for closer to the frame's edge than this.
        saturation: what a pixel holds at most, photons, if that is known. Such pixels are unseen in
            windows that need not be whole.
        within: whether windows must be whole; see `windows`.

    Returns:
        The images as floating-point numbers, and the windows.

    Raises:
        ValueError: if there are no such windows.
    """
    if type(window) is not int or window < 5:
        raise ValueError(f"a window's side must be an odd number of at least 5 px, got {window}")
    if saturation is not None and not saturation > 0:
        raise ValueError(f"saturation must be a number of photons, got {saturation}")
    image = as_floating(image)
    centre = find(image, margin_px)
    parts = windows(image, centre, window, within)
    if saturation is None or math.isinf(saturation):
        return image, parts
    full = (image >= saturation * (1 - 1e-6)).to(image.dtype)
    full = windows(full, centre, window, within).image > 0
    parts = parts._replace(saturated=full.flatten(1).any(dim=1))
    if not within:
        parts = parts._replace(image=torch.where(full, 0, parts.image), seen=parts.seen & ~full)
    return image, parts


def as_floating(image: Tensor) -> Tensor:
    """Return images as numbers that estimators compute with: float32, or float64 as it is."""
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def find(image: Tensor, margin_px: int = 0) -> Tensor:
    """Return the pixel in which a spot stands out most from the median of its image.

    It maximizes the signal-to-noise ratio of a Gaussian's brightness in white noise, also where the
    frame's edge or pixels without a value (nan) cut the Gaussian.

    Args:
        image: (B, H, W).
        margin_px: no spot is looked for closer to the frame's edge than this.

    Returns:
        ``x`` and ``y``, (B, 2), int64.

    Raises:
        ValueError: if the margin leaves nothing of the image.
    """
    height, width = image.shape[1:]
    if not 0 <= 2 * margin_px < min(height, width):
        raise ValueError(f"a margin of {margin_px} px leaves nothing of {height}x{width} px")
    reach = math.ceil(3 * WIDTH_PX)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-(offsets / WIDTH_PX).square() / 2)
    seen = image.isfinite()
    step = max(2, min(height, width) // 64)  # of some thousand pixels, a median is good enough
    background = median(image[:, ::step, ::step])[:, None, None]
    above = torch.where(seen, image - background, 0)
    alike = not torch.compiler.is_exporting() and bool(seen.all())
    energy = correlate((seen[:1] if alike else seen).to(image.dtype), kernel.square())
    ratio = correlate(above, kernel) / energy.clamp(min=1e-6).sqrt()
    rows, columns = (torch.arange(side, device=image.device) for side in (height, width))
    inside = ((rows >= margin_px) & (rows < height - margin_px))[:, None]
    inside = inside & (columns >= margin_px) & (columns < width - margin_px)
    ratio.masked_fill_(~inside, -torch.inf)
    return from_index(ratio.flatten(1).argmax(dim=1), (height, width))


def median(image: Tensor) -> Tensor:
    """Return each image's median over the pixels that have a value, (B,); 0 if none has."""
    return image.flatten(1).nanmedian(dim=1).values.nan_to_num()


def windows(
    image: Tensor, centre: Tensor, side: int, within: bool = False, of: Tensor | None = None
) -> Windows:
    """Cut windows around pixels.

    Args:
        image: (F, H, W); pixels without a value are nan.
        centre: the pixels, (B, 2), int64.
        side: of the windows, px, an odd number.
        within: whether windows should be whole: one that the edge would cut is moved inside.
        of: which image each is of, (B,), int64; None: each is of the next.

    Raises:
        ValueError: if the side is not odd and positive, or larger than the images.
    """
    height, width = image.shape[1:]
    if type(side) is not int or side < 1 or side % 2 == 0:
        raise ValueError(f"a window's side must be an odd number of pixels, got {side}")
    if side > min(height, width):
        raise ValueError(f"a window of {side} px is larger than images of {height}x{width} px")
    asked = centre
    if within:
        last = torch.tensor([width, height], device=image.device) - 1 - side // 2
        centre = centre.clamp(min=side // 2).minimum(last)
    around = torch.arange(side, device=image.device) - side // 2
    x, y = (centre[:, axis, None] + around for axis in (0, 1))
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    place = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    if of is None:
        part = image.flatten(1).gather(1, place.flatten(1)).view(-1, side, side)
    else:
        place = of[:, None, None] * (height * width) + place
        part = image.flatten().index_select(0, place.flatten()).view(-1, side, side)
    seen = inside & part.isfinite()
    moved = (centre != asked).any(dim=1)
    if within:
        moved |= ~seen.flatten(1).all(dim=1)
    return Windows(torch.where(seen, part, 0), seen, centre - side // 2, moved)


def correlate(image: Tensor, kernel: Tensor) -> Tensor:
    """Correlate images (B, H, W) with a symmetric kernel along both axes; outside there is 0."""
    height, width = image.shape[1:]
    reach = len(kernel) // 2
    if torch.compiler.is_exporting():  # one way for all sizes
        down = F.conv2d(image[:, None], kernel[None, None, :, None], padding=(reach, 0))
        return F.conv2d(down, kernel[None, None, None], padding=(0, reach))[:, 0]
    if (
        max(height, width) <= 64
    ):  # where products with matrices that have it as diagonals are faster
        return _along(height, kernel) @ image @ _along(width, kernel).mT
    for axis in (1, 2):  # a convolution of one channel takes many times as long as this
        sides = (reach, reach) if axis == 2 else (0, 0, reach, reach)
        padded, count = F.pad(image, sides), image.shape[axis]
        image = padded.narrow(axis, reach, count) * kernel[reach]
        for away, weight in enumerate(kernel.tolist()[reach + 1 :], start=1):
            both = padded.narrow(axis, reach - away, count) + padded.narrow(
                axis, reach + away, count
            )
            image.add_(both, alpha=weight)
    return image


def _along(side: int, kernel: Tensor) -> Tensor:
    place = torch.arange(side, device=kernel.device)
    tap = place - place[:, None] + len(kernel) // 2
    inside = (tap >= 0) & (tap < len(kernel))
    return torch.where(inside, kernel[tap.clamp(0, len(kernel) - 1)], 0)
