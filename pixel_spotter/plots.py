"""Pure functions from figures and predictions to pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from pixel_spotter.coordinates import Size
from pixel_spotter.files import atomic_write
from pixel_spotter.metrics import errors_px
from pixel_spotter.rendering import render_pixels

ERROR_RANGE_PX = (0.01, 30.0)
"""The colours of every error map span the same range, so that maps compare."""

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 130,
    "figure.dpi": 130,
    "figure.constrained_layout.use": True,
}


_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a picture file, whole or not at all."""
    with atomic_write(path) as temporary, mpl.rc_context(_STYLE):
        figure.savefig(temporary)


def as_tensor(figure: Figure) -> Tensor:
    """Render a figure to an RGB picture: (3, H, W), uint8."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    rgba = np.asarray(canvas.buffer_rgba())
    return torch.from_numpy(rgba[..., :3].copy()).permute(2, 0, 1)


def error_map(xy_pred: Tensor, xy_true: Tensor, size: Size, title: str = "") -> Figure:
    """Draw the error at every evaluated position; positions without one stay grey."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.4))
        axes = figure.subplots()
        _draw_error_map(axes, xy_pred, xy_true, size)
        axes.set_title(title)
        bar = figure.colorbar(axes.images[0], ax=axes, label="error (px)", shrink=0.9)
        bar.formatter = _PLAIN
    return figure


def error_maps(maps: Mapping[str, tuple[Tensor, Tensor, Size]], columns: int = 4) -> Figure:
    """Draw the error maps of several runs side by side, in the same colours.

    Args:
        maps: title -> predictions, truths (N, 2) each, image size.
        columns: maps in a row.
    """
    with mpl.rc_context(_STYLE):
        columns = min(columns, len(maps))
        rows = -(-len(maps) // columns)
        figure = Figure(figsize=(2.2 * columns + 1.0, 2.75 * rows))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(maps) :]:
            axes.set_axis_off()
        for axes, (title, (xy_pred, xy_true, size)) in zip(grid.flat, maps.items(), strict=False):
            _draw_error_map(axes, xy_pred, xy_true, size)
            axes.set_title(title, fontsize=7.5)
            axes.label_outer()
        first = grid[0, 0].images[0]
        bar = figure.colorbar(first, ax=grid, label="error (px)", shrink=0.8, aspect=30)
        bar.formatter = _PLAIN
    return figure


def _draw_error_map(axes: Axes, xy_pred: Tensor, xy_true: Tensor, size: Size) -> None:
    error = errors_px(xy_pred.cpu(), xy_true.cpu()).double()
    index = xy_true.cpu().round().long()
    sums, counts = np.zeros(size), np.zeros(size)
    np.add.at(sums, (index[:, 1].numpy(), index[:, 0].numpy()), error.numpy())
    np.add.at(counts, (index[:, 1].numpy(), index[:, 0].numpy()), 1)
    with np.errstate(invalid="ignore"):
        mean = sums / counts
    low, high = ERROR_RANGE_PX
    axes.set_facecolor("0.88")
    axes.imshow(mean.clip(low, high), norm=LogNorm(low, high), cmap="magma_r", aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")


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
    height, width = images.shape[-2:]
    with mpl.rc_context(_STYLE):
        rows = -(-len(images) // columns)
        figure = Figure(figsize=(1.55 * columns, 1.75 * rows + 0.5))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for k, axes in enumerate(grid.flat[: len(images)]):
            axes.imshow(images[k, 0].cpu(), cmap="gray", vmin=0, vmax=1)
            ring = {"s": 90, "facecolors": "none", "linewidths": 1.0}
            axes.scatter(*xy_true[k].tolist(), marker="o", edgecolors="#30c060", **ring)
            axes.scatter(*xy_pred[k].tolist(), marker="+", c="#ff5030", s=60, linewidths=1.0)
            axes.set_xlim(-0.5, width - 0.5)
            axes.set_ylim(height - 0.5, -0.5)
            axes.set_title(f"{error[k]:.2f} px", fontsize=8)
        figure.suptitle(f"{title}\ngreen ring: truth, red cross: prediction", fontsize=9)
    return figure


def error_against_epochs(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw mean error against epochs, a line for every model, split and learning rate.

    Args:
        rows: ``model``, ``split``, ``lr``, ``epochs``, ``test/mean_error_px`` of each run. Runs
            that differ in something else are averaged.
    """
    lines: dict[tuple[str, float], dict[int, list[float]]] = {}
    several_splits = len({row["split"] for row in rows}) > 1
    for row in rows:
        name = f"{row['model']} ({row['split']})" if several_splits else row["model"]
        by_epochs = lines.setdefault((name, row["lr"]), {})
        by_epochs.setdefault(row["epochs"], []).append(row["test/mean_error_px"])
    models = sorted({model for model, _ in lines})
    rates = sorted({rate for _, rate in lines})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6, 4))
        axes = figure.subplots()
        for (model, lr), by_epochs in sorted(lines.items()):
            epochs = sorted(by_epochs)
            means = [float(np.mean(by_epochs[epoch])) for epoch in epochs]
            axes.plot(
                epochs,
                means,
                color=f"C{models.index(model)}",
                linestyle=("-", "--", ":", "-.")[rates.index(lr) % 4],
                marker="o",
                markersize=4,
                label=f"{model}, lr {lr:g}",
            )
        ticks = sorted({row["epochs"] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        _log_axis(axes, "y")
        axes.set_xlabel("epochs")
        axes.set_ylabel("mean error on test positions (px)")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
    return figure


def cost_against_error(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training time against mean error, a point for every run.

    Args:
        rows: ``model``, ``lr``, ``epochs``, ``train_seconds``, ``test/mean_error_px`` of each run.
    """
    models = sorted({row["model"] for row in rows})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6, 4))
        axes = figure.subplots()
        for index, model in enumerate(models):
            runs = [row for row in rows if row["model"] == model]
            seconds = [row["train_seconds"] for row in runs]
            errors = [row["test/mean_error_px"] for row in runs]
            axes.scatter(seconds, errors, color=f"C{index}", label=model, s=28)
            for row in runs:
                axes.annotate(
                    f"lr {row['lr']:g}, {row['epochs']} ep.",
                    (row["train_seconds"], row["test/mean_error_px"]),
                    textcoords="offset points",
                    xytext=(5, 3),
                    fontsize=6.5,
                    color="0.35",
                )
        _log_axis(axes, "x")
        _log_axis(axes, "y")
        axes.margins(x=0.2, y=0.1)
        axes.set_xlabel("training time (s)")
        axes.set_ylabel("mean error on test positions (px)")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
    return figure


def _log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 times the powers of ten."""
    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(_PLAIN)
    axis.set_minor_formatter(NullFormatter())
