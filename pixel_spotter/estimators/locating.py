"""Every spot in frames: looked for again and again, once what was found is taken away."""

import math
from copy import copy

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pixel_spotter.coordinates import pixel_of, sides_px
from pixel_spotter.estimators.detection import AT_A_TIME, maxima, standing_out, threshold
from pixel_spotter.estimators.finder import windows
from pixel_spotter.estimators.overlapping import CLEAR, MISMATCH, Field
from pixel_spotter.estimators.residuals import STRUCTURED
from pixel_spotter.estimators.spots import Spots
from pixel_spotter.simulation.psf import PSF

LEAST_SIDE = 7
"""Frames have at least so many pixels on each side."""

_TURNS = 6
"""So often frames are looked at: what was found is taken away before the next."""

_SWEEPS = 4
"""So often at most spots are fitted in a turn: the light of one changes what is left for others."""

_DOUBTFUL = 2.0
"""A spot that fits worse than this, in deviations, may be two."""


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
        size = image.shape[1], image.shape[2]
        if (least := min(size)) < LEAST_SIDE:
            raise ValueError(f"frames must be at least {LEAST_SIDE} px wide and high, got {least}")
        level = threshold(false_alarms, size, sigma_px)
        self.field = Field(image, read_variance, psf, sigma_px, fit_width, level)
        self.reach = self.field.side // 2 + 3 * sigma_px  # of a spot's light, into others' windows
        # Between two pixels, a spot stands out less in both.
        self.least = 0.85 * level * math.exp(-1 / (8 * sigma_px**2))

    def all(self) -> Spots:
        """Return the spots that are found."""
        spots, divided = self.field.none(), False
        before = torch.full_like(self.field.image, -torch.inf)
        changed = torch.arange(len(before), device=before.device)
        for turn in range(_TURNS):
            uneven, again = changed[:0], None
            if turn == 1:
                spots, uneven, again = self.field.even_out(spots)
            changed = torch.unique(torch.cat([changed, uneven]))
            frame, xy = self.fresh(changed, before)
            known = spots
            if len(frame) or len(uneven):
                changed = torch.unique(torch.cat([frame, uneven]))
                spots = self.settle(spots, self.field.start(frame, xy), again)
            elif not divided and (doubtful := self.two(spots)).any():
                doubtful = spots.lowest(doubtful, -spots.misfit, self.field.side)
                spots, changed = self.divide(spots, doubtful)
                divided = True
            else:
                break
            spots = self.restored(known, spots)
        else:
            self.fresh(changed, before)
        return self.believed(spots, before)

    def believed(self, spots: Spots, height: Tensor) -> Spots:
        """Leave out what stands out no more than what no spot explains, around it, lets expect.

        Args:
            spots: what was found.
            height: how far spots stand out of what is left, (F, H, W).
        """
        size, level = self.field.size, self.field.level
        side = min(2 * self.field.side - 1, min(size) - 1 + min(size) % 2)
        height = torch.where(height.isfinite(), height, torch.nan)
        parts = windows(height, pixel_of(spots.theta[:, :2], size), side, of=spots.frame)
        count = parts.seen.sum(dim=(1, 2)).clamp(min=1)
        unrest = parts.image.square().sum(dim=(1, 2)) / count
        least = level * torch.where(unrest > STRUCTURED, unrest.sqrt(), 1)
        gone = spots.score < least.clamp(max=CLEAR * level)
        return self.field.without(spots._replace(unrest=unrest), gone)

    def fresh(self, changed: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return where more stands out than before, in frames that have changed.

        Args:
            changed: numbers of frames, (C,), int64.
            before: how far each pixel's spot stood out, (F, H, W); as it does now, afterwards.

        Returns:
            Which frame each place is in, (N,), and its ``x`` and ``y``, (N, 2), int64.
        """
        frames, places = [changed[:0]], [changed.new_zeros(0, 2)]
        field = self.field
        on_cpu = field.image.device.type == "cpu"
        at_a_time = AT_A_TIME if on_cpu else max(1, len(field.image))
        for rows in torch.split(changed, at_a_time) if len(changed) else ():
            there = field.light[rows]
            noise = field.read[rows] + there + (MISMATCH * there).square()
            height = standing_out(field.image[rows], there, noise, field.sigma, field.side)
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
        if badly.any() and self.field.psf.has_width and not self.field.fit_width:
            free = copy(self.field)
            free.fit_width = True
            rows = badly.nonzero()[:, 0]
            badly[rows] = free.fit(spots, rows).misfit > _DOUBTFUL
        return badly

    def divide(self, spots: Spots, doubtful: Tensor) -> tuple[Spots, Tensor]:
        """Put two spots for each doubtful one, (N,) bool, if both stand out; tell their frames."""
        field = self.field
        one, rest, halves = (
            spots.rows(doubtful),
            spots.rows(~doubtful),
            field.apart(spots, doubtful),
        )
        field.shine(one, -1)
        field.shine(halves)
        before, count = field.image.isfinite().sum(dim=(1, 2)), len(rest.frame)
        rows = torch.arange(count, count + len(halves.frame), device=doubtful.device)
        fitted = field.fit(rest.and_(halves), rows)
        field.shine(halves, -1)
        both = (fitted.score.view(2, -1) >= field.level).all(dim=0)
        # One of which a half was a hot pixel is fitted again without that.
        hot = ~both & (field.image.isfinite().sum(dim=(1, 2)) < before)[one.frame]
        kept, new = one.rows(~both & ~hot), fitted.rows(both.repeat(2)).and_(one.rows(hot))
        field.shine(kept)
        return self.settle(rest.and_(kept), new), torch.unique(new.frame)

    def settle(self, spots: Spots, new: Spots, again: Tensor | None = None) -> Spots:
        """Fit spots and new ones until they do not change; leave out what does not stand out.

        Args:
            spots: that are known.
            new: others.
            again: which of those that are known are to be fitted again in any case, (N,) bool.
        """
        count = len(spots.frame)
        self.field.shine(new)
        spots = spots.and_(new)
        due = torch.arange(len(spots.frame), device=self.field.image.device) >= count
        due |= spots.touched(due, self.reach)
        if again is not None:
            due[:count] |= again
        for _ in range(_SWEEPS):
            rows = due.nonzero()[:, 0]
            fitted = self.field.fit(spots, rows)
            moved = (fitted.theta - spots.theta[rows])[:, :2].abs().amax(dim=1) > 0.02
            self.field.shine(spots.rows(rows), -1)
            self.field.shine(fitted)
            spots = spots.having(rows, fitted)
            changed = torch.zeros_like(due).index_copy(0, rows, moved)
            gone = spots.lowest(spots.score < self.field.level, spots.theta[:, 2], self.field.side)
            due = (spots.touched(changed | gone, self.reach) & ~gone)[~gone]
            spots = self.field.without(spots, gone)
            if not due.any():
                break
        return self.field.without(spots, spots.score < self.field.level)

    def restored(self, known: Spots, spots: Spots) -> Spots:
        """Put clear spots back, instead of what is around them, whose light others do not have.

        Where light has another shape than spots, many together are no better than one.
        """
        xy = known.theta[:, :2]
        within = ((xy >= 0) & (xy <= sides_px(self.field.size, xy) - 1)).all(dim=1)
        narrow = known.theta[:, 4] < 1.3 * self.field.sigma  # a wide one may have been several
        known = known.rows((known.score > CLEAR * self.field.level) & within & narrow)
        if not len(known.frame) or not (lost := self.dark(known, spots)).any():
            return spots
        away, _ = cKDTree(known.rows(lost).places()).query(spots.places(), p=math.inf)
        spots = self.field.without(spots, torch.from_numpy(away < self.field.side).to(lost))
        back = known.rows(self.dark(known, spots))
        self.field.shine(back)
        return spots.and_(back)

    def dark(self, known: Spots, spots: Spots) -> Tensor:
        """Return around which known spots others have less than half of their light, (N,) bool."""
        near = cKDTree(known.places()).sparse_distance_matrix(
            cKDTree(spots.places()), 3 * self.field.sigma, output_type="ndarray"
        )
        of, by = (torch.from_numpy(near[name]).to(spots.frame) for name in ("i", "j"))
        photons = torch.zeros_like(known.theta[:, 2]).index_add(0, of, spots.theta[by, 2])
        return photons < known.theta[:, 2] / 2
