"""Finished runs that nobody trained: as rows of a report's table, and as folders."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns
from pixel_spotter.metrics import figures_of


def columns(pred: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> Columns:
    """Return predictions and truths, (N, 2) each, as columns."""
    values = torch.cat([torch.tensor(pred), torch.tensor(true)], dim=1).float()
    return dict(zip(("x", "y", "x_true", "y_true"), values.T.contiguous(), strict=True))


def metrics_of(
    model: str, split: str | None, seed: int, predictions: Columns, **others: Any
) -> dict[str, Any]:
    """Return a metrics.json."""
    figures = figures_of(predictions)
    return {
        **{f"val/{name}": value for name, value in figures.items()},
        **{f"test/{name}": value for name, value in figures.items()},
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
    settings: dict[str, Any] | None = None,
    overrides: dict[str, str] | None = None,
    predictions: Columns | None = None,
    folder: Path = Path("nowhere"),
    **others: Any,
) -> dict[str, Any]:
    """Return a row of `Sweep.runs`, all of whose errors are the same unless given."""
    if predictions is None:
        predictions = columns([[1.0 + error, 2.0], [3.0 + error, 4.0]], [[1, 2], [3, 4]])
    metrics = metrics_of(model, split, seed, predictions, parameters=parameters, **others)
    metrics |= {"test/mean_error_px": float(error), "test/seen_in_training": seen}
    return {
        "cell": f"{model}{seed}",
        **metrics,
        "folder": folder,
        "settings": settings or {},
        "seeds": repr([seed, "${seed}"]),
        "overrides": overrides or {},
        "tested": len(predictions["x"]),
        "predictions": predictions,
    }


def table(*cells: Mapping[str, Any]) -> pd.DataFrame:
    """Return `Sweep.runs` of cells."""
    return pd.DataFrame(cells, dtype=object)


def write_cell(
    sweep: Path,
    model: str,
    split: str | None = "uniform",
    seed: int = 0,
    error: float = 1.0,
    settings: dict[str, Any] | None = None,
    finished: bool = True,
    failure: str | None = None,
    epochs: Sequence[float] = (),
    **figures: Any,
) -> Path:
    """Write a run's folder, as training leaves it behind: three positions, the same errors."""
    overrides = {"model": model, "data.split": split, "seed": seed, **(settings or {})}
    folder = sweep / ",".join(sorted(f"{key}={value}" for key, value in overrides.items()))
    config: dict[str, Any] = {
        "name": "${now:%Y}",
        "seed": seed,
        "data": {"split": split, "seed": "${seed}"},
        "optim": {"lr": 0.001},
        "trainer": {"max_epochs": 2},
        "scheduler": {"T_max": "${trainer.max_epochs}"},
    }
    for key, value in (settings or {}).items():
        group, _, name = key.rpartition(".")
        config.setdefault(group, {})[name] = value
    (folder / ".hydra").mkdir(parents=True)
    (folder / runs.CONFIG).write_text(yaml.safe_dump(config))
    lines = [f"{key}={value}" for key, value in overrides.items()]
    (folder / runs.OVERRIDES).write_text(yaml.safe_dump(lines))
    if epochs:
        rows = [{"epoch": k, "val/mean_error_px": value} for k, value in enumerate(epochs)]
        runs.write_epochs(folder, rows)
    if failure is not None:
        (folder / runs.FAILURE).write_text(failure + "\n")
    elif finished:
        true = [[1.0, 2.0], [3.0, 4.0], [15.0, 0.0]]
        pred = [[1.0 + error, 2.0], [3.0, 4.0 + error], [15.0 - error, 0.0]]
        predictions = columns(pred, true)
        runs.write_predictions(folder, predictions)
        runs.write_images(folder, runs.WORST, predictions, images_of(predictions))
        runs.write_metrics(folder, metrics_of(model, split, seed, predictions, **figures))
    return folder


def images_of(predictions: Columns, size: tuple[int, int] = (16, 16)) -> Tensor:
    """Return an image (N, H, W) with one white pixel for each truth."""
    images = torch.zeros(len(predictions["x"]), *size)
    x, y = ((predictions[name] + 0.5).floor().long() for name in ("x_true", "y_true"))
    images[torch.arange(len(images)), y, x] = 1
    return images


def plan(folder: Path, command: list[str], *cells: Mapping[str, str]) -> None:
    """Write a grid's plan."""
    folder.mkdir(exist_ok=True)
    named = {",".join(sorted(f"{k}={v}" for k, v in one.items())): dict(one) for one in cells}
    (folder / runs.PLAN).write_text(json.dumps({"commands": [command], "cells": named}))
