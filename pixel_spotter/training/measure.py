"""What a tested model has shown, figures and pictures: train and evaluate share it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from pixel_spotter import runs
from pixel_spotter.data.base import PointData
from pixel_spotter.metrics import FIGURES, errors_px
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.reporting.figures.drawing import save
from pixel_spotter.reporting.figures.predictions import run_pictures
from pixel_spotter.training.callbacks import Stopwatch

_WORST = 8  # so many of the worst predictions are kept with their images
_SHOWN = 12  # so many are drawn over their images, which are kept as well
_PRINTED = (  # the figures that a command prints; the others are in its files
    *("mean_error_px", "median_error_px", "p95_error_px", "max_error_px", "hit_rate"),
    *("rmse_px", "bound_px", "efficiency", "coverage_68", "coverage_95", "found", "flagged"),
)


def measure(
    trainer: L.Trainer,
    model: PointRegressor,
    data: PointData,
    trained_on: Sequence[PointData],
    run_dir: Path,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Test a model, keep what it predicts in a folder; return what ``metrics.json`` says of it."""
    watch = Stopwatch()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    trainer.test(model, data, ckpt_path=checkpoint, verbose=False)
    split = data.hparams.get("split")  # data of another kind may have none
    columns = model.columns["test"]
    if trainer.is_global_zero:
        runs.write_predictions(run_dir, columns)
        worst = errors_px(columns).nan_to_num(-1).argsort(descending=True)[:_WORST]
        shown = torch.unique(torch.linspace(0, len(columns["x"]) - 1, _SHOWN).long())
        for name, rows in ((runs.WORST, worst), (runs.SHOWN, shown)):
            images = data.batch("test", 0, columns["sample"][rows]).image[:, 0]
            kept = {column: values[rows] for column, values in columns.items()}
            runs.write_images(run_dir, name, kept, images)
        title = f"{model.name}, {split} split" if split else model.name
        for name, figure in run_pictures(columns, data.size, images, shown, title).items():
            save(figure, run_dir / f"{name}.png")
            if isinstance(trainer.logger, TensorBoardLogger):
                writer = trainer.logger.experiment
                picture = np.asarray(Image.open(run_dir / f"{name}.png").convert("RGB"))
                writer.add_image(f"test/{name}", picture, trainer.current_epoch, dataformats="HWC")
    return {
        **{f"test/{name}": value for name, value in model.figures["test"].items()},
        "test/seen_in_training": data.seen_in_training(trained_on),
        "test_images_per_second": round(watch.images_per_second, 1),
        "model": model.name,
        "split": split,
        "image_size": list(data.size),
        "seed": data.seed,
        "parameters": model.count_parameters(),
        "precision": trainer.precision,
        **runs.where_it_ran(trainer.strategy.root_device),
    }


def print_figures(metrics: dict[str, Any]) -> None:
    """Print the figures of the test positions, and whether training had seen them."""
    seen = metrics["test/seen_in_training"]
    which = f"{seen:.0%} of them seen in training" if seen else "none of them seen in training"
    print(f"\n{metrics['model']} on {metrics['test/count']} test positions, {which}")
    of_spots = "test/bound_px" in metrics
    for figure in FIGURES:
        if figure.name in _PRINTED[: None if of_spots else 5] and f"test/{figure.name}" in metrics:
            value = figure.write(metrics[f"test/{figure.name}"])
            print(f"  {figure.title:15}{value:>9} {figure.unit}".rstrip())
    print()
