"""Training time against error: what accuracy costs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pixel_spotter.reporting.figures.drawing import colours_of, legend, log_scale, panels, styled
from pixel_spotter.reporting.groups import Group, Section, by_split, few

_CAPTION = (
    "Training time against mean error on test positions, both logarithmic; down and left is "
    "better. The dashed line joins the models that no other beats in both (filled). Bars are 95% "
    "intervals; a triangle stands for an error of 0."
)
_QUIET = "#8b949e"
_FAR = (7, 15, 24, 34, 46)
_WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name may stand beside its marker: how far, in points of type; to the right, above."""

Point = tuple[str, float, float]


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a panel for each split that has models which were trained in the grid."""
    here = few([group for group in groups if not group.trained_before])
    if any(group.trained for group in here):
        yield Section("Accuracy and cost", _CAPTION, name="frontier", figure=draw(here))


@styled
def draw(groups: Sequence[Group]) -> Figure:
    """Draw the trained models of each split."""
    trained = [group for group in groups if group.trained]
    colours = colours_of(group.model for group in trained)
    own, splits = by_split(groups), [*by_split(trained)]
    figure, grid = panels(splits, 2, (4.7, 3.6))
    points = [_draw_split(axes, own[s], colours) for axes, s in zip(grid, splits, strict=True)]
    legend(figure, colours)
    figure.draw_without_rendering()  # names are placed when the panels have their places
    for axes, named in zip(grid, points, strict=True):
        write_names(axes, named)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which of the points (cost, error) no other one beats in both, by rising cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda k: points[k]):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def _draw_split(axes: Axes, groups: Sequence[Group], colours: Mapping[str, str]) -> list[Point]:
    """Draw a split's trained models; return names for them, each with its place."""
    trained = [group for group in groups if group.trained]
    bottom = min([group.error.mean for group in trained if group.error.mean > 0], default=1.0) / 3
    points = [
        (group.label or group.model, group.mean("train_seconds"), max(group.error.mean, bottom))
        for group in trained
    ]
    front = pareto_front([(x, y) for _, x, y in points])
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
        text = f"floor: {', '.join(dict.fromkeys(closed))}"
        axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=8, in_layout=False)
    axes.margins(x=0.2, y=0.16)
    log_scale(axes, "x")
    log_scale(axes, "y")
    axes.set(xlabel="training time (s)", ylabel="mean error (px)")
    axes.grid()
    crowded = sum(len(name) for name, *_ in points) > 160
    return [points[k] for k in front] if crowded else points


def write_names(axes: Axes, points: Sequence[Point]) -> None:
    """Write each name that has a place free of all else in the axes, and lead a line to it."""
    ends = [pair for line in axes.lines for pair in pairwise(np.asarray(line.get_xydata()))]
    taken = [Bbox(axes.transData.transform(pair)).padded(2) for pair in ends]
    markers = [axes.transData.transform(marker.get_offsets()) for marker in axes.collections]
    taken += [Bbox(np.repeat(centre, 2, axis=0)).padded(9) for centre in markers]
    taken += [text.get_window_extent() for text in axes.texts]
    for name, x, y in points:
        note = axes.annotate(
            name, (x, y), (0, 0), textcoords="offset points", fontsize=8, in_layout=False,
            arrowprops={"arrowstyle": "-", "color": _QUIET, "lw": 0.6, "shrinkA": 0, "shrinkB": 4},
        )  # fmt: skip
        note.get_window_extent()  # it knows its place from now on
        for far, (right, up) in product(_FAR, _WAYS):
            note.set(position=(far * right, far * up))
            note.set(ha=("center", "left", "right")[right], va=("center", "bottom", "top")[up])
            box = Text.get_window_extent(note)  # without its line
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            note.remove()
