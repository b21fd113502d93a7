"""The sums over pixels that a fit needs: of spots of any shape, and fast of one Gaussian.

Both classes know the expected image, and turn what a loss says of each pixel into its gradient by
theta and the information about theta.
"""

import torch
from torch import Tensor

from pixel_spotter.simulation.psf import PSF, GaussianPSF, expected_image

# Places in `_features`: 1, and the value V, by its centre D, and by the width S, and products.
_1, _V, _D, _S, _VV, _VD, _VS, _DD, _DS, _SS = range(10)


class Spots:
    """Any number of spots, with any point-spread function.

    Args:
        psf: how light is spread.
        theta: x, y, px, and photons of each of K spots, background, sigma_px: (B, 3 K + 2).
        side: of the windows, px.
    """

    def __init__(self, psf: PSF, theta: Tensor, side: int) -> None:
        spots = torch.unflatten(theta[:, :-2], 1, (theta.shape[1] // 3, 3))
        self.expected, derivatives = expected_image(
            psf, spots, theta[:, -2], theta[:, -1], (side, side)
        )
        self.derivatives = derivatives.flatten(2)

    def sums(self, weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Sum up residuals times derivatives, and weights times products of two derivatives.

        Args:
            weight: (B, w, w).
            residual: (B, w, w).

        Returns:
            (B, P) and (B, P, P), of P parameters.
        """
        by_theta = self.derivatives
        gradient = (by_theta @ residual.flatten(1)[..., None])[..., 0]
        return gradient, (by_theta * weight.flatten(1)[:, None]) @ by_theta.mT


class OneGaussian:
    """One Gaussian, whose derivatives are products of what is along x and along y.

    So are their products: each sum over pixels is a sum over rows of sums over columns.

    Args:
        psf: a Gaussian.
        theta: x, y, px, photons, background, sigma_px: (B, 5).
        side: of the windows, px.
    """

    def __init__(self, psf: GaussianPSF, theta: Tensor, side: int) -> None:
        along_x, along_y = psf.along(theta[:, :2], theta[:, 4], (side, side))
        self.x, self.y, self.photons = _features(along_x), _features(along_y), theta[:, 2]
        light = theta[:, 2, None, None] * along_y[:, 0, :, None]
        self.expected = light * along_x[:, :1] + theta[:, 3, None, None]

    def sums(self, weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """See `Spots.sums`."""
        n = self.photons
        first = self.y[:, :_VV] @ residual @ self.x[:, :_VV].mT
        gradient = torch.stack(
            [
                n * first[:, _V, _D],
                n * first[:, _D, _V],
                first[:, _V, _V],
                first[:, _1, _1],
                n * (first[:, _V, _S] + first[:, _S, _V]),
            ],
            dim=1,
        )
        two = self.y @ weight @ self.x.mT
        x_x, x_y, y_y = two[:, _VV, _DD], two[:, _VD, _VD], two[:, _DD, _VV]
        x_photons, y_photons, twice = two[:, _VV, _VD], two[:, _VD, _VV], two[:, _VV, _VV]
        x_back, y_back, photons_back = two[:, _V, _D], two[:, _D, _V], two[:, _V, _V]
        x_width = two[:, _VV, _DS] + two[:, _VS, _VD]
        y_width = two[:, _VD, _VS] + two[:, _DS, _VV]
        photons_width = two[:, _VV, _VS] + two[:, _VS, _VV]
        back_width = two[:, _V, _S] + two[:, _S, _V]
        widths = two[:, _VV, _SS] + 2 * two[:, _VS, _VS] + two[:, _SS, _VV]
        m = n * n
        upper = [
            [m * x_x, m * x_y, n * x_photons, n * x_back, m * x_width],
            [m * y_y, n * y_photons, n * y_back, m * y_width],
            [twice, photons_back, n * photons_width],
            [two[:, _1, _1], n * back_width],
            [m * widths],
        ]
        return gradient, torch.stack(
            [upper[min(i, j)][abs(i - j)] for i in range(5) for j in range(5)], dim=1
        ).view(-1, 5, 5)


def spots_of(psf: PSF, theta: Tensor, side: int) -> Spots | OneGaussian:
    """Return the sums of spots theta, in windows, the fastest way there is."""
    if theta.shape[1] == 5 and isinstance(psf, GaussianPSF):
        return OneGaussian(psf, theta, side)
    return Spots(psf, theta, side)


def _features(along: Tensor) -> Tensor:
    """Return what stands at the places above, (B, 10, w), of the three that `along` has."""
    value, slope = along[:, :1], along[:, 1:2]
    products = [value * along, slope * along[:, 1:], along[:, 2:].square()]
    return torch.cat([torch.ones_like(value), along, *products], dim=1)
