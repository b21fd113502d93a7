"""Predictions over their images: the worst that runs kept, and what a tested run shows."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns, Size, as_xy, pixel_of
from pixel_spotter.metrics import errors_px, pixels
from pixel_spotter.reporting.figures.drawing import panels, styled
from pixel_spotter.reporting.figures.error_maps import error_map
from pixel_spotter.reporting.groups import Group, Section, by_split, few

WORST = 4  # so many of a model's worst predictions are shown on each split
_READ = 64  # so many runs' images are in memory at once
TRUTH, PREDICTION = "#30c060", "#ff5030"

_CAPTION = (
    "The largest errors of each model over all its seeds, each position once: ring at the truth, "
    "cross at the prediction, held at the frame where it lies outside. Where the error is small, "
    "a part of the image is shown, with its pixels. Models without an error are left out."
)


class Miss(NamedTuple):
    """Image (H, W), truth and prediction xy_px (2,), error in px; nan where nothing was found."""

    image: Tensor
    xy_true: Tensor
    xy_pred: Tensor
    error: float


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show each group's worst predictions, a picture for each split."""
    for split, own in by_split(few([group for group in groups if not group.exact])).items():
        rows = {group.variant: misses for group in own if (misses := worst_of(group))}
        if rows:
            name, figure = f"worst_{split}", draw(rows)
            yield Section("Worst predictions", _CAPTION, split, name=name, figure=figure)


def worst_of(group: Group) -> list[Miss]:
    """Return the largest errors over all seeds, each position once, the worst first."""
    largest = group.runs["test/max_error_px"].to_numpy(float)
    found: dict[int, list[Miss]] = {}  # by the runs' places
    worst: list[Miss] = []
    for place in np.argsort(-largest, kind="stable"):
        if len(worst) == WORST and largest[place] < worst[-1].error * (1 - 1e-6):
            break  # the others have none as large
        columns, images = runs.read_images(group.runs["folder"].iloc[place], runs.WORST)
        found[place] = _misses(columns, images) if columns else []
        worst = _worst([miss for place in sorted(found) for miss in found[place]])
        if len(found) > _READ:
            found = {0: worst}
    return worst


def _worst(every: Sequence[Miss]) -> list[Miss]:
    misses = sorted((m for m in every if not math.isnan(m.error)), key=lambda miss: miss.error)
    once = {tuple(pixel_of(miss.xy_true[None])[0].tolist()): miss for miss in misses}
    return sorted(once.values(), key=lambda miss: -miss.error)[:WORST]


@styled
def draw(rows: dict[str, list[Miss]]) -> Figure:
    """Draw misses, a row for each name; two rows stand side by side."""
    figure, grid = panels([""] * WORST * len(rows), WORST * min(2, len(rows)), (1.2, 1.55))
    for axes in grid:
        axes.set_axis_off()
    for k, (name, misses) in enumerate(rows.items()):
        own = grid[WORST * k : WORST * (k + 1)]
        own[0].text(0, 1.2, name, transform=own[0].transAxes, weight="bold", in_layout=False)
        for axes, miss in zip(own, misses, strict=False):
            draw_prediction(axes, miss)
            axes.set_title(f"\n{pixels(miss.error)} px", fontsize=8)
    return figure


def _misses(columns: Columns, images: Tensor) -> list[Miss]:
    rows = images, as_xy(columns, "_true"), as_xy(columns), errors_px(columns).tolist()
    return [*map(Miss, *rows)]


def view(xy_true: Tensor, error: float, size: Size) -> tuple[int, int, int, int]:
    """Return which part of an image shows a truth and its error: left, top, width, height, px."""
    height, width = size
    half = max(3, math.ceil(min(2 * error, height)) + 1) if error >= 0 else height
    side = 2 * half + 1
    if side >= min(size):
        return 0, 0, width, height
    x, y = pixel_of(xy_true[None], size)[0].tolist()
    return min(max(x - half, 0), width - side), min(max(y - half, 0), height - side), side, side


def draw_prediction(axes: Axes, miss: Miss) -> None:
    """Draw an image with a ring at the truth and a cross at the prediction, if there is one."""
    left, top, width, height = view(miss.xy_true, miss.error, (*miss.image.shape,))
    low = torch.tensor([left, top]) - 0.5
    high = low + torch.tensor([width, height])
    axes.imshow(miss.image, cmap="gray", interpolation="none")
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    if width <= 21:
        edges: Any = {"colors": "#777777", "linewidths": 0.3}
        axes.vlines(torch.arange(1, width) + low[0], low[1], high[1], **edges)
        axes.hlines(torch.arange(1, height) + low[1], low[0], high[0], **edges)
    (x_true, y_true), (x, y) = miss.xy_true.tolist(), miss.xy_pred.clamp(low, high).tolist()
    axes.plot([x_true, x], [y_true, y], color="white", alpha=0.4, linewidth=0.8)
    mark: Any = {"clip_on": False, "zorder": 3, "linewidths": 1.2}
    axes.scatter(x_true, y_true, s=70, marker="o", facecolors="none", edgecolors=TRUTH, **mark)
    axes.scatter(x, y, s=60, marker="+", color=PREDICTION, **mark)


def run_pictures(
    columns: Columns, size: Size, images: Tensor, shown: Tensor, title: str
) -> dict[str, Figure]:
    """Draw what every tested model shows: ``predictions`` over images, and the ``error_map``.

    Columns, (N,) each, are on the CPU; images, (n, H, W), are of the rows shown, (n,). The title
    stands before each picture's own words.
    """
    misses = _misses({name: column[shown] for name, column in columns.items()}, images.cpu())
    return {
        "predictions": predictions(misses, f"{title}: test positions"),
        "error_map": error_map(columns, size, f"{title}: error by position"),
    }


@styled
def predictions(misses: Sequence[Miss], title: str) -> Figure:
    """Draw predictions over their images, four in a row."""
    # Every run draws this one: a layout that need not be found is several times as fast.
    with mpl.rc_context({"figure.constrained_layout.use": False}):
        figure, grid = panels([""] * len(misses), 4, (1.6, 1.85))
    for axes, miss in zip(grid, misses, strict=True):
        draw_prediction(axes, miss)
        axes.set_axis_off()
        axes.xaxis.set_visible(False)  # or a place of its title is looked for beside ticks
        axes.yaxis.set_visible(False)
        x, y = miss.xy_true.tolist()
        error = "nothing found" if math.isnan(miss.error) else f"{pixels(miss.error)} px"
        axes.set_title(f"{error} at ({x:.4g}, {y:.4g})", fontsize=8)
    lines = [*textwrap.wrap(title, 60), "ring: truth, cross: prediction"]
    figure.suptitle("\n".join(lines), fontsize=9)
    top = 1 - (0.3 + 0.16 * len(lines)) / figure.get_figheight()
    figure.subplots_adjust(0.02, 0.02, 0.98, top, wspace=0.08, hspace=0.2)
    return figure
