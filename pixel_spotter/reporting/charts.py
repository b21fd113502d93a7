"""The pictures of a report: curves, frontiers, maps and misses, for a page and as files."""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from pixel_spotter.coordinates import Size
from pixel_spotter.reporting.groups import Curve, Estimate, Miss, pareto_front
from pixel_spotter.reporting.plots import (
    ERROR_RANGE_PX,
    INK,
    PLAIN,
    STYLE,
    draw_prediction,
    show_error,
)
from pixel_spotter.simulation.pixels import render_pixels

GRID = "#d7dce1"
_QUIET = "#8b949e"

ENLARGED_PX = 3
"""Errors below this are shown in a part of the image four times as wide."""

_COLOURS = (
    "#2f7fd6", "#e0672a", "#23a06b", "#c04fa8", "#c79a12", "#7a62d8",
    "#d6455b", "#1a9fb0", "#8a7a5c", "#6f9a1f", "#a0522d", "#6b7f95",
)  # fmt: skip


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour that can be told apart on white and on black."""
    return {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(dict.fromkeys(names))}


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Curve],
    colours: Mapping[str, str],
    x_label: str,
    log_x: bool = False,
    log_range: tuple[float, float] | None = None,
) -> None:
    """Draw errors against something, with their intervals as bands. Errors of 0 are left out.

    Args:
        axes: where to draw.
        curves: by their names.
        colours: of each name.
        x_label: what is on the horizontal axis.
        log_x: whether that axis is logarithmic, with marks at the points.
        log_range: of the errors, px; None takes that of the curves.
    """
    for name, curve in curves.items():
        shown = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y.mean > 0]
        x = [x for x, _ in shown]
        axes.plot(
            x,
            [y.mean for _, y in shown],
            color=colours[name],
            linewidth=1.4,
            marker="o" if log_x else None,
            markersize=3.5,
            label=name,
        )
        if any(y.half for _, y in shown):
            low = [max(y.low, y.mean / 100) for _, y in shown]
            axes.fill_between(
                x, low, [y.high for _, y in shown], color=colours[name], alpha=0.2, linewidth=0
            )
    if log_x:
        _log_axis(axes, "x")
        ticks = sorted({x for curve in curves.values() for x in curve.x})
        axes.set_xticks(
            ticks, [f"{tick:,g}" if tick < 1000 else _thousands(tick) for tick in ticks]
        )
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if log_range is not None:
        axes.set_ylim(*log_range)
    _log_axis(axes, "y")
    axes.set_xlabel(x_label)
    axes.grid(color=GRID, linewidth=0.6)


def draw_frontier(
    axes: Axes,
    points: Mapping[str, tuple[float, Estimate]],
    floor: Mapping[str, float],
    colours: Mapping[str, str],
    names: Mapping[str, str],
) -> None:
    """Draw training time against error, and the front that no model beats in both.

    Args:
        axes: where to draw.
        points: s and px of each trained model.
        floor: the error of the models that need no training, px.
        colours: of each of them.
        names: what to write beside each; beside those on the front only, where it is too much.
    """
    errors = [error.mean for _, error in points.values() if error.mean > 0] or [1.0]
    bottom = min(errors) / 3
    shown = {name: (s, max(error.mean, bottom)) for name, (s, error) in points.items()}
    front = [
        list(points)[k] for k in pareto_front([(s, error.mean) for s, error in points.values()])
    ]
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, (time, error) in points.items():
        height = shown[name][1]
        if error.half:
            ends = [max(error.low, bottom), max(error.high, bottom)]
            axes.plot([time, time], ends, color=colours[name], linewidth=1.2, alpha=0.7)
        marker = "v" if error.mean == 0 else "o" if name in front else "D"
        face = colours[name] if name in front else "none"
        axes.scatter(
            [time],
            [height],
            s=34,
            marker=marker,
            facecolors=face,
            edgecolors=colours[name],
            zorder=3,
        )
    if front:
        x, y = [shown[name][0] for name in front], [shown[name][1] for name in front]
        edge = max(s for s, _ in points.values()) * 1.6
        axes.plot(
            [*x, edge], [*y, y[-1]], color=_QUIET, linewidth=1.0, linestyle="--",
            drawstyle="steps-post", zorder=1,
        )  # fmt: skip
    if floor:
        text = "floor: " + ", ".join(f"{name} ({error:.2g} px)" for name, error in floor.items())
        line = axes.text(0.02, 0.02, text, transform=axes.transAxes, fontsize=8)
        line.set_in_layout(False)
    axes.margins(x=0.22, y=0.16)
    _log_axis(axes, "x")
    _log_axis(axes, "y")
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("mean error (px)")
    axes.grid(color=GRID, linewidth=0.6)
    written = front if sum(map(len, names.values())) > 160 else points
    _label_points(axes, {name: (names[name], shown[name]) for name in written})


_BESIDE = (
    (6, 7), (-6, 7), (6, -8), (-6, -8), (8, 0), (-8, 0), (0, 13), (0, -14), (0, 23), (0, -24),
)  # fmt: skip
"""Where a name may stand, in points from its point; what comes first is preferred."""


def _label_points(axes: Axes, points: Mapping[str, tuple[str, tuple[float, float]]]) -> None:
    """Write names beside points, each where it covers the least of the others."""
    figure: Any = axes.figure
    width, height = figure.get_size_inches() * 72 * axes.get_position().size
    place = {
        name: axes.transLimits.transform(axes.transScale.transform(point)) * (width, height)
        for name, (_, point) in points.items()
    }
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in place.values()]
    for name in sorted(points, key=lambda name: -place[name][1]):
        x, y = place[name]
        long = 4.9 * len(points[name][0])
        tried = []
        for dx, dy in _BESIDE:
            left = x + dx - (long if dx < 0 else long / 2 if dx == 0 else 0)
            box = (left, y + dy - 4.5, left + long, y + dy + 4.5)
            cut = max(0.0, box[2] - width) + max(0.0, -box[0])
            tried.append((sum(_overlap(box, other) for other in taken) + 10 * cut, dx, dy, box))
        _, dx, dy, box = min(tried, key=lambda one: one[0])
        taken.append(box)
        axes.annotate(
            *points[name],
            xytext=(dx, dy),
            textcoords="offset points",
            ha="right" if dx < 0 else "center" if dx == 0 else "left",
            va="center",
            fontsize=8,
            color=INK,
        )


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the area that two boxes (left, bottom, right, top) share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def panel(draw: Callable[[Axes], None], size: tuple[float, float] = (3.3, 2.5)) -> Figure:
    """Make a figure of one drawing; ``size`` is its width and height in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
        draw(figure.subplots())
    return figure


def sheet(
    draws: Mapping[str, Callable[[Axes], None]],
    columns: int = 3,
    legend: Mapping[str, str] | None = None,
    size: tuple[float, float] = (3.3, 2.6),
) -> Figure:
    """Make a figure of several drawings with their titles; ``legend`` names its colours."""
    with mpl.rc_context(STYLE):
        columns = min(columns, len(draws))
        rows = -(-len(draws) // columns)
        figure = Figure(figsize=(size[0] * columns, size[1] * rows + (0.4 if legend else 0)))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(draws) :]:
            axes.set_axis_off()
        for axes, (title, draw) in zip(grid.flat, draws.items(), strict=False):
            draw(axes)
            axes.set_title(title)
        if legend:
            lines = [Line2D([], [], color=colour, label=name) for name, colour in legend.items()]
            figure.legend(
                handles=lines, loc="outside lower center", ncols=min(6, len(lines)), frameon=False
            )
    return figure


def svg(figure: Figure) -> str:
    """Render a figure for a page: no file header, and ink and grid in the page's colours."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": "pixel-spotter"}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<(metadata|style)\b.*?</\1>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' (id="[\w.]+_\d+"|version="1.1"|xmlns(:xlink)?="[^"]*")', "", drawing)
    drawing = re.sub(r"<defs>\s*</defs>\s*|<!--.*?-->\s*", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' (width|height)="[\d.]+pt"', "", drawing, count=2)
    drawing = drawing.replace("xlink:href", "href")
    return drawing.replace(INK, "currentColor").replace(GRID, "var(--rule)").strip()


def png(picture: Image.Image) -> str:
    """Return a picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def error_colours(error: np.ndarray) -> Image.Image:
    """Colour errors (H, W) in px; positions without one, nan, are transparent."""
    scale = LogNorm(*ERROR_RANGE_PX, clip=True)
    with np.errstate(invalid="ignore"):
        level = np.nan_to_num(np.asarray(scale(error)) * 254, nan=0.0).round().astype(np.uint8) + 1
    picture = Image.fromarray(np.where(np.isnan(error), 0, level).astype(np.uint8), mode="P")
    colours = mpl.colormaps["magma_r"](np.linspace(0, 1, 255))[:, :3]
    picture.putpalette([0, 0, 0, *(colours * 255).round().astype(int).flatten().tolist()])
    picture.info["transparency"] = 0
    return picture


