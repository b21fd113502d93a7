"""Fits of spots by damped Fisher scoring, a batch at a time, for any point-spread function."""

from typing import NamedTuple

import torch
from torch import Tensor

from pixel_spotter.estimators.finder import Windows
from pixel_spotter.estimators.sums import spots_of
from pixel_spotter.simulation.psf import PSF

_AT_A_TIME = 1024
"""So many windows' sums stay in a processor's cache."""

LEAST_PHOTONS, _LEAST_BACKGROUND = 0.1, 1e-3
_WIDTHS_PX = (0.3, 6.0)

LEAST_SHARE = 0.02
"""Of the light expected, the variance is no less: where a background was made even, what is added
for that is negative, and would leave none where it was made even badly, as at a sharp edge."""


class Point(NamedTuple):
    """What there is to know about theta.

    Args:
        theta: x, y, px, and photons of each of K spots, background, sigma_px: (B, 3 K + 2).
        loss: half the deviance of likelihoods, half the sum of squares: (B,).
        ascent: minus its gradient by the P free parameters, (B, P).
        information: about them, (B, P, P).
    """

    theta: Tensor
    loss: Tensor
    ascent: Tensor
    information: Tensor

    def rows(self, chosen: Tensor) -> "Point":
        """Return some of them, by their numbers."""
        return Point(*(part[chosen] for part in self))

    def where(self, chosen: Tensor, other: "Point") -> "Point":
        """Return these where chosen, (B,) bool, the others elsewhere."""
        return Point(
            *(
                torch.where(chosen.view(-1, *[1] * (own.dim() - 1)), own, its)
                for own, its in zip(self, other, strict=True)
            )
        )


def fit(
    parts: Windows,
    theta: Tensor,
    psf: PSF,
    fit_width: bool,
    added: Tensor | None,
    tolerance: float = 0.03,
    iterations: int = 30,
) -> tuple[Point, Tensor]:
    """Fit spots to windows, with the damping of Levenberg and Marquardt.

    Args:
        parts: the windows, photons.
        theta: where to start, as in `Point`, in pixels of the window.
        psf: how light is spread.
        fit_width: whether sigma_px is free.
        added: variance beside that of shot noise, photons², which broadcasts with the windows, for
            the likelihood of Huang et al. 2013 (doi 10.1038/nmeth.2488); None: least squares.
        tolerance: a fit ends with a step whose length, squared and in standard deviations, is
            below this; what is left is far smaller.
        iterations: so many at most.

    Returns:
        Where the fit ended, and whether it converged with a width that is not at its limits: (B,).
    """
    parts = parts._replace(seen=parts.seen.to(theta.dtype))  # numbers are multiplied faster
    ended = []
    at_a_time = _AT_A_TIME if theta.device.type == "cpu" else max(1, len(theta))
    for rows in torch.split(torch.arange(len(theta), device=theta.device), at_a_time):
        there = added if added is None or len(added) == 1 else added[rows]
        ended.append(
            _fit(parts.rows(rows), theta[rows], psf, fit_width, there, tolerance, iterations)
        )
    points, found = zip(*ended, strict=True)
    return Point(*(torch.cat(part) for part in zip(*points, strict=True))), torch.cat(found)


