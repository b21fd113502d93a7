"""Training time against error: what accuracy costs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixel_spotter.reporting.figures.drawing import (
    INK,
    colours_of,
    legend,
    log_scale,
    panels,
    styled,
)
from pixel_spotter.reporting.groups import Group, splits_of
from pixel_spotter.reporting.section import Section

_CAPTION = (
    "Training time against mean error on test positions, both logarithmic; down and left is "
    "better. The dashed line joins the models that no other beats in both (filled). Bars are 95% "
    "intervals; a triangle stands for an error of 0."
)
_QUIET = "#8b949e"
_FAR = 15
"""Names further from their points than this, in points of type, have a line to them."""

Point = tuple[str, float, float]
"""A name, and where in the axes it belongs."""


def sections(groups: Sequence[Group]) -> list[Section]:
    """Show a panel for each split that has trained models."""
    if not any(group.trained for group in groups):
        return []
    return [Section("Accuracy and cost", _CAPTION, name="frontier", figure=draw(groups))]


@styled
def draw(groups: Sequence[Group]) -> Figure:
    """Draw the trained models of each split."""
    trained = [group for group in groups if group.trained]
    colours = colours_of(group.model for group in trained)
    figure, grid = panels(splits_of(trained), 2, (4.7, 3.6))
    points = [
        _draw_split(axes, [group for group in groups if group.split == split], colours)
        for axes, split in zip(grid, splits_of(trained), strict=True)
    ]
    if any(group.label for group in trained):
        legend(figure, colours)
    figure.draw_without_rendering()  # names are placed when the panels have their places
    for axes, own in zip(grid, points, strict=True):
        _write_names(axes, own)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which of the points (cost, error) no other one beats in both, by rising cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda k: points[k]):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def _draw_split(axes: Axes, groups: Sequence[Group], colours: Mapping[str, str]) -> list[Point]:
    """Draw a split's trained models; return those to be named."""
    trained = [group for group in groups if group.trained]
    bottom = min([group.error.mean for group in trained if group.error.mean > 0], default=1.0) / 3
    points = [
        (group.label or group.model, group.mean("train_seconds"), max(group.error.mean, bottom))
        for group in trained
    ]
    front = pareto_front([(x, g.error.mean) for (_, x, _), g in zip(points, trained, strict=True)])
    for k, (group, (_, x, y)) in enumerate(zip(trained, points, strict=True)):
        (mean, half), colour = group.error, colours[group.model]
        if half:
            axes.plot([x, x], [max(mean - half, bottom), mean + half], color=colour, alpha=0.7)
        marker = "v" if mean == 0 else "o" if k in front else "D"
        face = colour if k in front else "none"
        axes.scatter(x, y, s=34, marker=marker, facecolors=face, edgecolors=colour, zorder=3)
    x_front, y_front = [points[k][1] for k in front], [points[k][2] for k in front]
    edge = 1.6 * max(x for _, x, _ in points)
    stairs = np.repeat([*x_front, edge], 2)[1:-1], np.repeat(y_front, 2)
    axes.plot(*stairs, color=_QUIET, linewidth=1.0, linestyle="--", zorder=1)
    closed = [f"{g.model} ({g.error.mean:.2g} px)" for g in groups if not g.trained]
    if closed:
        text = f"floor: {', '.join(closed)}"
        axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=8, in_layout=False)
    axes.margins(x=0.2, y=0.16)
    log_scale(axes, "x")
    log_scale(axes, "y")
    axes.set(xlabel="training time (s)", ylabel="mean error (px)")
    axes.grid()
    crowded = sum(len(name) for name, *_ in points) > 160
    return [points[k] for k in front] if crowded else points


def _write_names(axes: Axes, points: Sequence[Point]) -> None:
    """Write names beside their points, where they cover least; a line leads to those further off.

    Boxes are left, bottom, right, top in points of type.
    """
    figure: Any = axes.figure

    def box(ends: Any, room: Any) -> np.ndarray:
        at = axes.transData.transform(ends) * 72 / figure.dpi
        return np.concatenate([at.min(0) - room, at.max(0) + room])

    lines = [pair for line in axes.lines for pair in pairwise(np.asarray(line.get_xydata()))]
    taken = [*(box([point[1:]], 5) for point in points), *(box(pair, 1) for pair in lines)]
    frame = axes.bbox.extents * 72 / figure.dpi + (0, 16 * len(axes.texts), 0, 0)
    markers = np.array([box([point[1:]], 0)[:2] for point in points])
    for at, (name, x, y) in sorted(zip(markers, points, strict=True), key=lambda one: -one[0][1]):
        half, tried = np.array([2.5 * len(name), 5.0]), []
        for far, turn in product((8, 15, 24, 34, 46), np.radians(range(0, 360, 30))):
            way = np.array([np.cos(turn), np.sin(turn)])
            offset = way * (far + half * np.abs(way) ** 0.5)
            own = np.concatenate([at + offset - half, at + offset + half])
            shared = np.minimum(own[2:], np.array(taken)[:, 2:]) - np.maximum(
                own[:2], np.array(taken)[:, :2]
            )
            cut = np.maximum(0, [*(frame[:2] - own[:2]), *(own[2:] - frame[2:])]).sum()
            gaps = np.hypot(*np.maximum(0, np.maximum(own[:2] - markers, markers - own[2:])).T)
            # Without a line, a name belongs to what it is closest to.
            rivals = (gaps < np.hypot(*np.maximum(0, np.abs(offset) - half)) + 4).sum() - 1
            cost = shared.clip(0).prod(axis=1).sum() + 10 * cut + far
            cost += rivals * (20 if far > _FAR else 200)
            tried.append((cost, turn, far, offset, own))
        _, _, far, offset, own = min(tried, key=lambda one: one[:2])
        taken.append(own)
        line = {"arrowstyle": "-", "color": _QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            name, (x, y), offset, textcoords="offset points", ha="center", va="center", fontsize=8,
            color=INK, in_layout=False, arrowprops=line if far > _FAR else None,
        )  # fmt: skip
