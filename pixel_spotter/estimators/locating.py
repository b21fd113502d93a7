"""Every spot in frames: found, fitted together with what overlaps it, and tested."""

import math
from copy import copy
from typing import NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pixel_spotter.coordinates import all_positions, from_index, sides_px
from pixel_spotter.estimators.detection import (
    AT_A_TIME,
    deviances,
    maxima,
    standing_out,
    threshold,
    unevenness,
)
from pixel_spotter.estimators.finder import Windows, windows
from pixel_spotter.estimators.residuals import misfit
from pixel_spotter.estimators.scoring import fit
from pixel_spotter.estimators.sums import spots_of
from pixel_spotter.simulation.bound import inverse
from pixel_spotter.simulation.psf import PSF, MeasuredPSF

LEAST_SIDE = 7
"""Frames have at least so many pixels on each side."""

_TURNS = 6
"""So often frames are looked at: what was found is taken away before the next."""

_SWEEPS = 4
"""So often at most spots are fitted in a turn: the light of one changes what is left for others."""

_MISMATCH = 0.05
"""How much of a spot's light in a pixel may be its shape's, not another spot's."""

_TOGETHER = 3
"""So many neighbours at most are fitted along with a spot; others' light is taken as it is."""

_BEYOND = 1.5
"""Spots may lie so far beyond the centres of the frame's outermost pixels, px."""

_DOUBTFUL = 2.0
"""A spot that fits worse than this, in deviations, may be two."""

_APART = 4.5
"""Spots so many of their widths apart do not change each other's positions."""


class Spots(NamedTuple):
    """Spots of several frames.

    Args:
        frame: of which frame each is, (N,), int64.
        theta: x, y, px, photons, background, sigma_px, (N, 5).
        score: how far each stands out, (N,).
        covariance: of x, y and photons, (N, 3, 3).
        misfit: by how many deviations a window holds more than was fitted and noise, (N,).
    """

    frame: Tensor
    theta: Tensor
    score: Tensor
    covariance: Tensor
    misfit: Tensor

    def rows(self, chosen: Tensor) -> "Spots":
        """Return some of them."""
        return Spots(*(part[chosen] for part in self))

    def having(self, rows: Tensor, others: "Spots") -> "Spots":
        """Return these with others in some rows, (M,), int64."""
        return Spots(*(own.index_copy(0, rows, new) for own, new in zip(self, others, strict=True)))

    def and_(self, others: "Spots") -> "Spots":
        """Return these and others."""
        return Spots(*(torch.cat(parts) for parts in zip(self, others, strict=True)))


