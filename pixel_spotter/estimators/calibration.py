"""What frames tell of the camera and of the spots' width, where nobody said."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from pixel_spotter.errors import UserError
from pixel_spotter.estimators.detection import maxima, standing_out, threshold, unevenness
from pixel_spotter.estimators.finder import Windows, correlate, windows
from pixel_spotter.estimators.residuals import CROWDED, misfit
from pixel_spotter.estimators.scoring import fit
from pixel_spotter.estimators.sums import Spots, spots_of
from pixel_spotter.simulation.bound import inverse
from pixel_spotter.simulation.psf import GaussianPSF

_CLASSES = 20
"""Into so many classes of brightness pixels are sorted."""

_WIDTHS_PX = (0.8, 1.2, 1.8, 2.7, 4.0)
"""Widths of spots that are looked for, where nobody said how wide they are."""

_ENOUGH = 2**20
"""So many pixels are enough, if they hold a hundred spots with none beside them."""

_LEAST_TO_COMPARE = 16
"""Frames of fewer pixels on a side are not asked how alike their pixels are."""

_ALIKE = 0.6
"""Neighbours that differ by less than this, in variance, of those two apart were smoothed."""

_MOST = 500
"""So many spots are enough to tell their width from."""


class Noise(NamedTuple):
    """How noise grows with light.

    Args:
        gain: electrons per count, as if all noise were that of light.
        offset: counts without any noise, by the same line.
        grows: whether the frames show that noise grows with light; if not, gain and offset only say
            how much noise there is in the background.
        unsure: the gain's standard deviation, of itself.
    """

    gain: float
    offset: float
    grows: bool
    unsure: float


class Shape(NamedTuple):
    """What spots look like.

    Args:
        sigma_px: their width, px.
        unsure: its standard deviation.
        ratio: of their width along y to that along x; 1 where they do not show another.
        odd: the share of them that have another shape than such a Gaussian.
        alone: how many have no other beside them.
    """

    sigma_px: float
    unsure: float
    ratio: float
    odd: float
    alone: int = 0


def camera_noise(counts: Tensor) -> Noise:
    """Estimate how the variance of pixels grows with their mean.

    Both ways to tell count as noise what is none, a spot that has come and one of another shape: of
    two answers, the larger gain is right. Where there is neither, the noise of an even background
    is that of light by as much as it is skewed.

    Args:
        counts: (F, H, W), at least 8x8 px, as the camera recorded them; nan where it did not.

    Raises:
        UserError: if the frames hold no noise.
    """
    level, variance, weight, brightest = _noise_by_level(counts)
    middle = (weight * level).sum() / weight.sum()
    height = (weight * variance).sum() / weight.sum()
    spread = (weight * (level - middle).square()).sum()
    slope = (weight * (level - middle) * variance).sum() / spread.clamp(min=1e-30)
    grows = len(level) > 2 and bool(slope > 3 / spread.sqrt())
    if not grows:  # as little as it may: all else would be made up
        slope = 0.1 * height / max(brightest - middle.item(), math.sqrt(height))
    unsure = (1 / (spread.sqrt() * slope)).item()
    noise = Noise(1 / slope.item(), (middle - height / slope).item(), grows, unsure)
    of_spots = noise_of_spots(counts, noise)
    if of_spots is not None and not (grows and noise.gain > of_spots.gain):
        return of_spots
    return noise if grows else _noise_by_skewness(counts, noise)


def _noise_by_skewness(counts: Tensor, background: Noise) -> Noise:
    """Estimate the gain from how skewed the noise of an even background is: light's alone is.

    Of n photons, the third moment is that of the variance, n; what is Gaussian has none.
    """
    even = _without_spots(counts)
    even = even - unevenness(even)
    even = (even - even.nanmean(dim=(1, 2), keepdim=True)).double()
    values = even[even.isfinite()]
    variance, third = values.square().mean().item(), values.pow(3).mean().item()
    unsure = math.sqrt(6 * variance**3 / max(1, len(values)))
    if third < 3 * unsure:
        return background
    gain = variance / third
    middle = counts.nanmedian().item()
    return Noise(gain, middle - variance * gain, False, unsure / third)


def read_variance(image: Tensor) -> float:
    """Estimate the variance beyond that of light, photons², of frames (F, H, W) in photons."""
    level, variance, weight, _ = _noise_by_level(image)
    beyond = (weight * (variance - level)).sum() / weight.sum()
    return max(0.0, beyond.item())


def noise_ratio(image: Tensor, variance: float | Tensor) -> float:
    """Return the variance that frames (F, H, W) show, over that of their photons and of more.

    Args:
        image: photons.
        variance: of noise beside that of light, photons², a number or (H, W).
    """
    level, seen, weight, _ = _noise_by_level(image)
    expected = level + torch.as_tensor(variance).double().mean()
    return ((weight * seen).sum() / (weight * expected).sum().clamp(min=1e-9)).item()


def are_smoothed(counts: Tensor) -> bool:
    """Tell whether noise is alike in neighbouring pixels, as where images were interpolated.

    By how neighbours differ, and pixels that are two apart: the noise of a camera's pixels has no
    memory, and light that changes slowly is in neither.

    Args:
        counts: (F, H, W); nan where there is no value.
    """
    if min(counts.shape[1:]) < _LEAST_TO_COMPARE or not len(counts):
        return False
    counts = _without_spots(counts)
    variances = []
    for apart in (1, 2):
        change = counts
        for _ in range(2):  # along both axes
            change = 2 * change[:, apart:-apart] - change[:, 2 * apart :] - change[:, : -2 * apart]
            change = change.mT
        square = change[change.isfinite()].double().square()
        variance = square.mean()
        for _ in range(8):
            variance = square[square <= 16 * variance].mean()
        variances.append(variance.item())
    return variances[0] < _ALIKE * variances[1]


def _noise_by_level(counts: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the variance of pixels by their mean.

    Of several frames, it is that of the differences of consecutive ones; of one, of what
    neighbouring pixels differ by. Pixels are sorted by how bright those around them are, as their
    own noise would sort them as well; of each class what lies far off is left out, and a class of
    which much does, as its pixels' light changed, is left out itself.

    Returns:
        Mean, variance and 1 / its own variance, of each class, and the brightest mean.
    """
    three, five = (torch.ones(side).to(counts) for side in (3, 5))
    if len(counts) == 0:
        raise UserError("the frames hold no pixel with a value, or the same in each")
    if len(counts) > 1:
        beside = (correlate(counts, five) - counts) / 24
        change = (beside[1:] - beside[:-1]).abs()
        beside = (beside[1:] + beside[:-1]) / 2
        mean, difference = (counts[1:] + counts[:-1]) / 2, counts[1:] - counts[:-1]
        difference = difference - difference.flatten(1).nanmedian(dim=1).values[:, None, None]
        square = difference.square() / 2
        # Where what is around a pixel stayed as it was, a spot neither came nor went.
        noise = (square.nanmedian() / 0.455 / 12).sqrt()
        steady = change < 3 * noise + 0.03 * (beside - beside.nanmedian()).clamp(min=0)
        square = torch.where(steady, square, torch.nan)
    else:
        counts = _without_spots(counts)
        taps = torch.tensor([1.0, -2.0, 1.0]).to(counts)
        own = correlate(counts, three)
        mean, beside = own / 9, (correlate(counts, five) - own) / 16
        square = correlate(counts, taps).square() / 36
    mean, square, beside = (part[:, 2:-2, 2:-2] for part in (mean, square, beside))
    kept = square.isfinite() & beside.isfinite()
    mean, square = mean[kept].double(), square[kept].double()
    order = beside[kept].argsort()
    # Each class holds half of what is brighter than those before.
    places = sorted({round((1 - 0.5**k) * len(order)) for k in range(_CLASSES)} | {len(order)})
    found: list[Tensor] = []
    for low, high in pairwise(places):
        values = square[order[low:high]]
        variance = values.mean()
        for _ in range(8):
            near = values <= 16 * variance
            variance = values[near].mean()
        left_out = 1 - near.double().mean()
        if len(values) >= 50 and variance > 0 and (left_out < 0.01 or not found):
            level = mean[order[low:high]].mean()
            found.append(torch.stack([level, variance, near.sum() / (2 * variance.square())]))
    if not found:
        raise UserError(
            "the frames hold no noise that the camera's could be told from: give camera.gain, "
            "camera.offset and camera.read_noise"
        )
    level, variance, weight = torch.stack(found).unbind(dim=1)
    return level, variance, weight, mean.max().item()


