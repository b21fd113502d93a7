"""Spots fitted with a point-spread function: least squares, and maximum likelihood of one and two.

Their standard deviations are those that theory gives: they know nothing of the truth.
"""

import math

import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, all_positions
from pixel_spotter.estimators.answers import answers
from pixel_spotter.estimators.finder import Windows, brightest, find, windows
from pixel_spotter.estimators.residuals import crowded, excess_variance, noise_at_the_border
from pixel_spotter.estimators.scoring import LEAST_PHOTONS, Point, fit
from pixel_spotter.estimators.sums import spots_of
from pixel_spotter.simulation.bound import inverse
from pixel_spotter.simulation.psf import PSF, GaussianPSF

_TWO = 12.0
"""By so much the logarithm of the likelihood must grow for a neighbour to be believed: in one of
about 40,000 windows without one it does."""


def least_squares(
    image: Tensor,
    sigma_px: float | None = None,
    window: int = 13,
    margin_px: int = 0,
    psf: PSF | None = None,
    excess_noise: float = 1.0,
    saturation: float | None = None,
) -> Columns:
    """Fit the spot that stands out most by least squares, all pixels weighing the same.

    Args:
        image: (B, H, W), photons; pixels without a value are nan.
        sigma_px: the spot's width, where it is known; None fits it.
        window: side of the part around the spot that is fitted, px, odd.
        margin_px: no spot is looked for closer to the frame's edge than this.
        psf: how light is spread; None: a round Gaussian.
        excess_noise: variance of light over its mean: 1 is that of light, 2 what an
            electron-multiplying register makes of it.
        saturation: what a pixel holds at most, photons: such pixels are left out, and a flag tells
            of them; None only guesses which are.

    Returns:
        ``x, y, sd_x, sd_y``, px, ``corr_xy, photons, background``, of a psf that has one
        ``sigma_px``, and ``flag``: (B,) each. The deviations follow from shot noise and what noise
        the residuals show beyond it.
    """
    psf = psf or GaussianPSF()
    image, parts = _look(image, window, margin_px, saturation, excess_noise)
    fit_width = _fits_width(psf, sigma_px)
    ended, found = fit(parts, _start(parts, sigma_px), psf, fit_width, None)
    spots = spots_of(psf, ended.theta, window)
    free = ended.ascent.shape[1]
    added = excess_variance(parts, spots.expected, free, torch.zeros_like(parts.image[:, :1, :1]))
    _, shaken = spots.sums((spots.expected + added) * parts.seen, torch.zeros_like(parts.image))
    covariance = inverse(ended.information)
    covariance = covariance @ shaken[:, :free, :free] @ covariance
    return _named(parts, image, psf, ended, found, covariance, excess_noise)


def maximum_likelihood(
    image: Tensor,
    sigma_px: float | None = None,
    read_noise: float | Tensor | None = None,
    window: int = 13,
    margin_px: int = 0,
    psf: PSF | None = None,
    excess_noise: float = 1.0,
    saturation: float | None = None,
) -> Columns:
    """Fit the spot that stands out most by maximum likelihood: shot noise and read noise.

    The likelihood is that of Huang et al. 2013 (doi 10.1038/nmeth.2488); without read noise it is
    that of Smith et al. 2010 (doi 10.1038/nmeth.1449).

    Args:
        image: see `least_squares`.
        sigma_px: see `least_squares`.
        read_noise: its standard deviation, electrons: a number or a map (H, W), where it is known;
            None estimates it for each window from what the residuals show beyond shot noise.
        window: see `least_squares`.
        margin_px: see `least_squares`.
        psf: see `least_squares`.
        excess_noise: see `least_squares`.
        saturation: see `least_squares`.

    Returns:
        See `least_squares`. The deviations are the Cramér-Rao bound at what was found.
    """
    psf = psf or GaussianPSF()
    image, parts = _look(image, window, margin_px, saturation, excess_noise)
    theta = _start(parts, sigma_px)
    fit_width = _fits_width(psf, sigma_px)
    ended, found, _ = _fit_likelihood(
        parts, [theta], psf, fit_width, image, read_noise, excess_noise
    )
    return _named(parts, image, psf, ended, found, inverse(ended.information), excess_noise)