class Search:
    """Looks for all spots in frames.

    Args:
        image: (F, H, W), photons; pixels without a value are nan.
        read_variance: photons², a number or a map (H, W).
        psf: how light is spread.
        sigma_px: the spots' width.
        fit_width: whether each may have another.
        false_alarms: so many are accepted in an empty frame, on average.
    """

    def __init__(
        self,
        image: Tensor,
        read_variance: float | Tensor,
        psf: PSF,
        sigma_px: float,
        fit_width: bool = False,
        false_alarms: float = 0.01,
    ) -> None:
        # A background that was made even has the variance that it had.
        self.uneven = unevenness(image)
        self.image = image - self.uneven
        self.read = torch.as_tensor(read_variance).to(image) + self.uneven
        self.psf, self.sigma, self.fit_width = psf, sigma_px, fit_width
        least = min(image.shape[1:])
        if least < LEAST_SIDE:
            raise ValueError(f"frames must be at least {LEAST_SIDE} px wide and high, got {least}")
        self.side = min(2 * max(5, round(5.5 * sigma_px)) + 1, least - 1 + least % 2)
        # What lies around a Gaussian's window is nothing; rings of others are taken away as well.
        self.shown = self.side
        if isinstance(psf, MeasuredPSF):
            self.shown = max(self.side, 2 * (max(psf.density.shape) // (2 * psf.oversampling)) + 1)
        self.size = image.shape[1], image.shape[2]
        self.level = threshold(false_alarms, self.size, sigma_px)
        # Between two pixels, a spot stands out less in both.
        self.least = 0.85 * self.level * math.exp(-1 / (8 * sigma_px**2))

    def all(self) -> Spots:
        """Return the spots that are found."""
        spots, divided = self._none(), False
        before = torch.full_like(self.image, -torch.inf)
        changed = torch.arange(len(self.image), device=self.image.device)
        for _ in range(_TURNS):
            light = self.light(spots)
            frame, xy = self.fresh(light, changed, before)
            if len(frame):
                changed = torch.unique(frame)
                spots = self.settle(spots, self.start(frame, xy, light))
            elif not divided and (doubtful := self.two(spots)).any():
                changed = torch.unique(spots.frame[doubtful])
                spots = self.settle(spots.rows(~doubtful), self.apart(spots, doubtful))
                divided = True
            else:
                break
        return spots

    def fresh(self, light: Tensor, changed: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return where more stands out than before, in frames that have changed.

        Args:
            light: of the spots that were found, (F, H, W).
            changed: numbers of frames, (C,), int64.
            before: how far each pixel's spot stood out, (F, H, W); as it does now, afterwards.

        Returns:
            Which frame each place is in, (N,), and its ``x`` and ``y``, (N, 2), int64.
        """
        frames, places = [], []
        at_a_time = AT_A_TIME if light.device.type == "cpu" else max(1, len(light))
        for rows in torch.split(changed, at_a_time):
            there = light[rows]
            read = self.read if self.read.dim() < 3 else self.read[rows]
            noise = read + there + (_MISMATCH * there).square()
            height = standing_out(self.image[rows], there, noise, self.sigma, self.side)
            frame, xy = maxima(height, self.least)
            x, y = xy.unbind(dim=1)
            grown = height[frame, y, x] - before[rows[frame], y, x] > 0.1
            before[rows] = height
            frames.append(rows[frame[grown]])
            places.append(xy[grown])
        return torch.cat(frames), torch.cat(places)

    def two(self, spots: Spots) -> Tensor:
        """Return which spots may be two, (N,) bool: they fit badly, whatever their width."""
        badly = spots.misfit > _DOUBTFUL
        if badly.any() and self.psf.has_width and not self.fit_width:
            free = copy(self)
            free.fit_width = True
            rows = badly.nonzero()[:, 0]
            badly[rows] = free.fit(spots, rows).misfit > _DOUBTFUL
        return badly

    def settle(self, spots: Spots, new: Spots) -> Spots:
        """Fit spots and new ones until they do not change; leave out what does not stand out."""
        count = len(spots.frame)
        spots = spots.and_(new)
        due = torch.arange(len(spots.frame), device=self.image.device) >= count
        due |= self.touched(spots, due)
        for sweep in range(_SWEEPS):
            rows = due.nonzero()[:, 0]
            fitted = self.fit(spots, rows)
            moved = (fitted.theta - spots.theta[rows])[:, :2].abs().amax(dim=1) > 0.02
            spots = spots.having(rows, fitted)
            changed = torch.zeros_like(due).index_copy(0, rows, moved)
            failed = spots.score < self.level
            gone = failed if sweep == _SWEEPS - 1 else self.weakest(spots, failed)
            due = self.touched(spots, changed | gone) & ~gone
            spots, due = spots.rows(~gone), due[~gone]
            if not due.any():
                break
        return spots.rows(spots.score >= self.level)

    def light(self, spots: Spots) -> Tensor:
        """Return the spots' light in all frames, (F, H, W)."""
        side, reach = self.shown, self.shown // 2
        frames, (height, width) = len(self.image), self.size
        wide = self.image.new_zeros(frames, height + 2 * side, width + 2 * side)
        corner = (spots.theta[:, :2] + 0.5).floor() - reach
        share = self.psf.share(spots.theta[:, :2] - corner, spots.theta[:, 4], (side, side))
        around = torch.arange(side, device=wide.device)
        x, y = (corner[:, axis, None].long() + around + side for axis in (0, 1))
        y = spots.frame[:, None] * wide.shape[1] + y.clamp(0, wide.shape[1] - 1)
        place = y[:, :, None] * wide.shape[2] + x.clamp(0, wide.shape[2] - 1)[:, None, :]
        light = share * spots.theta[:, 2, None, None]
        wide.view(-1).scatter_add_(0, place.flatten(), light.flatten())
        return wide[:, side:-side, side:-side]

    def alone(self, spots: Spots, pixel: Tensor, side: int) -> Tensor:
        """Return a window around each spot's pixel without the others' light, (N, side, side).

        What was not recorded, or is hot, is nan.
        """
        own = self.psf.share(
            spots.theta[:, :2] - pixel + side // 2, spots.theta[:, 4], (side, side)
        )
        others = windows(self.light(spots), pixel, side, of=spots.frame).image
        others = (others - own * spots.theta[:, 2, None, None]).clamp(min=0)
        parts = windows(self.image + self.uneven, pixel, side, of=spots.frame)
        return torch.where(parts.seen, parts.image - others, torch.nan)

    def start(self, frame: Tensor, xy: Tensor, light: Tensor) -> Spots:
        """Guess spots around pixels, (N, 2), from what the light of others leaves."""
        parts = windows(self.image - light, xy, self.side, of=frame)
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
        spots = self._none(len(frame))
        rest = torch.stack([photons, background, sigma], dim=1)
        return spots._replace(frame=frame, theta=torch.cat([xy.to(rest), rest], dim=1))

    def apart(self, spots: Spots, chosen: Tensor) -> Spots:
        """Guess two spots for each chosen one, along the longer axis of its light."""
        light, chosen_spots, side = self.light(spots), spots.rows(chosen), self.side
        frame, theta = chosen_spots.frame, chosen_spots.theta
        centre = (theta[:, :2] + 0.5).floor().long()
        own = self.psf.share(theta[:, :2] - centre + side // 2, theta[:, 4], (side, side))
        parts = windows(self.image - light, centre, side, of=frame)
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

    def touched(self, spots: Spots, changed: Tensor) -> Tensor:
        """Return which spots have light of changed ones, (N,) bool, in their windows."""
        tree = self._tree(spots)
        reach = self.side // 2 + 3 * self.sigma
        near = tree.query_ball_point(tree.data[changed.cpu().numpy()], reach, p=math.inf)
        touched = torch.zeros_like(changed)
        own = changed.nonzero()[:, 0].tolist()
        others = [j for i, found in zip(own, near, strict=True) for j in found if j != i]
        touched[others] = True
        return touched

    def weakest(self, spots: Spots, failed: Tensor) -> Tensor:
        """Return which failed spots have no fainter one beside them that failed as well."""
        tree, photons = self._tree(spots), spots.theta[:, 2]
        gone = failed.clone()
        for i, j in tree.query_pairs(self.side):
            if failed[i] and failed[j]:
                gone[i if photons[i] > photons[j] else j] = False
        return gone

    def _tree(self, spots: Spots) -> cKDTree:
        """Return the spots' places, those of different frames far from each other."""
        far = spots.frame.double() * 4 * (sum(self.size) + self.side)
        return cKDTree(torch.column_stack([spots.theta[:, :2].double(), far]).cpu().numpy())

    def fit(self, spots: Spots, rows: Tensor) -> Spots:
        """Fit some spots, each with its neighbours, beside the light of all others."""
        light = self.light(spots)
        tree = self._tree(spots)
        place = tree.data[rows.cpu().numpy()]
        reach = _APART * self.sigma
        _, near = tree.query(place, _TOGETHER + 1, distance_upper_bound=reach)
        near = torch.from_numpy(near).to(rows)
        count = len(spots.frame)
        near = torch.where(near == rows[:, None], count, near).sort(dim=1).values[:, :_TOGETHER]
        beside = (near < count).sum(dim=1)
        fitted = spots.rows(rows)
        for k in sorted({*beside.tolist()}):
            chosen = (beside == k).nonzero()[:, 0]
            together = torch.cat([rows[chosen, None], near[chosen, :k]], dim=1)
            fitted = fitted.having(chosen, self._fit(spots, together, light))
        return fitted

    def _fit(self, spots: Spots, together: Tensor, light: Tensor) -> Spots:
        """Fit spots (B, K) together, and test the first of each."""
        side, own = self.side, together[:, 0]
        frame, theta = spots.frame[own], spots.theta[together]
        centre = (theta[:, 0, :2] + 0.5).floor().long()
        parts = windows(self.image, centre, side, of=frame)
        local = theta[..., :2] - parts.corner[:, None]
        share = self.psf.share(local, theta[..., 4], (side, side))
        members = (share * theta[..., 2, None, None]).sum(dim=1)
        others = (windows(light, centre, side, of=frame).image - members).clamp(min=0)
        parts = parts._replace(light=others)
        added = windows(self.read, centre, side, of=frame).image + (_MISMATCH * others).square()
        first = torch.cat([local, theta[..., 2:3]], dim=2).flatten(1)
        width = torch.full_like(theta[:, 0, 4:], self.sigma)
        first = torch.cat([first, theta[:, 0, 3:4], width], dim=1)
        ended, found = fit(parts, first, self.psf, False, added)
        expected = spots_of(self.psf, ended.theta, side).expected + others
        without = self._without(parts, ended.theta, added)
        with_it, without_it = (
            deviances(parts.image, one, without, added) * parts.seen for one in (expected, without)
        )
        # Of one width: another for each would find more where there is nothing.
        score = (2 * (without_it - with_it).sum(dim=(1, 2))).clamp(min=0).sqrt()
        if self.fit_width:
            ended, found = fit(parts, ended.theta, self.psf, True, added)
            expected = spots_of(self.psf, ended.theta, side).expected + others
        xy = ended.theta[:, :2] + parts.corner
        hot = self._mask_hot(parts, frame, xy, without_it, score)
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
        )

    def _mask_hot(
        self, parts: Windows, frame: Tensor, xy: Tensor, without: Tensor, score: Tensor
    ) -> Tensor:
        """Return where a single pixel's own light would explain more than a spot's, (B,) bool.

        Such pixels, of the nine around each spot, are seen no more.

        Args:
            parts: the windows.
            frame: of which frame each is.
            xy: where the spots were found, px.
            without: half the deviance of each pixel from what is expected without the spot.
            score: of the spots.
        """
        pixel = (xy + 0.5).floor().long()
        own = torch.where(parts.seen, without, torch.nan)
        most, place = windows(own, pixel - parts.corner, 3).image.flatten(1).max(dim=1)
        alone = (2 * most).sqrt()
        hot = (alone > score) & (alone > self.level)
        x, y = (pixel[hot] - 1 + from_index(place[hot], (3, 3))).unbind(dim=1)
        self.image[frame[hot], y, x] = torch.nan
        return hot

    def _without(self, parts: Windows, theta: Tensor, added: Tensor) -> Tensor:
        """Return what is expected in windows without the first of their spots, (B, w, w)."""
        assert parts.light is not None
        if theta.shape[1] > 5:
            ended, _ = fit(parts, theta[:, 3:], self.psf, False, added)
            return spots_of(self.psf, ended.theta, self.side).expected + parts.light
        flat = theta[:, 3, None, None]
        for _ in range(3):
            weight = parts.seen / (flat + parts.light + added).clamp(min=1e-3)
            rest = (parts.image - parts.light) * weight
            flat = rest.sum(dim=(1, 2), keepdim=True) / weight.sum(dim=(1, 2), keepdim=True)
            flat = flat.clamp(min=1e-3)
        return flat + parts.light

    def _none(self, count: int = 0) -> Spots:
        zeros = self.image.new_zeros(count, 5)
        frame = torch.zeros(count, dtype=torch.int64, device=zeros.device)
        covariance = zeros.new_zeros(count, 3, 3)
        return Spots(frame, zeros, zeros[:, 0], covariance, zeros[:, 0])
