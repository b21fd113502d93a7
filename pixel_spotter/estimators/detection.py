"""Which pixels hold a spot: how far it stands out, and how far an empty frame's noise does.

In outline that of Sergé et al. 2008 (doi 10.1038/nmeth.1233): a spot against a flat background,
wherever a window can lie. As in Smith et al. 2015 (doi 10.1038/nmeth.3424) a photon's noise counts
as what it is, and what is accepted is a rate of false alarms, not a height.
"""

import math
from functools import cache

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq
from torch import Tensor

from pixel_spotter.coordinates import Size
from pixel_spotter.estimators.finder import correlate, windows
from pixel_spotter.estimators.scoring import LEAST_SHARE

AT_A_TIME = 4
"""So many frames stay in a processor's cache."""


def threshold(false_alarms: float, size: Size, sigma_px: float) -> float:
    """Return the score that so many maxima of an empty frame exceed, on average.

    Over positions, the root of twice the logarithm of a likelihood ratio is a Gaussian field as
    smooth as a spot is wide. The expected number of its maxima above a high level is that of
    Worsley et al. 1996 (doi 10.1002/(SICI)1097-0193(1996)4:1<58::AID-HBM4>3.0.CO;2-O), of the
    frame's area, edges and corners.

    Args:
        false_alarms: in a frame, more than 0.
        size: height and width of the frame, px.
        sigma_px: the spots' width.
    """
    height, width = size
    smooth = 1 / math.sqrt(2 * (sigma_px**2 + 1 / 12))  # with the pixel's own width

    def excess(level: float) -> float:
        density = math.exp(-(level**2) / 2) / (2 * math.pi)
        corners = math.erfc(level / math.sqrt(2)) / 2
        edges = (height + width) * smooth * density
        area = height * width * smooth**2 * density * level / math.sqrt(2 * math.pi)
        return math.log((corners + edges + area) / false_alarms)

    return float(brentq(excess, 1.0, 36.0)) if excess(1.0) > 0 else 1.0


def standing_out(
    image: Tensor, light: Tensor, variance: Tensor, sigma_px: float, side: int
) -> Tensor:
    """Return how far a spot in each pixel's middle stands out, in standard deviations.

    That is its brightness by least squares, fitted along with a flat background in the window
    around it, over the standard deviation of that.

    Args:
        image: (F, H, W), photons; pixels without a value are nan.
        light: that of spots known to be there, photons, likewise.
        variance: of the noise beside that of the flat background's light, photons², likewise.
        sigma_px: the spots' width.
        side: of the window, px, odd.

    Returns:
        (F, H, W); about 0 where nothing is, nan where no window holds two values.
    """
    edges = torch.arange(side + 1, dtype=image.dtype, device=image.device) - side / 2
    spot = (torch.erf(edges / (sigma_px * math.sqrt(2))) / 2).diff()
    seen = image.isfinite()
    above = torch.where(seen, image - light, 0)
    noise = torch.where(seen, variance, 0)
    all_seen = bool(seen.all())
    weight = (seen[:1] if all_seen else seen).to(image.dtype)
    flat = torch.ones_like(spot)
    count, overlap, energy = (correlate(weight, one) for one in (flat, spot, spot.square()))
    background = correlate(above, flat) / count.clamp(min=1)
    photons = correlate(above, spot) - overlap * background
    # What other noise there is counts as it lies under the spot: the same everywhere, as it is.
    lowest, highest = noise.aminmax()
    if not all_seen or lowest < highest:
        noise = correlate(noise, spot.square()) / energy.clamp(min=1e-9)
    energy = energy - overlap.square() / count.clamp(min=1)
    deviation = (energy.clamp(min=0) * (background.clamp(min=0) + noise)).sqrt()
    return torch.where(energy > 1e-3 * spot.square().sum() ** 2, photons / deviation, torch.nan)


def unevenness(image: Tensor, block: int = 32) -> Tensor:
    """Return how the background of frames differs from its mean, photons, (F, H, W).

    Of blocks, the mean without what lies more than three deviations off, and smooth between them,
    much as in SExtractor (Bertin & Arnouts 1996, doi 10.1051/aas:1996164).

    Args:
        image: (F, H, W), photons; pixels without a value are nan.
        block: about so large, px; frames that hold fewer than two by two count as even.
    """
    size = image.shape[1], image.shape[2]
    if min(size) < 2 * block:
        return torch.zeros_like(image)
    rows, columns = _blocks(image, block)
    clipped = [_clipped(part, rows, columns) for part in torch.split(image, AT_A_TIME)]
    level, noise = (torch.cat(part) for part in zip(*clipped, strict=True))
    mean = level.flatten(1).nanmean(dim=1)[:, None, None]
    along_y, along_x = (
        _splines(side, tuple(piece.double().mean(dim=1).tolist()))
        for side, piece in zip(size, (rows, columns), strict=True)
    )
    level = torch.where(level.isfinite(), level, mean).nan_to_num()
    smooth = along_y.to(level) @ level @ along_x.to(level).mT
    differs = _differ(level, noise)[:, None, None]
    return (smooth - smooth.mean(dim=(1, 2), keepdim=True)) * differs


