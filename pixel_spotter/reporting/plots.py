"""Pure functions from figures and predictions to pictures."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from pixel_spotter.coordinates import Size
from pixel_spotter.files import atomic_write
from pixel_spotter.metrics import error_by_position, errors_px
from pixel_spotter.simulation.pixels import render_pixels

ERROR_RANGE_PX = (0.01, 30.0)
"""The colours of every error map span the same range, so that maps compare."""

INK = "#24292f"
TRUTH = "#30c060"
PREDICTION = "#ff5030"

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "savefig.dpi": 130,
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
}


PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a picture file, whole or not at all."""
    with atomic_write(path) as temporary, mpl.rc_context(STYLE):
        figure.savefig(temporary)


def as_tensor(figure: Figure) -> Tensor:
    """Render a figure to an RGB picture: (3, H, W), uint8."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    rgba = np.asarray(canvas.buffer_rgba())
    return torch.from_numpy(rgba[..., :3].copy()).permute(2, 0, 1)


def error_map(xy_pred: Tensor, xy_true: Tensor, size: Size, title: str = "") -> Figure:
    """Draw the error at every evaluated position; positions without one stay grey."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.4))
        axes = figure.subplots()
        _draw_error_map(axes, xy_pred, xy_true, size)
        axes.set_title(title)
        bar = figure.colorbar(axes.images[0], ax=axes, label="error (px)", shrink=0.9)
        bar.formatter = PLAIN
    return figure


def _draw_error_map(axes: Axes, xy_pred: Tensor, xy_true: Tensor, size: Size) -> None:
    axes.set_facecolor("0.88")
    show_error(axes, error_by_position(xy_pred.cpu(), xy_true.cpu(), size))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")


def show_error(axes: Axes, error: np.ndarray) -> AxesImage:
    """Draw errors (H, W) in px, nan where there is none."""
    low, high = ERROR_RANGE_PX
    return axes.imshow(
        error.clip(low, high), norm=LogNorm(low, high), cmap="magma_r", aspect="equal"
    )


def run_pictures(xy_pred: Tensor, xy_true: Tensor, size: Size, title: str) -> dict[str, Figure]:
    """Draw what every tested model shows: ``predictions`` over images, and the ``error_map``.

    Args:
        xy_pred: predicted xy_px, (N, 2).
        xy_true: true xy_px, integer positions, (N, 2).
        size: height and width of the images, px.
        title: what stands above, before each picture's own words.
    """
    few = torch.unique(torch.linspace(0, len(xy_true) - 1, 12).long())
    images = render_pixels(xy_true[few].long(), size)
    return {
        "predictions": prediction_panel(
            images, xy_pred[few], xy_true[few], f"{title}: test positions"
        ),
        "error_map": error_map(xy_pred, xy_true, size, f"{title}: error by position"),
    }


def prediction_panel(
    images: Tensor, xy_pred: Tensor, xy_true: Tensor, title: str = "", columns: int = 4
) -> Figure:
    """Draw predictions over their images.

    Args:
        images: (N, 1, H, W) in [0, 1].
        xy_pred: predicted xy_px, (N, 2).
        xy_true: true xy_px, (N, 2).
        title: what stands above.
        columns: images in a row.
    """
    error = errors_px(xy_pred, xy_true)
    with mpl.rc_context(STYLE):
        rows = -(-len(images) // columns)
        figure = Figure(figsize=(1.55 * columns, 1.75 * rows + 0.5))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for k, axes in enumerate(grid.flat[: len(images)]):
            draw_prediction(axes, images[k, 0].cpu(), xy_pred[k], xy_true[k], error[k].item(), 90)
        figure.suptitle(f"{title}\ngreen ring: truth, red cross: prediction", fontsize=9)
    return figure


def draw_prediction(
    axes: Axes, image: Tensor, xy_pred: Tensor, xy_true: Tensor, error: float, ring: float
) -> None:
    """Draw an image (H, W) with a ring, of an area in points, at the truth, a cross at xy_pred."""
    height, width = image.shape
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    (x_true, y_true), (x_pred, y_pred) = xy_true.tolist(), xy_pred.tolist()
    axes.scatter(
        x_true, y_true, s=ring, marker="o", facecolors="none", edgecolors=TRUTH, linewidths=1.0
    )
    axes.scatter(x_pred, y_pred, s=ring * 2 / 3, marker="+", c=PREDICTION, linewidths=1.0)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_title(f"{error:.2f} px", fontsize=8)
