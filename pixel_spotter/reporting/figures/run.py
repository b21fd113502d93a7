"""Pictures of one tested run."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pixel_spotter.coordinates import Columns, Size, as_xy
from pixel_spotter.metrics import error_by_position, errors_px, pixels
from pixel_spotter.reporting.figures.drawing import PLAIN, panels, styled
from pixel_spotter.reporting.figures.error_maps import show_error
from pixel_spotter.reporting.figures.worst import Miss, draw_prediction


def run_pictures(
    columns: Columns, size: Size, images: Tensor, shown: Tensor, title: str
) -> dict[str, Figure]:
    """Draw what every tested model shows: ``predictions`` over images, and the ``error_map``.

    Args:
        columns: predictions and truths, (N,) each, on the CPU.
        size: height and width of the images, px.
        images: those of some rows, (n, H, W).
        shown: which rows these are, (n,).
        title: what stands above, before each picture's own words.
    """
    truth, predicted, error = as_xy(columns, "_true"), as_xy(columns), errors_px(columns)
    rows = images.cpu(), truth[shown], predicted[shown], error[shown].tolist()
    misses = [Miss(*row) for row in zip(*rows, strict=True)]
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
        x, y = miss.xy_true.tolist()
        axes.set_title(f"{pixels(miss.error)} px at ({x:g}, {y:g})", fontsize=8)
    lines = [*textwrap.wrap(title, 60), "ring: truth, cross: prediction"]
    figure.suptitle("\n".join(lines), fontsize=9)
    top = 1 - (0.3 + 0.16 * len(lines)) / figure.get_figheight()
    figure.subplots_adjust(0.02, 0.02, 0.98, top, wspace=0.08, hspace=0.2)
    return figure


@styled
def error_map(columns: Columns, size: Size, title: str) -> Figure:
    """Draw the error at every tested position; positions without one stay grey."""
    figure = Figure(figsize=(5.2, 4.6))
    axes = figure.subplots()
    picture = show_error(axes, error_by_position(columns, size))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel="x (px)", ylabel="y (px)")
    figure.suptitle("\n".join(textwrap.wrap(title, 60)), fontsize=10)
    figure.colorbar(picture, ax=axes, label="error (px)", shrink=0.9).formatter = PLAIN
    return figure