def is_uneven(image: Tensor, block: int) -> Tensor:
    """Return in which frames blocks differ more than noise makes them, (F,) bool.

    Of frames without spots, whose noise is all that the blocks' means have: see `unevenness`.
    """
    if min(image.shape[1:]) < 2 * block:
        return torch.zeros(len(image), dtype=torch.bool, device=image.device)
    along_y, along_x = (
        image.new_zeros(len(piece), side).scatter_(1, piece, 1.0)
        for side, piece in zip(image.shape[1:], _blocks(image, block), strict=True)
    )
    seen = image.isfinite().to(image.dtype)
    values = (image - image.flatten(1).nanmean(dim=1)[:, None, None]).nan_to_num()
    count, total, square = (along_y @ part @ along_x.mT for part in (seen, values, values.square()))
    few = count < along_y[0].sum() * along_x[0].sum() / 4
    level = torch.where(few, torch.nan, total / count)
    return _differ(level, (square / count - level.square()) / count)


def _blocks(image: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the rows, (R, h), and columns, (C, w), of blocks of equal size that cover frames.

    The last ones overlap those before.
    """
    rows, columns = (
        torch.linspace(0, side - -(-side // n), n, device=image.device).round().long()[:, None]
        + torch.arange(-(-side // n), device=image.device)
        for side, n in ((side, side // block) for side in image.shape[1:])
    )
    return rows, columns


def _differ(level: Tensor, noise: Tensor) -> Tensor:
    """Return in which frames blocks differ more than their noise makes them, (F,) bool."""
    mean = level.flatten(1).nanmean(dim=1)[:, None, None]
    square = ((level - mean).square() / noise.clamp(min=1e-12)).flatten(1)
    blocks = square.isfinite().sum(dim=1)
    return square.nansum(dim=1) > blocks + 4 * (2 * blocks).sqrt()


def _clipped(image: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return each block's mean without what lies far off, and the variance of that.

    Args:
        image: (F, H, W).
        rows: of each of R blocks, (R, h).
        columns: likewise, (C, w).

    Returns:
        (F, R, C) each; nan of blocks most of which has no value.
    """
    values = image[:, rows][:, :, :, columns].transpose(2, 3).flatten(3)
    kept = values.isfinite().to(values.dtype)  # numbers are multiplied faster
    known, values = kept > 0, values.nan_to_num(0.0, 0.0, 0.0)
    for _ in range(4):
        count = kept.sum(dim=3, keepdim=True)
        mean = (values * kept).sum(dim=3, keepdim=True) / count
        away = values - mean
        deviation = ((away.square() * kept).sum(dim=3, keepdim=True) / count).sqrt()
        deviation = deviation.clamp(min=1.0)  # single photons are no spots
        kept = (known & (away.abs() <= 3 * deviation)).to(values.dtype)
    count = kept.sum(dim=3)
    level = (values * kept).sum(dim=3) / count
    variance = ((values - level[..., None]).square() * kept).sum(dim=3) / count
    return torch.where(count < values.shape[3] / 4, torch.nan, level), variance / count


def maxima(height: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return where values are the largest of the 3x3 around them and above ``least``.

    Returns:
        Which frame each is in, (N,), and its ``x`` and ``y``, (N, 2), int64.
    """
    height = height.nan_to_num(nan=-torch.inf)
    frame, y, x = torch.nonzero(height > least, as_tuple=True)
    xy = torch.stack([x, y], dim=1)
    around = windows(height, xy, 3, of=frame)
    largest = torch.where(around.seen, around.image, -torch.inf).amax(dim=(1, 2))
    kept = height[frame, y, x] == largest
    return frame[kept], xy[kept]


def deviances(seen: Tensor, expected: Tensor, empty: Tensor, added: Tensor) -> Tensor:
    """Return half the deviance of each pixel from what is expected there, (B, w, w).

    The noise is a Poisson distribution's, shifted and scaled so that it has the mean, the variance
    and the skewness of shot and read noise together where there is no spot: a likelihood whose
    tail is too long would miss spots.

    Args:
        seen: photons, (B, w, w).
        expected: likewise.
        empty: what is expected there without the spot, likewise.
        added: the read noise's variance, photons², which broadcasts with the pixels.
    """
    empty = empty.clamp(min=1e-3)
    variance = torch.maximum(empty + added, LEAST_SHARE * empty)
    scale = (empty / variance).clamp(max=2)  # more, where a background was made even badly
    shift = empty - variance / scale
    mean = ((expected - shift) / scale).clamp(min=1e-6)
    seen = ((seen - shift) / scale).clamp(min=1e-6)
    return mean - seen + seen * (seen / mean).log()


@cache
def _splines(count: int, places: tuple[float, ...]) -> Tensor:
    """Return what each value at some places counts for in each pixel, (count, P)."""
    spline = make_interp_spline(places, np.eye(len(places)), k=min(2, len(places) - 1))
    return torch.from_numpy(spline(np.arange(count)))
