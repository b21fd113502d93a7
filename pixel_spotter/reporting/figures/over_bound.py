"""The error of spots over their bound, against what makes them hard."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pixel_spotter.coordinates import Size, as_size
from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import INK, legend, log_scale, panels, styled
from pixel_spotter.reporting.groups import Group, Section

_FAR_PX = 6.0
"""From here on the frame's edge does not matter."""

_CAPTION = (
    "Root mean square error over the Cramér-Rao bound of the same spots, against {}, with 95% "
    "intervals; bins hold equally many spots. At 1 (line) an estimate takes all that the light "
    "tells. A few gross errors weigh as much as many small ones."
)


class Against(NamedTuple):
    """What errors are drawn against: its words, its values, nan for none, and how much they span.

    The caption says ``words`` of it. Panels in which its values span less than ``least`` are none.
    """

    name: str
    title: str
    words: str
    label: str
    values: Callable[[pd.DataFrame, Size], pd.Series]
    least: float


def edge_distance(spots: pd.DataFrame, size: Size) -> pd.Series:
    """Return how far spots lie from the nearest edge of what was recorded, px, nan for far away."""
    gaps = []
    for axis, side in (("x", size[1]), ("y", size[0])):
        cut = spots.get(f"cut_{axis}_true", pd.Series(0.0, spots.index))
        gaps.append(spots[f"{axis}_true"] + 0.5 - cut.clip(lower=0))
        gaps.append(side - 0.5 - spots[f"{axis}_true"] + cut.clip(upper=0))
    distance = pd.concat(gaps, axis=1).min(axis=1)
    return distance.where(distance <= _FAR_PX)


def neighbour_distance(spots: pd.DataFrame, size: Size) -> pd.Series:
    """Return how far the neighbours of spots are, px, nan for those without one."""
    if "neighbour_photons_true" not in spots:
        return pd.Series(np.nan, spots.index)
    away = (spots[f"neighbour_{axis}_true"] - spots[f"{axis}_true"] for axis in ("x", "y"))
    return np.hypot(*away).where(spots["neighbour_photons_true"] > 0)


def width(spots: pd.DataFrame, size: Size) -> pd.Series:
    """Return how wide spots are, px."""
    return spots.get("sigma_px_true", pd.Series(np.nan, spots.index))


KINDS = (
    Against("width", "Error against width", "the width of the spot", "width, sigma (px)",
            width, 0.3),
    Against("edge", "Error near the edge", "the distance from the frame's edge",
            "distance from the edge (px)", edge_distance, 2.0),
    Against("neighbour", "Error near a neighbour", "the distance of a second spot",
            "distance of the neighbour (px)", neighbour_distance, 1.0),
)  # fmt: skip


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show each of what errors are drawn against, a panel for each split that varies it."""
    for kind in KINDS:
        lines: dict[str, dict[str, pd.DataFrame]] = {}
        for group in bins.having(groups):
            line = curve(group, kind)
            if len(line) > 1:
                lines.setdefault(group.split, {})[group.variant] = line
        if lines:
            own = [g for g in groups if g.variant in lines.get(g.split, {})]
            caption = _CAPTION.format(kind.words) + bins.lost(own)
            figure = draw(kind.label, lines, groups)
            yield Section(kind.title, caption, name=f"over_{kind.name}", figure=figure)


def curve(group: Group, kind: Against) -> pd.DataFrame:
    """Return a group's errors in bins of what they are drawn against, if that varies."""
    spots = bins.spots_of(group)
    spots["at"] = kind.values(spots, as_size(group.runs["image_size"].iloc[0]))
    spots = spots[spots["at"].notna()]
    if len(spots) < 2 * bins.LEAST or np.ptp(spots["at"].quantile([0.05, 0.95])) < kind.least:
        return pd.DataFrame()
    return bins.errors_in(spots, bins.numbered(spots["at"], bins.edges_of(spots["at"], 16)))


@styled
def draw(
    label: str, by_split: dict[str, dict[str, pd.DataFrame]], groups: Sequence[Group]
) -> Figure:
    """Draw a panel for each split, with a line for each model."""
    styles = bins.styles_of(groups)
    figure, grid = panels([*by_split], 3, bins.ALONE if len(by_split) == 1 else (3.7, 3.2))
    for axes, lines in zip(grid, by_split.values(), strict=True):
        axes.axhline(1, color=INK, ls="--", lw=1.4)
        for name, found in lines.items():
            bins.draw_line(axes, found["at"], found, "ratio", styles[name])
        log_scale(axes, "y")
        axes.set(xlabel=label, ylabel="rmse / bound")
        axes.grid()
    drawn = {name for lines in by_split.values() for name in lines}
    legend(figure, {name: style for name, style in styles.items() if name in drawn})
    return figure
