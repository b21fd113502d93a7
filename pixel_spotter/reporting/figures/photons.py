"""The error of spots against their brightness, beside what is possible."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import INK, legend, log_scale, panels, styled
from pixel_spotter.reporting.groups import Group, Section, by_split

_CAPTION = (
    "Root mean square error per axis against the photons of the spot, both logarithmic, with 95% "
    "intervals; bins hold equally many spots. The dashed line is the Cramér-Rao bound, over the "
    "same spots: no unbiased estimate errs less. A few gross errors weigh as much as many small "
    "ones."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a panel for each split whose spots differ in brightness."""
    lines = {group: curve(group) for group in bins.having(groups, "photons_true")}
    lines = {group: line for group, line in lines.items() if len(line) > 1}
    if lines:
        caption, figure = _CAPTION + bins.lost([*lines]), draw(groups, lines)
        yield Section("Error against photons", caption, name="photons", figure=figure)


def curve(group: Group) -> pd.DataFrame:
    """Return a group's errors, px, by photons."""
    spots = bins.spots_of(group)
    spots["at"] = spots["photons_true"]
    return bins.errors_in(spots, bins.numbered(spots["at"], bins.edges_of(spots["at"])))


@styled
def draw(groups: Sequence[Group], lines: Mapping[Group, pd.DataFrame]) -> Figure:
    """Draw the lines of a report's groups, and the bound."""
    styles, splits = bins.styles_of(groups), by_split(lines)
    figure, grid = panels([*splits], 3, bins.ALONE if len(splits) == 1 else (3.7, 3.2))
    for axes, own in zip(grid, splits.values(), strict=True):
        bounds = {}
        for group in own:
            found = lines[group]
            bins.draw_line(axes, found["at"], found, "rmse", styles[group.variant])
            bounds[found["bound"].round(4).to_numpy().tobytes()] = found
        for found in bounds.values():
            axes.plot(found["at"], found["bound"], color=INK, ls="--", lw=1.4, zorder=5)
        log_scale(axes, "x")
        log_scale(axes, "y")
        axes.set(xlabel="photons", ylabel="rmse per axis (px)")
        axes.grid()
    drawn = {group.variant for group in lines}
    used = {name: style for name, style in styles.items() if name in drawn}
    legend(figure, {**used, "Cramér-Rao bound": {"color": INK, "ls": "--", "lw": 1.4}})
    return figure
