"""Finished runs that nobody trained: in memory, and as folders."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from pixel_spotter.metrics import point_metrics
from pixel_spotter.reporting.cells import Cell
from pixel_spotter.runs import prefixed


def metrics_of(
    model: str, split: str, seed: int, pred: Tensor, true: Tensor, **others: Any
) -> dict[str, Any]:
    """Return a metrics.json."""
    figures = point_metrics(pred, true)
    return {
        **prefixed("val", figures),
        **prefixed("test", figures),
        "test/seen_in_training": 0.0,
        "model": model,
        "split": split,
        "seed": seed,
        "image_size": [16, 16],
        "epochs": 2,
        "lr": 0.001,
        "parameters": 1234,
        "train_seconds": 10.0,
        "train_images_per_second": 100.0,
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "2.15.0"},
        **others,
    }


def cell(
    model: str,
    split: str = "uniform",
    *,
    seed: int = 0,
    error: float = 1.0,
    seen: float = 0.0,
    parameters: int = 10,
    kind: dict[str, Any] | None = None,
    overrides: dict[str, str] | None = None,
    true: Tensor | None = None,
    pred: Tensor | None = None,
    folder: Path = Path("nowhere"),
) -> Cell:
    """Return a finished run in memory, all of whose errors are the same unless given."""
    true = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) if true is None else true
    pred = true + torch.tensor([error, 0.0]) if pred is None else pred
    metrics = metrics_of(model, split, seed, pred, true, parameters=parameters)
    metrics |= {"test/mean_error_px": float(error), "test/seen_in_training": seen}
    return Cell(folder, metrics, kind or {}, (seed, seed), overrides or {}, pred, true)


def write_cell(
    sweep: Path,
    model: str,
    split: str = "uniform",
    seed: int = 0,
    error: float = 1.0,
    settings: dict[str, Any] | None = None,
    finished: bool = True,
    failure: str | None = None,
    **figures: Any,
) -> Path:
    """Write a run's folder, as training leaves it behind."""
    overrides = {"model": model, "data.split": split, "seed": seed, **(settings or {})}
    folder = sweep / ",".join(sorted(f"{key}={value}" for key, value in overrides.items()))
    (folder / ".hydra").mkdir(parents=True)
    config = OmegaConf.create(
        {
            "name": "${now:%Y}",
            "seed": seed,
            "grid_seeds": None,
            "data": {"split": split, "seed": "${seed}"},
            "optim": {"lr": 0.001},
            "trainer": {"max_epochs": 2},
            "scheduler": {"T_max": "${trainer.max_epochs}"},
        }
    )
    for key, value in (settings or {}).items():
        OmegaConf.update(config, key, value)
    (folder / ".hydra/config.yaml").write_text(OmegaConf.to_yaml(config))
    lines = [f"{key}={value}" for key, value in overrides.items()]
    (folder / ".hydra/overrides.yaml").write_text(OmegaConf.to_yaml(lines))
    if failure is not None:
        (folder / "failure.txt").write_text(failure + "\n")
    elif finished:
        true = torch.tensor([[1.0, 2.0], [3.0, 4.0], [15.0, 0.0]])
        pred = true + torch.tensor([[error, 0.0], [0.0, error], [-error, 0.0]])
        rows = [[*t, *p] for t, p in zip(true.tolist(), pred.tolist(), strict=True)]
        table = "".join("test," + ",".join(f"{v:g}" for v in row) + "\n" for row in rows)
        (folder / "predictions.csv").write_text("split,x_true,y_true,x_pred,y_pred\n" + table)
        metrics = metrics_of(model, split, seed, pred, true, **figures)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder
