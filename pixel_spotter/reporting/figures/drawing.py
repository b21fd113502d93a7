"""What the figures share: colours, panels, scales, and how they are written."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pixel_spotter.files import atomic_write

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
styled = mpl.rc_context(_STYLE)  # decorates what draws

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


def legend(figure: Figure, styles: Mapping[str, str | Mapping[str, Any]]) -> None:
    """Name a figure's lines below it, by their colours or all that they are drawn with."""
    kinds = {k: {"color": s} if isinstance(s, str) else s for k, s in styles.items()}
    lines = [Line2D([], [], label=name, **style) for name, style in kinds.items()]
    columns = max(1, int(figure.get_figwidth() * 10 / (6 + max(map(len, styles)))))
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, frameon=False)


def log_scale(axes: Axes, which: str) -> None:
    """Make an axis, x or y, logarithmic, with plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    close = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if high / low < 5 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=close if high / low < 50 else (1.0,)))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: Path, dpi: float | Literal["figure"] = "figure") -> None:
    """Write a figure as a picture file, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
