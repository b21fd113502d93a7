"""How many spots a second against how well: what accuracy costs once a model is there."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import INK, legend, log_scale, panels, styled
from pixel_spotter.reporting.figures.frontier import write_names
from pixel_spotter.reporting.groups import Group, Section, by_split, texts

SPEED = "test_images_per_second"

_CAPTION = (
    "Spots answered in a second against bound / rmse; up and right is better, the dashed line is "
    "the bound. Measured while testing, in batches, with {} threads on: {}. Bars are 95% intervals."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a panel for each split of those that know their speed and their bound."""
    shown = [group for group in bins.having(groups) if group.figure(SPEED)]
    if shown:
        table = pd.concat([group.runs for group in shown])
        caption = _CAPTION.format(texts(table, "threads"), texts(table, "device"))
        yield Section("Accuracy and speed", caption, name="speed", figure=draw(groups, shown))


@styled
def draw(groups: Sequence[Group], shown: Sequence[Group]) -> Figure:
    """Draw each group as a point with its name."""
    styles, splits = bins.styles_of(groups), by_split(shown)
    figure, grid = panels([*splits], 3, bins.ALONE if len(splits) == 1 else (3.7, 3.2))
    for axes, own in zip(grid, splits.values(), strict=True):
        points = []
        for group in own:
            style, speed = styles[group.variant], group.mean(SPEED)
            efficiency, half = over_all(group)
            ends = [efficiency - half, efficiency + half]
            axes.plot([speed, speed], ends, color=style["color"], lw=1)
            axes.scatter(speed, efficiency, s=34, marker=style["marker"], color=style["color"])
            points.append((group.variant, speed, efficiency))
        ends = [min(x for _, x, _ in points) / 2, max(x for _, x, _ in points) * 2]
        axes.plot(ends, [1, 1], color=INK, ls="--", lw=1.2)
        log_scale(axes, "x")
        axes.set(xlabel="spots/s", ylabel="bound / rmse", ylim=(0, 1.15))
        axes.grid()
    if len(splits) == 1:
        figure.draw_without_rendering()  # names are placed when the panel has its place
        write_names(grid[0], points)
    else:
        drawn = {group.variant for group in shown}
        legend(figure, {name: style for name, style in styles.items() if name in drawn})
    return figure


def over_all(group: Group) -> tuple[float, float]:
    """Return bound / rmse of all of a group's spots, and half its 95% interval."""
    spots = bins.spots_of(group).assign(at=0.0)
    found = bins.errors_in(spots, np.zeros(len(spots), dtype=int))
    ratio, half = found[["ratio", "ratio_half"]].iloc[0]
    return 1 / ratio, half / ratio**2
