"""Fits of spots by damped Fisher scoring, a batch at a time, for any point-spread function."""

from typing import NamedTuple

import torch
from torch import Tensor

from pixel_spotter.estimators.finder import Windows
from pixel_spotter.simulation.psf import PSF, expected_image

_ITERATIONS = 30
_CONVERGED = 1e-3
"""A fit ends with a step whose length, squared and in standard deviations, is below this."""

_LEAST_PHOTONS, _LEAST_BACKGROUND = 0.1, 1e-3
_WIDTHS_PX = (0.3, 6.0)


class Point(NamedTuple):
    """What there is to know about theta.

    Args:
        theta: x, y, px, and photons of each of K spots, background, sigma_px: (B, 3 K + 2).
        loss: half the deviance of likelihoods, half the sum of squares: (B,).
        ascent: minus its gradient by the P free parameters, (B, P).
        information: about them, (B, P, P).
        expected: photons, (B, w, w).
    """

    theta: Tensor
    loss: Tensor
    ascent: Tensor
    information: Tensor
    expected: Tensor

    def where(self, chosen: Tensor, other: "Point") -> "Point":
        """Return these where chosen, (B,) bool, the others elsewhere."""
        return Point(
            *(
                torch.where(chosen.view(-1, *[1] * (own.dim() - 1)), own, its)
                for own, its in zip(self, other, strict=True)
            )
        )


def fit(
    parts: Windows, theta: Tensor, psf: PSF, fit_width: bool, added: Tensor | None
) -> tuple[Point, Tensor]:
    """Fit spots to windows, with the damping of Levenberg and Marquardt.

    Args:
        parts: the windows, photons.
        theta: where to start, as in `Point`, in pixels of the window.
        psf: how light is spread.
        fit_width: whether sigma_px is free.
        added: variance beside that of shot noise, photons², which broadcasts with the windows, for
            the likelihood of Huang et al. 2013 (doi 10.1038/nmeth.2488); None: least squares.

    Returns:
        Where the fit ended, and whether it converged with a width that is not at its limits: (B,).
    """
    free = theta.shape[1] - (not fit_width)
    if added is not None:
        added = added.expand(len(theta), *added.shape[1:])
    rows = torch.arange(len(theta), device=theta.device)
    point = evaluate(parts, _inside(theta, parts), psf, free, added)
    ended = Point(*(value.clone() for value in point))
    damping = torch.full_like(point.loss, 1e-3)
    converged = torch.zeros_like(point.loss, dtype=torch.bool)
    pixels = parts.seen.sum(dim=(1, 2)).clamp(min=1)
    for _ in range(_ITERATIONS):
        step = _step(point, damping)
        trial = torch.cat([point.theta[:, :free] + step, point.theta[:, free:]], dim=1)
        some = parts.rows(rows)
        there = None if added is None else added[rows]
        tried = evaluate(some, _inside(trial, some), psf, free, there)
        # A likelihood's own scale is 1; that of squares is the variance of the residuals.
        scale = 1 if added is not None else (2 * point.loss / pixels[rows]).clamp(min=1e-12)
        better = tried.loss <= point.loss + 1e-3 * scale + 1e-6 * point.loss
        moved = tried.theta[:, :free] - point.theta[:, :free]
        close = (moved * point.ascent).sum(dim=1) < _CONVERGED * scale
        point = tried.where(better, point)
        for all_rows, now in zip(ended, point, strict=True):
            all_rows[rows] = now
        damping = torch.where(better, damping / 10, damping * 10)
        converged[rows] = better & close
        going = ~(better & close) & (damping < 1e6)
        rows, damping = rows[going], damping[going]
        point = Point(*(value[going] for value in point))
        if not len(rows):
            break
    narrowest, widest = _WIDTHS_PX
    return ended, converged & (ended.theta[:, -1] > narrowest) & (ended.theta[:, -1] < widest)


def evaluate(parts: Windows, theta: Tensor, psf: PSF, free: int, added: Tensor | None) -> Point:
    """Return loss, gradient and information at theta; see `fit`."""
    spots = theta[:, :-2].reshape(len(theta), -1, 3)
    expected, derivatives = expected_image(
        psf, spots, theta[:, -2], theta[:, -1], (parts.image.shape[1], parts.image.shape[2])
    )
    rows = derivatives[:, :free].flatten(2)
    if added is None:
        weight = parts.seen.to(theta.dtype)
        residual = (parts.image - expected) * weight
        loss = residual.square().flatten(1).sum(dim=1) / 2
    else:
        variance = expected + added
        ratio = (parts.image + added).clamp(min=1e-6) / variance
        weight = parts.seen / variance
        residual = (ratio - 1) * parts.seen
        deviance = variance * (1 - ratio + ratio * ratio.log()) * parts.seen
        loss = deviance.flatten(1).sum(dim=1)
    ascent = (rows @ residual.flatten(1)[..., None])[..., 0]
    information = (rows * weight.flatten(1)[:, None]) @ rows.mT
    return Point(theta, loss, ascent, information, expected)


def _step(point: Point, damping: Tensor) -> Tensor:
    """Solve (information + damping of its diagonal) step = ascent, (B, P)."""
    diagonal = point.information.diagonal(dim1=1, dim2=2)
    damped = point.information + torch.diag_embed(damping[:, None] * diagonal + 1e-12)
    root, _ = torch.linalg.cholesky_ex(damped)
    step = torch.cholesky_solve(point.ascent[..., None], root)[..., 0]
    return step.nan_to_num(0, 0, 0)


def _inside(theta: Tensor, parts: Windows) -> Tensor:
    """Keep theta where there is light, and spots near their window."""
    side = parts.image.shape[-1]
    spots = theta[:, :-2].reshape(len(theta), -1, 3)
    xy = spots[..., :2].clamp(-1.5, side + 0.5)
    photons = spots[..., 2:].clamp(min=_LEAST_PHOTONS)
    background = theta[:, -2:-1].clamp(min=_LEAST_BACKGROUND)
    sigma = theta[:, -1:].clamp(*_WIDTHS_PX)
    return torch.cat([torch.cat([xy, photons], dim=2).flatten(1), background, sigma], dim=1)