def error_colour(error: float) -> str:
    """Return the colour of one error in px, as a page writes it."""
    level = float(LogNorm(*ERROR_RANGE_PX, clip=True)(max(error, ERROR_RANGE_PX[0])))
    return to_hex(mpl.colormaps["magma_r"](level))


def grey(image: np.ndarray) -> Image.Image:
    """Return a picture of grey values (H, W) in [0, 1]."""
    return Image.fromarray((image * 255).round().astype(np.uint8))


def error_bar() -> Image.Image:
    """Return the colours of an error map, from the smallest error to the largest."""
    return error_colours(np.geomspace(*ERROR_RANGE_PX, 255)[None, :])


def error_sheet(maps: Mapping[str, np.ndarray], columns: int = 5) -> Figure:
    """Draw error maps, (H, W) in px, side by side in the same colours."""
    with mpl.rc_context(STYLE):
        columns = min(columns, len(maps))
        rows = -(-len(maps) // columns)
        figure = Figure(figsize=(1.9 * columns + 0.8, 2.15 * rows))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (title, error) in zip(grid.flat, maps.items(), strict=False):
            picture = show_error(axes, error)
            height, width = error.shape
            axes.add_patch(Rectangle((-0.5, -0.5), width, height, color="0.88", zorder=-1))
            axes.set_title(title, fontsize=8)
        bar = figure.colorbar(picture, ax=grid, label="error (px)", shrink=0.8, aspect=30)
        bar.formatter = PLAIN
    return figure


def view(miss: Miss, size: Size) -> tuple[float, float, int, int]:
    """Return what to show of an image around a miss: left and top edge, width and height, px.

    All of it, unless the error is too small to be seen there.
    """
    height, width = size
    side = 4 * ENLARGED_PX
    if miss.error >= ENLARGED_PX or side >= min(size):
        return -0.5, -0.5, width, height
    x, y = miss.xy_true.round().int().tolist()
    left = min(max(x - side // 2, 0), width - side)
    top = min(max(y - side // 2, 0), height - side)
    return left - 0.5, top - 0.5, side, side


def misses_sheet(rows: Mapping[str, Sequence[Miss]], size: Size) -> Figure:
    """Draw predictions over their images, a row for each name.

    Args:
        rows: the predictions, by what they are called.
        size: height and width of the images, px.
    """
    columns = max(len(misses) for misses in rows.values())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.3 * columns + 1.6, 1.5 * len(rows) + 0.3))
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (name, misses) in zip(grid, rows.items(), strict=True):
            for axes in line:
                axes.set_axis_off()
            for axes, miss in zip(line, misses, strict=False):
                image = render_pixels(miss.xy_true[None].long(), size)[0, 0]
                draw_prediction(axes, image, miss.xy_pred, miss.xy_true, miss.error, 45)
                left, top, shown_width, shown_height = view(miss, size)
                axes.set_xlim(left, left + shown_width)
                axes.set_ylim(top + shown_height, top)
            line[0].text(
                -0.1, 0.5, name.replace(", ", "\n"), transform=line[0].transAxes,
                ha="right", va="center", fontsize=8,
            )  # fmt: skip
    return figure


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k"


def _log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at powers of ten, or 1, 2 and 5 times them."""
    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low < 50 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())
