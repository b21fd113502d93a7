"""Spots fitted with what overlaps them, beside the light of all others, and tested."""

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pixel_spotter.coordinates import all_positions, from_index, pixel_of, sides_px
from pixel_spotter.estimators.detection import AT_A_TIME, deviances, is_uneven, unevenness
from pixel_spotter.estimators.finder import Windows, windows
from pixel_spotter.estimators.residuals import misfit
from pixel_spotter.estimators.scoring import Point, fit
from pixel_spotter.estimators.spots import Spots
from pixel_spotter.estimators.sums import spots_of
from pixel_spotter.simulation.bound import inverse
from pixel_spotter.simulation.psf import PSF, MeasuredPSF

MISMATCH = 0.05
"""How much of a spot's light in a pixel may be its shape's, not another spot's."""

_TOGETHER = 3
"""So many neighbours at most are fitted along with a spot; others' light is taken as it is."""

_BEYOND = 1.5
"""Spots may lie so far beyond the centres of the frame's outermost pixels, px."""

CLEAR = 3.0
"""A spot so many times above the threshold is one, however the others fit without it."""

_APART = 4.5
"""Spots so many of their widths apart do not change each other's positions."""

_FINEST_PX = 13
"""The background is taken in blocks no smaller, px: what is finer cannot be told from spots."""

_UNTOUCHED = 0.3
"""What a spot adds to a pixel, in deviations of its noise, for it to be the background's still."""

_SLIGHT = 0.1
"""So many deviations of a pixel's noise of background, more or less, change no fit."""


