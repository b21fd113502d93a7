"""Draw the README's picture: the same three images, and all positions, by two models.

    pixel-spotter train --multirun name=picture model=heatmap,cnn data.split=quadrant
    python benchmarks/first_picture.py outputs/sweeps/picture docs/predictions.png

Reads the checkpoints of a grid over models that were trained without the lower-right quadrant,
and draws a row for each.
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pixel_spotter import runs
from pixel_spotter.coordinates import all_positions
from pixel_spotter.metrics import pixels
from pixel_spotter.models.loading import load_model
from pixel_spotter.reporting.figures.drawing import PLAIN, save, styled
from pixel_spotter.reporting.figures.error_maps import show_error
from pixel_spotter.reporting.figures.predictions import Miss, draw_prediction
from pixel_spotter.simulation.pixels import render_pixels

SHOWN = {(11, 17): "trained around here", (30, 28): "never trained here", (43, 45): "nor here"}
"""Pixels (x, y) of which each model's prediction is drawn."""


@styled
def draw(cells: list[Path]) -> Figure:
    """Draw a row for each run: its predictions of the pixels shown, and its error everywhere."""
    figure = Figure(figsize=(9.4, 2.55 * len(cells)))
    grid = figure.subplots(len(cells), 1 + len(SHOWN), squeeze=False)
    for row, cell in zip(grid, cells, strict=True):
        model, _ = load_model(cell / runs.BEST)
        height, width = model.size
        positions = all_positions(model.size)
        with torch.inference_mode():
            images = render_pixels(positions, model.size)
            xy_px = torch.cat([model(batch) for batch in images.split(250)])
        error = (xy_px - positions).double().norm(dim=1)
        for axes, ((x, y), words) in zip(row, SHOWN.items(), strict=False):
            k = y * width + x
            miss = Miss(images[k, 0], positions[k].float(), xy_px[k], error[k].item())
            draw_prediction(axes, miss)
            axes.set_title(f"{words}: {pixels(miss.error)} px", fontsize=9)
            axes.tick_params(labelsize=7, length=2)
            axes.locator_params(nbins=4, integer=True)
        parameters = f"{model.count_parameters():,} parameters"
        row[0].set_ylabel(f"{model.name}\n{parameters}", fontsize=10)
        everywhere = show_error(row[-1], error.reshape(model.size).numpy())
        left, top = (width + 1) // 2 - 0.5, (height + 1) // 2 - 0.5
        row[-1].add_patch(
            Rectangle((left, top), width / 2, height / 2, fill=False, color="#2f7fd6", lw=1.6)
        )
        row[-1].set_title("error at all positions", fontsize=9)
        row[-1].tick_params(labelsize=7, length=2)
    bar = figure.colorbar(everywhere, ax=grid[:, -1], label="error (px)", aspect=30)
    bar.formatter = PLAIN
    figure.suptitle(
        "Trained without the lower-right quadrant (blue). Ring: truth, cross: prediction; "
        "scales: x and y (px)",
        fontsize=9,
    )
    return figure


def main() -> None:
    sweep, output = Path(sys.argv[1]), Path(sys.argv[2])
    cells = [path.parent for path in sweep.glob(f"*/{runs.METRICS}")]
    cells.sort(key=lambda cell: runs.read_metrics(cell)["test/mean_error_px"])
    save(draw(cells), output)
    print(output)


if __name__ == "__main__":
    main()