def _without_spots(counts: Tensor) -> Tensor:
    """Return a frame with nan where spots are: neighbouring pixels differ there without noise."""
    image = counts - unevenness(counts) - counts.nanmedian()
    across = (image[:, :, 1:] - image[:, :, :-1]).square() / 2
    noise = across.nanmedian() / 0.455  # a square of unit variance has this median
    nothing = torch.zeros_like(image)
    width = 1.2
    height = standing_out(image, nothing, nothing + noise, width, 13).nan_to_num()
    near = F.max_pool2d(height[:, None], 9, stride=1, padding=4)[:, 0] > 5
    return torch.where(near, torch.nan, counts)


def spot_shape(image: Tensor, variance: float | Tensor, ratio: float | None = None) -> Shape | None:
    """Estimate the shape of spots from those that stand out; None if none does.

    Args:
        image: (F, H, W), photons; pixels without a value are nan.
        variance: of the noise beside that of light, photons², a number or (H, W).
        ratio: of a spot's width along y to that along x, if that is known.
    """
    if (skipped := min(len(image), image.numel() // _ENOUGH)) > 1:
        some = spot_shape(image[::skipped], variance, ratio)
        if some is not None and some.alone >= 100:
            return some
    noise = torch.as_tensor(variance).to(image).expand(image.shape)
    found = [_shape_near(width, image, noise, ratio) for width in _WIDTHS_PX]
    _, best = max(found, key=lambda one: one[0])
    if best is None:
        return None
    # Spots are as wide as those that stand out most; their windows are as large as they need.
    return _shape_near(best.sigma_px, image, noise, ratio)[1] or best


def _shape_near(
    width: float, image: Tensor, noise: Tensor, ratio: float | None
) -> tuple[float, Shape | None]:
    """Return how far spots of a width stand out, all together, and what their shape is."""
    side = 2 * max(5, round(5.5 * width)) + 1
    if side > min(image.shape[1:]):
        return 0.0, None
    height = standing_out(image, torch.zeros_like(image), noise, width, side)
    level = threshold(1e-4, (image.shape[1], image.shape[2]), width)
    frame, xy = maxima(height, level)
    if not len(frame):
        return 0.0, None
    strength = height[frame, xy[:, 1], xy[:, 0]]
    alone = _alone(frame, xy, side)
    enough = alone.sum() >= 5
    if enough:
        frame, xy, strength = frame[alone], xy[alone], strength[alone]
    brightest = strength.topk(min(_MOST, len(frame)))
    frame, xy = frame[brightest.indices], xy[brightest.indices]
    parts = windows(image, xy, side, of=frame)
    start = torch.full((len(frame), 5), side // 2, dtype=image.dtype, device=image.device)
    start[:, 3] = image.nanmedian()
    start[:, 4] = width
    start[:, 2] = brightest.values * 2 * width * (noise.mean() + image.nanmedian()).sqrt()
    added = windows(noise, xy, side, of=frame).image
    shape, found = _shape(parts, start, added, ratio)
    if shape is None:
        return 0.0, None
    shape = shape._replace(alone=len(frame) if enough else 0)
    return brightest.values[found].square().sum().item(), shape


def _alone(frame: Tensor, xy: Tensor, reach: int) -> Tensor:
    """Return which places, pixels (N, 2), have no other within ``reach``, px, in their frame."""
    place = torch.column_stack([xy.double(), frame.double() * 1e6]).cpu().numpy()
    away, _ = cKDTree(place).query(place, 2, p=math.inf)
    return torch.from_numpy(away[:, 1]).to(frame.device) > reach


def _shape(
    parts: Windows, start: Tensor, added: Tensor, told: float | None
) -> tuple[Shape | None, Tensor]:
    """Return the shape of spots in the middle of windows, and which of them tell of it."""
    shape, found, steps = _fitted(parts, start, added, told or 1.0)
    if shape is None or told is not None:
        return shape, found
    step = steps.median().item()
    unsure = _unsure(steps) if len(steps) >= 5 else math.inf
    if abs(step) < max(0.05, 4 * unsure) and not (len(steps) < 5 and shape.odd):
        return shape, found
    longer, ratio = shape, 1.0
    for _ in range(6):
        ratio = min(max(ratio * math.exp(min(max(step, -0.5), 0.5)), 1 / 3), 3.0)
        fitted, kept, steps = _fitted(parts, start, added, ratio)
        if fitted is None:
            return shape, found
        longer, step = fitted, steps.median().item()
    # They may be two each: it is another ratio only if that explains most of them, or all of few.
    most = max(shape.odd / 2, 0.1) if len(steps) >= 5 else 0
    return (longer, kept) if abs(step) < 0.05 and longer.odd <= most else (shape, found)


def _fitted(
    parts: Windows, start: Tensor, added: Tensor, ratio: float
) -> tuple[Shape | None, Tensor, Tensor]:
    """Fit spots of a ratio; return their shape, which tell of it, and their `_longer`."""
    psf = GaussianPSF(ratio)
    ended, found = fit(parts, start, psf, True, added)
    found &= ended.theta[:, 4] > 0.45  # a hot pixel is narrower
    expected = spots_of(psf, ended.theta, parts.image.shape[-1]).expected
    off = misfit(parts, expected, 5, added)
    odd = (off[found] > CROWDED).float().mean().item()
    alone = found & (off < 3)  # two as one are wider
    found = alone if alone.sum() >= 5 else found
    steps = _longer(parts.rows(found), ended.theta[found], expected[found], added[found], psf)
    steps = steps[steps.isfinite()]
    if not len(steps):
        return None, found, steps
    widths = ended.theta[found, 4]
    return Shape(widths.median().item(), _unsure(widths), ratio, odd), found, steps


def _longer(
    parts: Windows, theta: Tensor, expected: Tensor, added: Tensor, psf: GaussianPSF
) -> Tensor:
    """Return by how much the logarithm of each spot's ratio is larger than that of its fit, (B,).

    One step of Fisher scoring: the derivative by it is nearly orthogonal to those of the fit.
    """
    side = parts.image.shape[-1]
    along_x, along_y = psf.along(theta[:, :2], theta[:, 4], (side, side))
    wider = along_y[:, 2, :, None] * along_x[:, :1] - along_y[:, 0, :, None] * along_x[:, 2:]
    by_ratio = wider * (theta[:, 2] * theta[:, 4] / 2)[:, None, None]
    weight = parts.seen / (expected + added)
    step = (by_ratio * weight * (parts.image - expected)).sum(dim=(1, 2))
    return step / (by_ratio.square() * weight).sum(dim=(1, 2))


def noise_of_spots(counts: Tensor, background: Noise) -> Noise | None:
    """Estimate how noise grows with light from what fits leave of spots; None without enough.

    For frames whose spots come and go, which no two frames tell of. A spot of another shape than
    was fitted leaves more: the gain is too small then, and deviations are too large.

    Args:
        counts: see `camera_noise`.
        background: how much noise there is in the background.
    """
    gain, offset = background.gain, background.offset
    shape = None
    for _ in range(6):
        image = (counts - offset) * gain
        level = image.nanmedian().item()
        shape = shape or spot_shape(image - level, level, 1.0)
        if shape is None:
            return None
        slopes = _noise_per_light(image - level, level, shape.sigma_px)
        if len(slopes) < 5:
            return None
        # Of photons as they were taken for: what of the noise grows, if not all of it.
        slope = slopes.median().item()
        if slope <= 0:
            return None
        gain, offset = gain / slope, offset + level / gain * (1 - 1 / slope)
    return Noise(gain, offset, True, _unsure(slopes) / slope)


def _unsure(values: Tensor) -> float:
    """Return the standard deviation of the median of values (N,), as most of them spread."""
    spread = 1.48 * (values - values.median()).abs().median().item()
    return 1.25 * spread / math.sqrt(len(values))


def _noise_per_light(above: Tensor, level: float, width: float) -> Tensor:
    """Return by how much the variance grows with light, for each of some isolated spots.

    Args:
        above: frames without their background, photons.
        level: of that background, whose variance it is.
        width: of the spots, px.
    """
    noise = torch.full_like(above, level)
    side = 2 * max(5, round(5.5 * width)) + 1
    if side > min(above.shape[1:]):
        return above.new_zeros(0)
    height = standing_out(above, torch.zeros_like(above), noise, width, side)
    frame, xy = maxima(height, threshold(1e-4, (above.shape[1], above.shape[2]), width))
    if len(frame) < 5:
        return above.new_zeros(0)
    kept = _alone(frame, xy, side) & (height[frame, xy[:, 1], xy[:, 0]] > 12)
    frame, xy = frame[kept][:_MOST], xy[kept][:_MOST]
    if len(frame) < 5:
        return above.new_zeros(0)
    parts = windows(above + level, xy, side, of=frame)
    brightness = height[frame, xy[:, 1], xy[:, 0]]
    start = torch.full((len(frame), 5), side // 2, dtype=above.dtype, device=above.device)
    start[:, 2] = brightness * 2 * width * math.sqrt(level)
    start[:, 3], start[:, 4] = level, width
    ended, found = fit(parts, start, GaussianPSF(), True, torch.zeros_like(parts.image))
    spots = Spots(GaussianPSF(), ended.theta, side)
    variance = spots.expected
    by_theta = spots.derivatives
    taken = (by_theta * (inverse(ended.information) @ by_theta)).sum(dim=1) / variance.flatten(1)
    light = (spots.expected - ended.theta[:, 3, None, None]).flatten(1)
    seen = parts.seen.flatten(1) & (light > 2 * math.sqrt(level)) & (taken < 0.8)
    square = (parts.image - spots.expected).flatten(1).square() / (1 - taken)
    grown = ((square - level) * seen).sum(dim=1) / (light * seen).sum(dim=1)
    return grown[found & seen.any(dim=1) & grown.isfinite()]