class Field:
    """Frames, the light of the spots that are known in them, and fits of these.

    Args:
        image: (F, H, W), photons; pixels without a value are nan.
        read_variance: photons², a number or a map (H, W).
        psf: how light is spread.
        sigma_px: the spots' width.
        fit_width: whether each may have another.
        level: how far a spot stands out at least.
    """

    def __init__(
        self,
        image: Tensor,
        read_variance: float | Tensor,
        psf: PSF,
        sigma_px: float,
        fit_width: bool,
        level: float,
    ) -> None:
        # A background that was made even has the variance that it had.
        self.uneven = unevenness(image)
        self.image = image - self.uneven
        self.light = torch.zeros(image.shape).to(image)  # of the spots that are found so far
        self.read = torch.as_tensor(read_variance).to(image) + self.uneven
        self.psf, self.sigma, self.fit_width, self.level = psf, sigma_px, fit_width, level
        self.size = image.shape[1], image.shape[2]
        least = min(self.size)
        self.side = min(2 * max(5, round(5.5 * sigma_px)) + 1, least - 1 + least % 2)
        # What lies around a Gaussian's window is nothing; rings of others are taken away as well.
        self.shown = self.side
        if isinstance(psf, MeasuredPSF):
            self.shown = max(self.side, 2 * (max(psf.density.shape) // (2 * psf.oversampling)) + 1)

    def shine(self, spots: Spots, times: float = 1) -> None:
        """Add spots' light, so many times, to what is there."""
        (height, width), side = self.size, self.shown
        corner = (spots.theta[:, :2] + 0.5).floor().long() - side // 2
        share = self.psf.share(spots.theta[:, :2] - corner, spots.theta[:, 4], (side, side))
        x, y = (corner[:, axis, None] + torch.arange(side, device=corner.device) for axis in (0, 1))
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        y = spots.frame[:, None] * height + y.clamp(0, height - 1)
        place = y[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
        light = share * inside * (times * spots.theta[:, 2, None, None])
        self.light.view(-1).scatter_add_(0, place.flatten(), light.flatten())

    def without(self, spots: Spots, gone: Tensor) -> Spots:
        """Leave out some spots, (N,) bool, and their light."""
        self.shine(spots.rows(gone), -1)
        return spots.rows(~gone)

    def alone(self, spots: Spots, pixel: Tensor, side: int) -> Tensor:
        """Return a window around each spot's pixel without the others' light, (N, side, side).

        What was not recorded, or is hot, is nan.
        """
        own = self.psf.share(
            spots.theta[:, :2] - pixel + side // 2, spots.theta[:, 4], (side, side)
        )
        others = windows(self.light, pixel, side, of=spots.frame).image
        others = (others - own * spots.theta[:, 2, None, None]).clamp(min=0)
        parts = windows(self.image + self.uneven, pixel, side, of=spots.frame)
        return torch.where(parts.seen, parts.image - others, torch.nan)

    def even_out(self, spots: Spots) -> tuple[Spots, Tensor, Tensor]:
        """Take the background again, finer, without the spots found so far; where it differs.

        Returns:
            The spots on it, the frames that have changed, (C,), int64, and which spots are to be
            fitted again, (N,) bool: what is flat around a spot does not matter to it.
        """
        before = self.uneven.clone()
        block = max(_FINEST_PX, self.side)
        found = []
        frames = torch.arange(len(self.image), device=self.image.device)
        for rows in torch.split(frames, AT_A_TIME):
            rest, light = self.image[rows] - self.light[rows], self.light[rows]
            noise = rest.flatten(1).nanmean(dim=1).clamp(min=0)[:, None, None] + self.read[rows]
            rest = torch.where(light.square() < _UNTOUCHED**2 * noise, rest, torch.nan)
            differs = is_uneven(rest, block)
            rows = rows[differs]
            whole = rest[differs] + self.uneven[rows]
            uneven = unevenness(whole)
            more = uneven + unevenness(whole - uneven, block) - self.uneven[rows]
            self.image[rows] -= more
            self.uneven[rows] += more
            self.read[rows] += more
            found.append(rows)
        x, y = pixel_of(spots.theta[:, :2], self.size).unbind(dim=1)
        change = (self.uneven - before)[spots.frame, y, x]
        theta = spots.theta.clone()
        theta[:, 3] = (theta[:, 3] - change).clamp(min=0.01)
        noise = (theta[:, 3] + self.read[spots.frame, y, x]).clamp(min=0).sqrt()
        return spots._replace(theta=theta), torch.cat(found), change.abs() > _SLIGHT * noise

    def start(self, frame: Tensor, xy: Tensor) -> Spots:
        """Guess spots around pixels, (N, 2), from what the light of others leaves."""
        parts = windows(self.image - self.light, xy, self.side, of=frame)
        border = parts.seen.clone()
        border[:, 2:-2, 2:-2] = False
        count = border.sum(dim=(1, 2)).clamp(min=1)
        background = ((parts.image * border).sum(dim=(1, 2)) / count).clamp(min=0.01)
        spot = torch.full_like(background, self.side // 2)
        sigma = torch.full_like(background, self.sigma)
        share = self.psf.share(torch.stack([spot, spot], dim=1), sigma, (self.side, self.side))
        share = share * parts.seen
        above = ((parts.image - background[:, None, None]) * share).sum(dim=(1, 2))
        photons = (above / share.square().sum(dim=(1, 2))).clamp(min=1)
        spots = self.none(len(frame))
        rest = torch.stack([photons, background, sigma], dim=1)
        return spots._replace(frame=frame, theta=torch.cat([xy.to(rest), rest], dim=1))

    def apart(self, spots: Spots, chosen: Tensor) -> Spots:
        """Guess two spots for each chosen one, along the longer axis of its light."""
        chosen_spots, side = spots.rows(chosen), self.side
        frame, theta = chosen_spots.frame, chosen_spots.theta
        centre = (theta[:, :2] + 0.5).floor().long()
        own = self.psf.share(theta[:, :2] - centre + side // 2, theta[:, 4], (side, side))
        parts = windows(self.image - self.light, centre, side, of=frame)
        left = parts.image - theta[:, 3, None, None] + own * theta[:, 2, None, None]
        left = (left * parts.seen).flatten(1)
        place = all_positions((side, side)).to(left) - side // 2
        left = left * (place.abs().amax(dim=1) <= max(2, round(3.5 * self.sigma)))
        weight = left.clamp(min=0) / left.clamp(min=0).sum(dim=1, keepdim=True).clamp(min=1e-6)
        middle = weight @ place
        offset = place - middle[:, None]
        spread, axes = torch.linalg.eigh((weight[:, :, None] * offset).mT @ offset)
        half = (spread[:, 1:] - spread[:, :1]).clamp(min=0.25).sqrt() * axes[:, :, 1]
        photons = theta[:, 2:3] / 2
        rest = torch.cat([photons, theta[:, 3:]], dim=1)
        both = [torch.cat([centre + middle + sign * half, rest], dim=1) for sign in (1, -1)]
        return chosen_spots._replace(theta=both[0]).and_(chosen_spots._replace(theta=both[1]))

    def fit(self, spots: Spots, rows: Tensor) -> Spots:
        """Fit some spots, each with its neighbours, beside the light of all others."""
        at = spots.places()
        reach = _APART * self.sigma
        _, near = cKDTree(at).query(
            at[rows.cpu().numpy()], _TOGETHER + 1, distance_upper_bound=reach
        )
        near = torch.from_numpy(near).to(rows)
        count = len(spots.frame)
        near = torch.where(near == rows[:, None], count, near).sort(dim=1).values[:, :_TOGETHER]
        beside = (near < count).sum(dim=1)
        fitted = spots.rows(rows)
        for k in sorted({*beside.tolist()}):
            chosen = (beside == k).nonzero()[:, 0]
            together = torch.cat([rows[chosen, None], near[chosen, :k]], dim=1)
            fitted = fitted.having(chosen, self._fit(spots, together))
        return fitted

    def _fit(self, spots: Spots, together: Tensor) -> Spots:
        """Fit spots (B, K) together, and test the first of each."""
        side, own = self.side, together[:, 0]
        frame, theta = spots.frame[own], spots.theta[together]
        centre = (theta[:, 0, :2] + 0.5).floor().long()
        parts = windows(self.image, centre, side, of=frame)
        local = theta[..., :2] - parts.corner[:, None]
        share = self.psf.share(local, theta[..., 4], (side, side))
        members = (share * theta[..., 2, None, None]).sum(dim=1)
        others = (windows(self.light, centre, side, of=frame).image - members).clamp(min=0)
        parts = parts._replace(light=others)
        added = windows(self.read, centre, side, of=frame).image + (MISMATCH * others).square()
        first = torch.cat([local, theta[..., 2:3]], dim=2).flatten(1)
        width = torch.full_like(theta[:, 0, 4:], self.sigma)
        first = torch.cat([first, theta[:, 0, 3:4], width], dim=1)
        ended, found = fit(parts, first, self.psf, False, added)
        expected = spots_of(self.psf, ended.theta, side).expected + others
        # Of one width: another for each would find more where there is nothing.
        score, without = self._score(parts, ended, expected, added, True)
        close = (score < CLEAR * self.level).nonzero()[:, 0]
        if theta.shape[1] > 1 and len(close):
            exact, then = self._score(
                parts.rows(close), ended.rows(close), expected[close], added[close], False
            )
            score = score.index_copy(0, close, exact)
            without = without.index_copy(0, close, then)
        if self.fit_width:
            ended, found = fit(parts, ended.theta, self.psf, True, added)
            expected = spots_of(self.psf, ended.theta, side).expected + others
        xy = ended.theta[:, :2] + parts.corner
        hot = self._mask_hot(parts, frame, ended.theta, without, score)
        near = (xy - centre).abs().amax(dim=1) <= side / 2
        inside = ((xy > -_BEYOND) & (xy < sides_px(self.size, xy) - 1 + _BEYOND)).all(dim=1)
        covariance = inverse(ended.information)[:, :3, :3]
        known = (covariance.diagonal(dim1=1, dim2=2) > 0).all(dim=1)  # not nan either
        good = found & near & inside & ~hot & known
        new = torch.cat([xy, ended.theta[:, 2:3], ended.theta[:, -2:]], dim=1)
        return Spots(
            frame,
            torch.where(good[:, None], new, spots.theta[own]),
            torch.where(good, score, 0),
            covariance,
            misfit(parts, expected, ended.ascent.shape[1], added),
            torch.ones_like(score),
        )

    def _mask_hot(
        self, parts: Windows, frame: Tensor, theta: Tensor, without: Tensor, score: Tensor
    ) -> Tensor:
        """Return where a single pixel's own light would explain more than a spot's, (B,) bool.

        Such pixels, of the nine around each spot, are seen no more. Light of a spot of whatever
        shape is in the pixels beside one as well.

        Args:
            parts: the windows.
            frame: of which frame each is.
            theta: of the spots, in their windows; see `Point`.
            without: half the deviance of each pixel from what is expected without the spot.
            score: of the spots.
        """
        pixel = (theta[:, :2] + 0.5).floor().long()
        own = torch.where(parts.seen, without, torch.nan)
        most, place = windows(own, pixel, 3).image.flatten(1).max(dim=1)
        alone = (2 * most).sqrt()
        at = pixel - 1 + from_index(place, (3, 3))
        around = windows(parts.image - theta[:, -2, None, None], at, 3).image
        share = self.psf.share(theta.new_ones(1, 2), theta.new_full((1,), self.sigma), (3, 3))
        beside, its = (one[:, [0, 1, 1, 2], [1, 0, 2, 1]].sum(dim=1) for one in (around, share))
        spread = 2 * beside * share[:, 1, 1] > around[:, 1, 1] * its
        hot = (alone > score) & (alone > self.level) & ~spread
        x, y = (at + parts.corner)[hot].unbind(dim=1)
        self.image[frame[hot], y, x] = torch.nan
        return hot

    def _score(
        self, parts: Windows, ended: Point, expected: Tensor, added: Tensor, quick: bool
    ) -> tuple[Tensor, Tensor]:
        """Return how far the first of each window's spots stands out, (B,), and in which pixels.

        Args:
            parts: the windows.
            ended: where their fit ended.
            expected: photons in their pixels, by it, (B, w, w).
            added: variance beside that of light, likewise.
            quick: whether the others' fit without it may end early: the score is no less.

        """
        assert parts.light is not None
        theta = ended.theta
        if theta.shape[1] > 5:
            first = theta[:, 3:]
            if quick:  # from where, to first order, the others have taken over its light
                of_it = ended.information[:, 3:, 2]
                taken = torch.linalg.solve_ex(ended.information[:, 3:, 3:], of_it).result
                more = (taken * theta[:, 2:3]).nan_to_num(0, 0, 0)
                first = torch.cat([first[:, :-1] + more, first[:, -1:]], dim=1)
            most = 2 if quick else 30
            others, _ = fit(parts, first, self.psf, False, added, iterations=most)
            empty = spots_of(self.psf, others.theta, self.side).expected + parts.light
        else:
            flat = theta[:, 3, None, None]
            for _ in range(3):
                weight = parts.seen / (flat + parts.light + added).clamp(min=1e-3)
                rest = (parts.image - parts.light) * weight
                flat = rest.sum(dim=(1, 2), keepdim=True) / weight.sum(dim=(1, 2), keepdim=True)
                flat = flat.clamp(min=1e-3)
            empty = flat + parts.light
        with_it, without = (
            deviances(parts.image, one, empty, added) * parts.seen for one in (expected, empty)
        )
        return (2 * (without - with_it).sum(dim=(1, 2))).clamp(min=0).sqrt(), without

    def none(self, count: int = 0) -> Spots:
        """Return so many spots of which nothing is known."""
        zeros = self.image.new_zeros(count, 5)
        frame = torch.zeros(count, dtype=torch.int64, device=zeros.device)
        covariance = zeros.new_zeros(count, 3, 3)
        return Spots(frame, zeros, zeros[:, 0], covariance, zeros[:, 0], zeros[:, 0])