def _fit(
    parts: Windows,
    theta: Tensor,
    psf: PSF,
    fit_width: bool,
    added: Tensor | None,
    tolerance: float,
    iterations: int,
) -> tuple[Point, Tensor]:
    free = theta.shape[1] - (not fit_width)
    if added is not None:
        added = added.expand(len(theta), *added.shape[1:])
    point = evaluate(parts, _inside(theta, parts, fit_width), psf, free, added)
    ended, converged = point, torch.zeros_like(point.loss, dtype=torch.bool)
    damping, going = torch.full_like(point.loss, 1e-3), ~converged
    rows = torch.arange(len(theta), device=theta.device)
    for _ in range(iterations):
        step = _step(point, damping)
        trial = torch.cat([point.theta[:, :free] + step, point.theta[:, free:]], dim=1)
        tried = evaluate(parts, _inside(trial, parts, fit_width), psf, free, added)
        # A likelihood's own scale is 1; that of squares is the variance of the residuals.
        scale: Tensor | float = 1.0
        if added is None:
            pixels = parts.seen.sum(dim=(1, 2)).clamp(min=1)
            scale = (2 * point.loss / pixels).clamp(min=1e-12)
        better = tried.loss <= point.loss + 1e-3 * scale + 1e-6 * point.loss
        moved = tried.theta[:, :free] - point.theta[:, :free]
        close = better & ((moved * point.ascent).sum(dim=1) < tolerance * scale)
        point = tried.where(better & going, point)
        damping = torch.where(better, damping / 10, damping * 10)
        converged[rows] |= close & going
        going = going & ~close & (damping < 1e6)
        left = int(going.sum())
        if left == 0 or left < len(rows) / 2:  # go on with fewer
            ended = _with(ended, rows, point)
            if left == 0:
                break
            rows, damping, parts = rows[going], damping[going], parts.rows(going)
            added = None if added is None else added[going]
            point, going = point.rows(going), going[going]
    else:
        ended = _with(ended, rows, point)
    if fit_width:
        narrowest, widest = _WIDTHS_PX
        converged &= (ended.theta[:, -1] > narrowest) & (ended.theta[:, -1] < widest)
    return ended, converged


def _with(ended: Point, rows: Tensor, point: Point) -> Point:
    """Return ended with these rows."""
    if len(rows) == len(ended.theta):
        return point
    return Point(
        *(all_rows.index_copy(0, rows, now) for all_rows, now in zip(ended, point, strict=True))
    )


def evaluate(parts: Windows, theta: Tensor, psf: PSF, free: int, added: Tensor | None) -> Point:
    """Return loss, gradient and information at theta; see `fit`."""
    spots = spots_of(psf, theta, parts.image.shape[-1])
    expected = spots.expected if parts.light is None else spots.expected + parts.light
    if added is None:
        weight = parts.seen
        residual = (parts.image - expected) * weight
        loss = residual.square().sum(dim=(1, 2)) / 2
    else:
        variance = torch.maximum(expected + added, LEAST_SHARE * expected)
        ratio = (parts.image + added).clamp(min=1e-6) / variance
        weight = parts.seen / variance
        residual = (ratio - 1) * parts.seen
        deviance = (1 - ratio + ratio * ratio.log()) * variance
        loss = (deviance * parts.seen).sum(dim=(1, 2))
    ascent, information = spots.sums(weight, residual)
    return Point(theta, loss, ascent[:, :free], information[:, :free, :free])


def _step(point: Point, damping: Tensor) -> Tensor:
    """Solve (information + damping of its diagonal) step = ascent, (B, P)."""
    diagonal = point.information.diagonal(dim1=1, dim2=2)
    damped = point.information + torch.diag_embed(damping[:, None] * diagonal + 1e-12)
    root, _ = torch.linalg.cholesky_ex(damped)
    step = torch.cholesky_solve(point.ascent[..., None], root)[..., 0]
    return step.nan_to_num(0, 0, 0)


def _inside(theta: Tensor, parts: Windows, fit_width: bool) -> Tensor:
    """Keep theta where there is light, and spots near their window."""
    side = parts.image.shape[-1]
    spots = torch.unflatten(theta[:, :-2], 1, (theta.shape[1] // 3, 3))
    xy = spots[..., :2].clamp(-1.5, side + 0.5)
    photons = spots[..., 2:].clamp(min=LEAST_PHOTONS)
    background = theta[:, -2:-1].clamp(min=_LEAST_BACKGROUND)
    sigma = theta[:, -1:].clamp(*_WIDTHS_PX) if fit_width else theta[:, -1:]
    return torch.cat([torch.cat([xy, photons], dim=2).flatten(1), background, sigma], dim=1)
