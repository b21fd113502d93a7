"""What the figures share: colours, panels, curves, and how they are written."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pixel_spotter.files import atomic_write
from pixel_spotter.reporting.groups import Curve

INK, GRID = "#24292f", "#d7dce1"

_COLOURS = (
    "#2f7fd6", "#e0672a", "#23a06b", "#c04fa8", "#c79a12", "#7a62d8",
    "#d6455b", "#1a9fb0", "#8a7a5c", "#6f9a1f", "#a0522d", "#6b7f95",
)  # fmt: skip

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": GRID, "grid.linewidth": 0.6,
    "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "figure.dpi": 130, "figure.constrained_layout.use": True,
}  # fmt: skip
styled = mpl.rc_context(_STYLE)
"""Decorates what draws."""

PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour that can be told apart on white and on black."""
    return {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(dict.fromkeys(names))}


def panels(
    titles: Sequence[str], columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels of a size, (width, height) in inches; return its axes too."""
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows))
    grid = figure.subplots(rows, columns, squeeze=False, **options).flatten().tolist()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
    for axes in grid[len(titles) :]:
        axes.set_axis_off()
    return figure, grid[: len(titles)]


@styled
def curves(
    by_panel: Mapping[str, Mapping[str, Curve]], x_label: str, log_x: bool = False
) -> Figure:
    """Draw curves of errors in panels that share a logarithmic axis; errors of 0 are left out.

    Args:
        by_panel: each panel's curves by their names.
        x_label: what the errors are drawn against.
        log_x: whether its axis is logarithmic, and each value marked.
    """
    names = list(dict.fromkeys(name for lines in by_panel.values() for name in lines))
    if any("=" in name for name in names):  # settings: by their values, not by the errors
        names.sort(key=_natural)
    colours = colours_of(names)
    width = 3.3 if len(by_panel) > 2 else 4.8
    figure, grid = panels([*by_panel], 3, (width, 0.72 * width), sharey=True)
    means = []
    for k, (axes, lines) in enumerate(zip(grid, by_panel.values(), strict=True)):
        for name, curve in lines.items():
            shown = {x: error for x, error in curve.items() if error.mean > 0}
            mean = np.array([error.mean for error in shown.values()])
            half = np.array([error.half or 0 for error in shown.values()])
            means += [*mean]
            line, colour, x = "o-" if log_x else "-", colours[name], [*shown]
            axes.plot(x, mean, line, color=colour, lw=1.4, ms=3.5)
            low = np.maximum(mean - half, mean / 100)
            axes.fill_between(x, low, mean + half, color=colour, alpha=0.2, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if log_x:
            axes.set_xscale("log")
            ticks = sorted({value for curve in lines.values() for value in curve})
            axes.set_xticks(ticks, [f"{v:g}" if v < 1000 else f"{v / 1000:g}k" for v in ticks])
            axes.set_xticks([], minor=True)
        axes.set(xlabel=x_label, ylabel="" if k % 3 else "mean error (px)")
        axes.grid()
    grid[0].set_ylim(min(means) / 1.5, max(means) * 1.5)
    log_scale(grid[0], "y")
    legend(figure, colours)
    return figure


def legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """Name the colours of a figure's lines below it."""
    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    columns = max(1, int(figure.get_figwidth() * 10 / (6 + max(map(len, colours)))))
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, frameon=False)


def log_scale(axes: Axes, which: str) -> None:
    """Make an axis, x or y, logarithmic, with plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 50 else (1.0,)))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path, dpi: float | Literal["figure"] = "figure") -> None:
    """Write a figure as a picture file, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _natural(text: str) -> list[tuple[float, str]]:
    """Sort numbers inside a text by their values."""
    words = re.split(r"([\d.]+(?:e[+-]?\d+)?)", text)
    return [(float(w), "") if k % 2 and w.strip(".") else (0.0, w) for k, w in enumerate(words)]