def maximum_likelihood_pair(
    image: Tensor,
    sigma_px: float | None = None,
    read_noise: float | Tensor | None = None,
    window: int = 13,
    margin_px: int = 0,
    psf: PSF | None = None,
    excess_noise: float = 1.0,
    saturation: float | None = None,
) -> Columns:
    """Fit the spot that stands out most, and a neighbour if there is one, by maximum likelihood.

    Args:
        image: see `least_squares`.
        sigma_px: the width of both.
        read_noise: see `maximum_likelihood`.
        window: see `least_squares`.
        margin_px: see `least_squares`.
        psf: see `least_squares`.
        excess_noise: see `least_squares`.
        saturation: see `least_squares`.

    Returns:
        See `maximum_likelihood`, of the spot closest to the pixel that stands out most; where the
        margin leaves less than a window to look at, of that closest to the image's centre.
    """
    psf = psf or GaussianPSF()
    image, parts = _look(image, window, margin_px, saturation, excess_noise)
    theta = _start(parts, sigma_px)
    starts = [_taken_away(parts, theta, psf), _taken_apart(parts, theta)]
    fit_width = _fits_width(psf, sigma_px)
    ended, found, added = _fit_likelihood(
        parts, starts, psf, fit_width, image, read_noise, excess_noise
    )
    # Both with the same noise: a neighbour that is not fitted looks like more of it.
    alone, alone_found = fit(parts, theta, psf, fit_width, added)
    two = found & (alone.loss - ended.loss > _TWO)
    height, width = image.shape[1:]
    middle = torch.tensor([width - 1, height - 1], device=image.device) / 2 - parts.corner
    few = max(height, width) - 2 * margin_px < window
    towards = middle if few else torch.full_like(middle, window // 2)
    first, second = ((ended.theta[:, k : k + 2] - towards).square().sum(dim=1) for k in (0, 3))
    order = torch.arange(ended.theta.shape[1], device=image.device)
    swapped = torch.cat([order[3:6], order[:3], order[6:]])
    order = torch.where((second < first)[:, None], swapped, order)
    free = order[:, : ended.ascent.shape[1]]
    covariance = inverse(ended.information)
    covariance = covariance.gather(1, free[:, :, None].expand_as(covariance))
    covariance = covariance.gather(2, free[:, None, :].expand_as(covariance))
    ended = ended._replace(theta=ended.theta.gather(1, order))
    pair = _named(parts, image, psf, ended, found, covariance, excess_noise)
    single = inverse(alone.information)
    single_named = _named(parts, image, psf, alone, alone_found, single, excess_noise)
    return {name: torch.where(two, column, single_named[name]) for name, column in pair.items()}


def _look(
    image: Tensor, window: int, margin_px: int, saturation: float | None, excess_noise: float
) -> tuple[Tensor, Windows]:
    """Cut windows in which light has the variance of its mean; see `_named`, too."""
    if not 1 <= excess_noise < math.inf:
        raise ValueError(f"excess_noise must be at least 1, got {excess_noise}")
    image, parts = brightest(image, window, margin_px, saturation)
    return image, parts._replace(image=parts.image / excess_noise)


def _fits_width(psf: PSF, sigma_px: float | None) -> bool:
    if sigma_px is not None and not (psf.has_width and 0 < sigma_px < math.inf):
        raise ValueError(
            f"sigma_px must be a positive number of px, of a psf that has a width; got {sigma_px}"
        )
    return psf.has_width and sigma_px is None


def _fit_likelihood(
    parts: Windows,
    starts: list[Tensor],
    psf: PSF,
    fit_width: bool,
    image: Tensor,
    read_noise: float | Tensor | None,
    excess_noise: float,
) -> tuple[Point, Tensor, Tensor]:
    """Fit from each start, go on from the best.

    Returns:
        Where the fit ended, whether it found a spot, and the variance beside shot noise.
    """
    if read_noise is None:
        added = noise_at_the_border(parts)
    elif isinstance(read_noise, Tensor):
        if read_noise.shape != image.shape[1:] or not (read_noise >= 0).all():
            raise ValueError(
                f"a map of read noise must hold electrons for images of {tuple(image.shape[1:])} px"
            )
        noise = read_noise.to(image).expand_as(image) / excess_noise
        at = parts.corner + parts.image.shape[-1] // 2
        added = windows(noise, at, parts.image.shape[-1]).image.square()
    elif 0 <= read_noise < math.inf:
        added = torch.full_like(parts.image[:, :1, :1], (read_noise / excess_noise) ** 2)
    else:
        raise ValueError(f"read_noise must be a number of electrons, got {read_noise}")
    tolerance = 1.0 if read_noise is None else 0.03  # where another fit follows, near is enough
    ended, found = fit(parts, starts[0], psf, fit_width, added, tolerance)
    for start in starts[1:]:
        other, other_found = fit(parts, start, psf, fit_width, added, tolerance)
        better = other.loss < ended.loss
        ended, found = other.where(better, ended), torch.where(better, other_found, found)
    if read_noise is None:
        expected = spots_of(psf, ended.theta, parts.image.shape[-1]).expected
        added = excess_variance(parts, expected, ended.ascent.shape[1], added)
        ended, found = fit(parts, ended.theta, psf, fit_width, added)
    return ended, found, added


def _start(parts: Windows, sigma_px: float | None) -> Tensor:
    """Guess theta of one spot from the window's border, its middle and its sum: (B, 5)."""
    side = parts.image.shape[-1]
    positions = all_positions((side, side)).to(parts.image)
    away = (positions - side // 2).abs().amax(dim=1)
    seen = parts.seen.flatten(1)
    border = seen & (away == side // 2)
    count = border.sum(dim=1).clamp(min=1)
    background = ((parts.image.flatten(1) * border).sum(dim=1) / count).clamp(min=0.1)
    above = (parts.image.flatten(1) - background[:, None]) * seen
    middle = (above * (away <= 2)).clamp(min=0)
    total = middle.sum(dim=1, keepdim=True)
    xy = torch.where(total > 0, middle @ positions / total.clamp(min=1e-6), side // 2)
    photons = (above * (away <= 4)).sum(dim=1).clamp(min=1)
    # Of a Gaussian in the middle, the innermost 3x3 pixels hold erf(1.5 / (sigma sqrt(2)))².
    share = ((above * (away <= 1)).sum(dim=1) / photons).clamp(0.1, 0.98)
    sigma = 1.5 / (math.sqrt(2) * torch.erfinv(share.sqrt()))
    if sigma_px is not None:
        sigma = torch.full_like(sigma, sigma_px)
    return torch.cat([xy, torch.stack([photons, background, sigma], dim=1)], dim=1)


def _taken_away(parts: Windows, theta: Tensor, psf: PSF) -> Tensor:
    """Guess theta of two spots: the second is what stands out once the first is taken away."""
    side = parts.image.shape[-1]
    share = psf.share(theta[:, :2], theta[:, 4], (side, side))
    above = torch.where(parts.seen, parts.image - theta[:, 3, None, None], torch.nan)
    middle = slice(side // 2 - 1, side // 2 + 2)
    seen_light, seen_share = (
        torch.where(parts.seen, one, 0)[:, middle, middle].sum(dim=(1, 2)) for one in (above, share)
    )
    photons = (seen_light / seen_share.clamp(min=1e-3)).clamp(min=1)
    rest = above - photons[:, None, None] * share
    second = find(rest)
    light = windows(rest, second, 3).image.sum(dim=(1, 2)).clamp(min=1)
    first = torch.cat([theta[:, :2], photons[:, None]], dim=1)
    return torch.cat([first, second.to(theta), light[:, None], theta[:, 3:]], dim=1)


def _taken_apart(parts: Windows, theta: Tensor) -> Tensor:
    """Guess theta of two spots that have grown together, along the longer axis of their light."""
    side = parts.image.shape[-1]
    positions = all_positions((side, side)).to(theta)
    near = (positions - side // 2).abs().amax(dim=1) <= 4
    light = ((parts.image - theta[:, 3, None, None]) * parts.seen).flatten(1) * near
    light = light.clamp(min=0)
    light = light / light.sum(dim=1, keepdim=True).clamp(min=1e-6)
    centre = light @ positions
    offset = positions - centre[:, None]
    moments = (light[:, :, None] * offset).mT @ offset
    spread, axes = torch.linalg.eigh(moments)
    half = (spread[:, 1:] - spread[:, :1]).clamp(min=0.25).sqrt() * axes[:, :, 1]
    photons = theta[:, 2:3] / 2
    return torch.cat([centre + half, photons, centre - half, photons, theta[:, 3:]], dim=1)


def _named(
    parts: Windows,
    image: Tensor,
    psf: PSF,
    ended: Point,
    found: Tensor,
    covariance: Tensor,
    excess_noise: float,
) -> Columns:
    """Name what was fitted. What has no light, or no place within the window, is no spot."""
    side = parts.image.shape[-1]
    variance_x, variance_y = covariance[:, 0, 0], covariance[:, 1, 1]
    for variance in (variance_x, variance_y):
        found = found & (variance > 0) & (variance < (side / 2) ** 2)
    found = found & (ended.theta[:, 2] > 2 * LEAST_PHOTONS)
    expected = spots_of(psf, ended.theta, side).expected
    return answers(
        parts,
        image,
        torch.where(found[:, None], ended.theta[:, :2], torch.nan),
        {"crowded": crowded(parts, expected, ended.ascent.shape[1])},
        sd_x=variance_x.sqrt(),
        sd_y=variance_y.sqrt(),
        corr_xy=covariance[:, 0, 1] / (variance_x * variance_y).sqrt(),
        photons=ended.theta[:, 2] * excess_noise,
        background=ended.theta[:, -2] * excess_noise,
        **({"sigma_px": ended.theta[:, -1]} if psf.has_width else {}),
    )
