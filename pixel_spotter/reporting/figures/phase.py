"""Pixel locking: the error of spots against where in their pixel they lie."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pixel_spotter.metrics import pixels
from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import INK, panels, styled
from pixel_spotter.reporting.groups import Group, Section, by_split

BINS = 20

_CAPTION = (
    "Error along an axis, less its mean on that axis, both axes together, against where between "
    "the edges of its pixel (-0.5 and 0.5) the spot lies, with 95% intervals. The band is a tenth "
    "of the Cramér-Rao bound. Each panel has a scale of its own; its title says how large the "
    "part is that repeats with each pixel."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a panel for each group with spots between pixels, a picture for each split."""
    shown = [group for group in bins.having(groups) if group.figure("test/bias_phase_px")]
    for split, own in by_split(group for group in shown if len(bias(group)) > 1).items():
        yield Section("Pixel locking", _CAPTION, split, name=f"phase_{split}", figure=draw(own))


def bias(group: Group) -> pd.DataFrame:
    """Return the error beyond an axis's mean, px, by phase: ``at, mean, mean_half``."""
    spots = bins.spots_of(group)
    true = pd.concat([spots["x_true"], spots["y_true"]], ignore_index=True)
    errors = spots[["error_x", "error_y"]]
    errors = errors - errors.mean()
    error = pd.concat([errors["error_x"], errors["error_y"]], ignore_index=True)
    phase = true - np.floor(true + 0.5)
    count = min(BINS, len(true) // (2 * bins.LEAST))
    edges = np.linspace(-0.5, 0.5, count + 1)
    found = bins.means_in(error, bins.numbered(phase, edges))
    return found.assign(at=(edges[:-1] + edges[1:])[found.index] / 2)


@styled
def draw(groups: Sequence[Group]) -> Figure:
    """Draw each group's bias by phase, and the tenth of its bound."""
    titles = [f"{g.variant}: {pixels(g.mean('test/bias_phase_px'))} px" for g in groups]
    figure, grid = panels(titles, 3, (3.5, 2.5))
    for axes, group in zip(grid, groups, strict=True):
        found, tenth = bias(group), group.mean("test/bound_px") / 10
        axes.axhspan(-tenth, tenth, color=INK, alpha=0.12, lw=0)
        axes.axhline(0, color=INK, lw=0.8)
        style = {"color": "#2f7fd6", "marker": "o", "ms": 3.5, "lw": 1.2}
        bins.draw_line(axes, found["at"], found, "mean", style)
        reach = max(2 * tenth, 1.1 * float((found["mean"].abs() + found["mean_half"]).max()))
        axes.set(xlabel="place in the pixel (px)", ylabel="error less its mean (px)")
        axes.set(xlim=(-0.5, 0.5), ylim=(-reach, reach))
        axes.title.set_fontsize(9)
        axes.grid()
    return figure
