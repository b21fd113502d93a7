"""Point-spread functions: how the light of a point is spread over pixels, and how that changes.

`expected_image` is the one place where a spot's expected image and its derivatives come from: the
simulation, the bound and the fits all use it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from scipy.ndimage import convolve1d, spline_filter
from torch import Tensor

from pixel_spotter.arguments import check_arguments
from pixel_spotter.coordinates import Size
from pixel_spotter.simulation.maps import read_map


class PSF(Protocol):
    """A point-spread function, of which each pixel holds the integral."""

    has_width: bool
    """Whether ``sigma_px`` says how wide it is; one that was measured is as wide as it is."""

    def share(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
        """Return the share of the light in each pixel, (..., H, W), from what a call takes."""
        ...

    def __call__(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
        """Return the share of the light in each pixel, and its derivatives.

        Args:
            xy_px: where the points are, (..., 2), anywhere, also outside the image.
            sigma_px: how wide they are, (...).
            size: height and width of the image, px.

        Returns:
            (..., 4, H, W): the share, and its derivatives by x, y and sigma_px, 1/px.
        """
        ...


class GaussianPSF:
    """A Gaussian, integrated over each pixel by its cumulative function (Smith et al. 2010).

    Args:
        ratio: sigma along y over sigma along x; ``sigma_px`` is their geometric mean.

    Raises:
        ValueError: if the ratio is not between 0.01 and 100.
    """

    has_width = True

    def __init__(self, ratio: float = 1.0) -> None:
        if not 0.01 <= ratio <= 100:
            raise ValueError(f"psf.ratio must lie between 0.01 and 100, got {ratio}")
        self.ratio = ratio

    def along(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Return the two factors of the share, along x (..., 3, W) and along y (..., 3, H).

        Each with its derivatives by its coordinate and by sigma_px.
        """
        root = math.sqrt(self.ratio)
        x, by_x, wider_x = _integrated_gaussian(xy_px[..., 0], sigma_px / root, size[1])
        y, by_y, wider_y = _integrated_gaussian(xy_px[..., 1], sigma_px * root, size[0])
        along_x = torch.stack([x, by_x, wider_x / root], dim=-2)
        return along_x, torch.stack([y, by_y, wider_y * root], dim=-2)

    def share(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
        """See `PSF`."""
        along_x, along_y = self.along(xy_px, sigma_px, size)
        return along_y[..., 0, :, None] * along_x[..., 0, None, :]

    def __call__(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
        """See `PSF`."""
        (x, by_x, wider_x), (y, by_y, wider_y) = (
            part.unbind(dim=-2) for part in self.along(xy_px, sigma_px, size)
        )
        columns = torch.stack([x, by_x, x, x, wider_x], dim=-2)
        rows = torch.stack([y, y, by_y, wider_y, y], dim=-2)
        share = rows[..., :, None] * columns[..., None, :]
        share[..., 3, :, :] += share[..., 4, :, :]
        return share[..., :4, :, :]


def _integrated_gaussian(centre: Tensor, sigma: Tensor, count: int) -> tuple[Tensor, ...]:
    """Integrate 1-D Gaussians over pixels: value, d/dcentre, d/dsigma, (..., count) each."""
    edges = torch.arange(count + 1, dtype=centre.dtype, device=centre.device) - 0.5
    sigma = sigma[..., None]
    u = (edges - centre[..., None]) / sigma
    density = torch.exp(-u.square() / 2) / (math.sqrt(2 * math.pi) * sigma)
    return (torch.erf(u / math.sqrt(2)) / 2).diff(), -density.diff(), -(u * density).diff()


_SPLINES = torch.tensor([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]]).double() / 6
"""Of a place t between two samples: (1, t, t², t³) times this are the cubic B-splines around it."""

_SLOPES = torch.tensor([[-3, 0, 3, 0], [6, -12, 6, 0], [-3, 9, -9, 3], [0, 0, 0, 0]]).double() / 6
"""Their derivatives by t, likewise."""


class MeasuredPSF:
    """A point-spread function that was measured, on a grid finer than the pixels.

    Between its samples it is interpolated by cubic B-splines, whose derivatives are continuous;
    outside the array it is 0, and nowhere less.

    Args:
        file: a ``.npy`` array (H, W), or the array itself: relative light per sample, none of it
            negative, with the point at the array's centre.
        oversampling: samples per pixel along each axis.

    Raises:
        ValueError: if the array cannot be used.
    """

    has_width = False

    def __init__(self, file: str | Tensor, oversampling: int) -> None:
        if type(oversampling) is not int or not 1 <= oversampling <= 100:
            raise ValueError(
                f"psf.oversampling must be a whole number from 1 to 100, got {oversampling}"
            )
        self.density = read_map(file, "psf.file")
        if not self.density.any():
            raise ValueError("psf.file holds no light")
        self.oversampling = oversampling
        # What a pixel around each sample would hold, with room for pixels that see only its edge.
        light = self.density.double().numpy()
        light = np.pad(light / light.sum(), oversampling + 3)
        pixel = np.ones(oversampling)
        if oversampling % 2 == 0:  # the samples at both ends lie half in the pixel
            pixel = np.array([0.5, *pixel[1:], 0.5])
        for axis in (0, 1):
            light = convolve1d(light, pixel, axis=axis, mode="constant")
        self.weights = torch.from_numpy(spline_filter(light, order=3, mode="mirror"))

    def middle_px(self) -> tuple[float, float]:
        """Return where the mean of its light lies, x and y, px from the array's centre.

        Of what is at least a twentieth of the most: noise far out would count most.
        """
        density = self.density.double()
        light = torch.where(density >= density.max() / 20, density, 0)
        x, y = (light.sum(dim=axis) for axis in (0, 1))
        places = (torch.arange(len(along)) - (len(along) - 1) / 2 for along in (x, y))
        x_px, y_px = (
            float((along * place).sum() / along.sum()) / self.oversampling
            for along, place in zip((x, y), places, strict=True)
        )
        return x_px, y_px

    def share(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
        """See `PSF`."""
        y, x = (self._along(axis, xy_px, size, _SPLINES) for axis in (0, 1))
        # Splines swing a little below 0 beside an array that ends abruptly; light does not.
        return (y @ self.weights.to(xy_px) @ x.mT).clamp(min=0)

    def __call__(self, xy_px: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
        """See `PSF`: the derivative by sigma_px is 0."""
        weights, slopes = self.weights.to(xy_px), -self.oversampling * _SLOPES
        y, x = (self._along(axis, xy_px, size, _SPLINES) for axis in (0, 1))
        by_y, by_x = (self._along(axis, xy_px, size, slopes) for axis in (0, 1))
        rows = y @ weights
        share = rows @ x.mT
        parts = [share, rows @ by_x.mT, by_y @ weights @ x.mT, torch.zeros_like(share)]
        return torch.where(share[..., None, :, :] > 0, torch.stack(parts, dim=-3), 0)

    def _along(self, axis: int, xy_px: Tensor, size: Size, splines: Tensor) -> Tensor:
        """Return what each weight counts for in each pixel along y, 0, or x, 1: (..., count, R).

        Four in a row are not 0: ``splines`` of where between two weights the pixel's centre lies.
        """
        samples = self.weights.shape[axis]
        middle = (samples - 1) / 2 - xy_px[..., 1 - axis] * self.oversampling
        first = middle.floor()
        t = (middle - first)[..., None]
        values = torch.cat([torch.ones_like(t), t, t**2, t**3], dim=-1) @ splines.to(t)
        pixels = torch.arange(size[axis], device=t.device) * self.oversampling
        four = torch.arange(-1, 3, device=t.device)
        taps = first.long()[..., None, None] + pixels[:, None] + four
        taps = taps.clamp(0, samples - 1)  # where the weights are 0
        empty = t.new_zeros(*taps.shape[:-1], samples)
        return empty.scatter_add(-1, taps, values[..., None, :].expand(taps.shape))


def expected_image(
    psf: PSF, spots: Tensor, background: Tensor, sigma_px: Tensor, size: Size
) -> tuple[Tensor, Tensor]:
    """Return the expected image of spots and its derivatives by all that they are made of.

    Args:
        psf: how their light is spread.
        spots: ``x``, ``y``, px, and photons of K spots in each image, (B, K, 3).
        background: photons per pixel, (B,).
        sigma_px: how wide the spots are, (B,).
        size: height and width of the image, px.

    Returns:
        Expected photons (B, H, W), and derivatives (B, 3 K + 2, H, W) by x, y and photons of each
        spot, background, and sigma_px.
    """
    xy, photons = spots[..., :2], spots[..., 2, None, None]
    share = psf(xy, sigma_px[:, None].expand(xy.shape[:-1]), size)
    value, by_x, by_y, widened = share.unbind(dim=-3)
    expected = (photons * value).sum(dim=1) + background[:, None, None]
    by_spot = torch.stack([photons * by_x, photons * by_y, value], dim=2).flatten(1, 2)
    by_width = (photons * widened).sum(dim=1, keepdim=True)
    return expected, torch.cat([by_spot, torch.ones_like(by_width), by_width], dim=1)


def light(psf: PSF, spots: Tensor, background: Tensor, sigma_px: Tensor, size: Size) -> Tensor:
    """Return the expected photons (B, H, W) of `expected_image` alone, from the same arguments."""
    share = psf.share(spots[..., :2], sigma_px[:, None].expand(spots.shape[:-1]), size)
    return (spots[..., 2, None, None] * share).sum(dim=1) + background[:, None, None]


def make_psf(name: str, **settings: Any) -> PSF:
    """Return the PSF that a config names: ``gaussian`` or ``measured``, with its own settings."""
    kinds: dict[str, Callable[..., PSF]] = {"gaussian": GaussianPSF, "measured": MeasuredPSF}
    if name not in kinds:
        raise ValueError(f"psf.name must be one of {', '.join(kinds)}, got {name!r}")
    check_arguments(kinds[name], settings, "psf")
    return kinds[name](**settings)


def kept_psf(settings: Mapping[str, Any], psf: PSF) -> dict[str, Any]:
    """Return the settings of a PSF with what its file holds: a checkpoint needs no other file."""
    return {**settings, **({"file": psf.density} if isinstance(psf, MeasuredPSF) else {})}
