"""Whether predicted deviations are right: how often they cover the truth."""

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import INK, legend, log_scale, panels, styled
from pixel_spotter.reporting.groups import Group, Section, by_split

LEVELS = {0.6827: 1.0, 0.95: 1.96}
"""How often the truth should lie within so many deviations."""

_CAPTION = (
    "How many coordinates lie within 1 and within 1.96 of the deviations that a model predicts, "
    "against the photons of the spot, with 95% intervals. Dashed: 68.3% and 95%, where deviations "
    "are right; below them they are too small. Models stand beside each other at the same photons."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show two panels for each split on which models predict deviations."""
    shown = bins.having(groups, "sd_x", "sd_y", "photons_true")
    shown = [group for group in shown if len(covered(group, 1.0))]
    if shown:
        yield Section("Coverage", _CAPTION, name="coverage", figure=draw(groups, shown))


def covered(group: Group, deviations: float) -> pd.DataFrame:
    """Return which share of coordinates is covered, by photons: ``at, mean, mean_half``."""
    spots = bins.spots_of(group)
    spots = spots[spots["square"].notna()]
    parts = [spots[f"error_{a}"].abs() <= deviations * spots[f"sd_{a}"] for a in ("x", "y")]
    inside = pd.concat(parts, ignore_index=True).astype(float)
    photons = pd.concat([spots["photons_true"]] * 2, ignore_index=True)
    places = bins.numbered(photons, bins.edges_of(photons))
    return bins.means_in(inside, places).assign(at=photons.groupby(places).mean())


@styled
def draw(groups: Sequence[Group], shown: Sequence[Group]) -> Figure:
    """Draw the coverage of both intervals, side by side for each split."""
    styles, splits = bins.styles_of(groups), by_split(shown)
    alone = len(splits) == 1
    titles = [
        ("" if alone else f"{split}, ") + f"within {deviations:g} sd"
        for split in splits
        for deviations in LEVELS.values()
    ]
    figure, grid = panels(titles, 2 if alone else 4, (4.2, 3.4) if alone else (3.1, 2.7))
    places = ((own, *level) for own in splits.values() for level in LEVELS.items())
    for axes, (own, level, deviations) in zip(grid, places, strict=True):
        axes.axhline(100 * level, color=INK, ls="--", lw=1.4)
        for k, group in enumerate(own):
            found = covered(group, deviations)
            beside = found["at"] * (1 + 0.02 * k)  # or intervals would cover each other
            bins.draw_line(axes, beside, 100 * found, "mean", styles[group.variant])
        log_scale(axes, "x")
        axes.set(xlabel="photons", ylabel="covered (%)")
        axes.title.set_fontsize(9)
        axes.grid()
    drawn = {group.variant for group in shown}
    legend(figure, {name: style for name, style in styles.items() if name in drawn})
    return figure
