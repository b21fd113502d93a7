"""The run folder: what is in it, and what it says about a run."""

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

import pixel_spotter
from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write, write_text

METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
FAILURE = "failure.txt"
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"

CONFIG = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
HYDRA = ".hydra/hydra.yaml"

# Settings that may change between a run and its continuation: they do not change its figures.
_FREE_SETTINGS = ("name", "grid_seeds", "data.num_workers", "trainer.enable_progress_bar")


def claim_run_folder(run_dir: Path, cfg: DictConfig) -> None:
    """Write the config into a run folder, unless a run with other settings is in there.

    Raises:
        UserError: if the folder holds such a run.
    """
    config_file = run_dir / ".hydra" / "config.yaml"
    for unfinished in (run_dir / LAST).parent.glob(".*.tmp.*"):
        unfinished.unlink(missing_ok=True)  # what a killed process was writing
    if config_file.is_file() and ((run_dir / LAST).is_file() or is_finished(run_dir)):
        before = _settings(OmegaConf.load(config_file))
        now = _settings(cfg)
        changed = [
            f"{key} is {before.get(key)} there and {now.get(key)} here"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        if changed:
            raise UserError(
                f"{run_dir} holds a run with other settings ({'; '.join(changed)}): choose "
                f"another name"
            )
        return
    write_text(config_file, OmegaConf.to_yaml(cfg))
    if HydraConfig.initialized():
        hydra_cfg = HydraConfig.get()
        write_text(run_dir / HYDRA, OmegaConf.to_yaml({"hydra": hydra_cfg}))
        overrides = OmegaConf.to_yaml(hydra_cfg.overrides.task)
        write_text(config_file.with_name("overrides.yaml"), overrides)


def is_finished(run_dir: Path) -> bool:
    """Tell whether a run has come to its end: its figures are written last."""
    return (run_dir / METRICS).is_file()


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """Read a finished run's figures.

    Raises:
        UserError: if they are damaged.
    """
    try:
        metrics = json.loads((run_dir / METRICS).read_text(encoding="utf-8"))
        if not isinstance(metrics, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise UserError(f"{run_dir / METRICS} is damaged; delete it to redo the run") from error
    return metrics


def write_metrics(run_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Write a run's figures, which says that it is finished."""
    write_text(run_dir / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def write_predictions(
    run_dir: Path,
    split: str,
    xy_pred: Tensor,
    xy_true: Tensor,
    extra: Tensor,
    extras: Sequence[str] = (),
) -> None:
    """Write ``predictions.csv``: xy_px (N, 2) each, and (N, E) columns that ``extras`` names."""
    with (
        atomic_write(run_dir / PREDICTIONS) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["split", "x_true", "y_true", "x_pred", "y_pred", *extras])
        for true, *estimates in zip(
            xy_true.tolist(), xy_pred.tolist(), extra.tolist(), strict=True
        ):
            truth = [f"{value:g}" for value in true]
            writer.writerow([split, *truth, *(f"{v:.6g}" for row in estimates for v in row)])


def read_predictions(run_dir: Path) -> tuple[Tensor, Tensor]:
    """Read a run's predictions and truths: xy_px (N, 2) each.

    Raises:
        UserError: if they are damaged, or another program's.
    """
    columns = ("x_pred", "y_pred", "x_true", "y_true")
    try:
        with (run_dir / PREDICTIONS).open(newline="", encoding="utf-8") as file:
            rows = [[float(row[key]) for key in columns] for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{run_dir / PREDICTIONS} is damaged or no file of predictions") from error
    table = torch.tensor(rows).reshape(-1, 4)
    if not len(table) or not table.isfinite().all():
        raise UserError(f"{run_dir / PREDICTIONS} is damaged or no file of predictions")
    return table[:, :2], table[:, 2:]


def prefixed(split: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Name a split's figures as ``metrics.json`` does: ``test/mean_error_px``."""
    return {f"{split}/{name}": value for name, value in figures.items()}


def where_it_ran(device: torch.device) -> dict[str, Any]:
    """Return the entries of ``metrics.json`` that say on what a run ran."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
            "pixel_spotter": pixel_spotter.__version__,
        },
    }


def print_figures(metrics: Mapping[str, Any]) -> None:
    """Print the figures of the test positions, and whether training had seen them."""
    seen = metrics["test/seen_in_training"]
    which = f"{seen:.0%} of them seen in training" if seen else "none of them seen in training"
    print(f"\n{metrics['model']} on {metrics['test/count']} test positions, {which}")
    for title, key, unit in (
        ("mean error", "mean_error_px", "px"),
        ("median error", "median_error_px", "px"),
        ("95% within", "p95_error_px", "px"),
        ("worst error", "max_error_px", "px"),
    ):
        print(f"  {title:13}{metrics[f'test/{key}']:9.3f} {unit}")
    print(f"  {'exact hits':13}{metrics['test/hit_rate']:9.1%}\n")


def plain_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return ``{"optim.lr": 0.001, ...}``: what a table of runs can compare them by."""
    groups = ("data.", "model.", "optim.", "scheduler.", "trainer.precision", "seed")
    return {
        key: str(value) if isinstance(value, list) or value is None else value
        for key, value in _settings(cfg).items()
        if key.startswith(groups) and not key.endswith(("_target_", "_partial_", ".seed"))
    }


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read a run's settings as they are written down: interpolations stay as they are.

    Raises:
        UserError: if they are damaged.
    """
    file = run_dir / CONFIG
    try:
        config = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"{file} is damaged") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged")
    return {str(key): value for key, value in config.items()}


def kind_of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in which runs differ in more than the seed: ``{"optim.lr": 0.001}``.

    A setting that follows from others is the words that say so (``${trainer.max_epochs}``), the
    same in every run.
    """
    return {
        key: value
        for key, value in _flat(config).items()
        if key not in (*_FREE_SETTINGS, "seed", "data.seed")
    }


def _settings(cfg: Any) -> dict[str, Any]:
    """Return ``{"model.dropout": 0.0, ...}``, resolved, without those free to change."""
    flat = _flat(OmegaConf.to_container(cfg, resolve=True))
    return {
        key: value
        for key, value in flat.items()
        if key not in _FREE_SETTINGS
        and not key.startswith(("model.optimizer.", "model.scheduler."))  # optim's and scheduler's
    }


def _flat(container: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in container.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
