"""The error of spots against their brightness, beside what is possible."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import INK, legend, log_scale, panels, styled
from pixel_spotter.reporting.groups import Group, splits_of
from pixel_spotter.reporting.section import Section

_CAPTION = (
    "Root mean square error per axis against the photons of the spot, both logarithmic, with 95% "
    "intervals; bins hold equally many spots. The dashed line is the Cramér-Rao bound, over the "
    "same spots: no unbiased estimate errs less. A few gross errors weigh as much as many small "
    "ones."
)


def sections(groups: Sequence[Group]) -> list[Section]:
    """Show a panel for each split whose spots differ in brightness."""
    shown = [
        group
        for group in bins.having(groups, "photons_true")
        if bins.spots_of(group)["photons_true"].nunique() > 1
    ]
    if not shown:
        return []
    caption = _CAPTION + bins.lost(shown)
    return [Section("Error against photons", caption, name="photons", figure=draw(groups, shown))]


@styled
def draw(groups: Sequence[Group], shown: Sequence[Group]) -> Figure:
    """Draw a line for each of those shown, and the bound."""
    styles, splits = bins.styles_of(groups), splits_of(shown)
    figure, grid = panels(splits, 3, bins.ALONE if len(splits) == 1 else (3.7, 3.2))
    for axes, split in zip(grid, splits, strict=True):
        bounds = {}
        for group in (group for group in shown if group.split == split):
            spots = bins.spots_of(group)
            spots["at"] = spots["photons_true"]
            found = bins.errors_in(spots, bins.numbered(spots["at"], bins.edges_of(spots["at"])))
            bins.draw_line(axes, found["at"], found, "rmse", styles[group.variant])
            bounds[found["bound"].round(4).to_numpy().tobytes()] = found
        for found in bounds.values():
            axes.plot(found["at"], found["bound"], color=INK, ls="--", lw=1.4, zorder=5)
        log_scale(axes, "x")
        log_scale(axes, "y")
        axes.set(xlabel="photons", ylabel="rmse per axis (px)")
        axes.grid()
    own = {name: style for name, style in styles.items() if name in {g.variant for g in shown}}
    legend(figure, {**own, "Cramér-Rao bound": {"color": INK, "ls": "--", "lw": 1.4}})
    return figure
