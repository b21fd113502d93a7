"""The cells of a grid: what the finished ones found, and which ones are not finished."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from pixel_spotter import runs
from pixel_spotter.cli.start import folder_name
from pixel_spotter.errors import UserError

_FIGURES = (
    *(f"test/{name}_error_px" for name in ("mean", "median", "p95", "max")),
    "test/hit_rate",
    "test/within_1px",
    "test/seen_in_training",
    "epochs",
    "parameters",
    "train_seconds",
    "train_images_per_second",
)
"""What a training run's ``metrics.json`` must hold for a report."""

_SEEDS = ("seed", "data.seed")
_NOT_COMPARED = ("name", "experiment", "grid_seeds", "data.num_workers", *_SEEDS)


@dataclass(frozen=True)
class Cell:
    """A finished run.

    Args:
        folder: the run folder.
        metrics: its ``metrics.json``.
        kind: the settings in which runs differ in more than the seed, see `runs.kind_of_run`.
        seed: the seed of training and the seed of data.
        overrides: what the grid set in this cell.
        xy_pred: predicted xy_px, (N, 2).
        xy_true: true xy_px, (N, 2), integer positions.
    """

    folder: Path
    metrics: dict[str, Any]
    kind: dict[str, Any]
    seed: tuple[Any, Any]
    overrides: dict[str, str]
    xy_pred: Tensor
    xy_true: Tensor

    @property
    def model(self) -> str:
        """Return the model's name."""
        return str(self.metrics["model"])

    @property
    def split(self) -> str:
        """Return the split's name."""
        return str(self.metrics["split"])


@dataclass(frozen=True)
class Unfinished:
    """A run without figures.

    Args:
        name: its folder's name.
        overrides: what the grid set in this cell.
        state: failed, interrupted (or still running), or not begun.
        reason: why it failed.
        model: what it would train.
        split: on which split.
    """

    name: str
    overrides: dict[str, str]
    state: str
    reason: str
    model: str
    split: str


@dataclass(frozen=True)
class Sweep:
    """A grid's folder as it stands.

    Args:
        name: the folder's name.
        finished: the runs that have figures.
        unfinished: those that have not.
        command: the overrides of the command line that ran last, if the folder tells.
        repeated: the folders left out because their settings and seed are another run's.
    """

    name: str
    finished: list[Cell]
    unfinished: list[Unfinished]
    command: list[str]
    repeated: list[str]

    @property
    def failed(self) -> list[Unfinished]:
        """Return the cells that failed."""
        return [cell for cell in self.unfinished if cell.state == "failed"]

    @property
    def open(self) -> list[Unfinished]:
        """Return the cells that were interrupted, are running, or were not begun."""
        return [cell for cell in self.unfinished if cell.state != "failed"]


def read_sweep(folder: Path) -> Sweep:
    """Read a grid's folder, or a folder of single runs.

    Raises:
        UserError: if nothing in it is a finished run, or what a run left behind is damaged or
            not a training run's.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    command, plan = _read_plan(folder)
    finished, repeated, waiting = [], [], []
    kinds = set()
    limits: dict[str, Any] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        failure = path / runs.FAILURE
        config = runs.read_config(path) if (path / runs.CONFIG).is_file() else None
        if failure.is_file():
            reason = failure.read_text(encoding="utf-8", errors="replace").strip()
            waiting.append((path.name, "failed", reason))
        elif runs.is_finished(path):
            if config is None:
                raise UserError(f"{path} is no training run's: it lacks {runs.CONFIG}")
            cell = _read_cell(path, config)
            kind = repr((cell.model, cell.split, cell.kind, cell.seed))
            if kind in kinds:
                repeated.append(path.name)
                continue
            kinds.add(kind)
            finished.append(cell)
        elif config is not None:
            waiting.append((path.name, "interrupted or running", ""))
        if config is not None:
            limits[_read_overrides(path).get("model", "")] = config.get("grid_seeds")
    waiting += [
        (name, "not begun", "")
        for name, overrides in plan.items()
        if not (folder / name).exists() and not _left_out(overrides, limits)
    ]
    if not finished:
        raise UserError(_nothing(folder, waiting))
    unfinished = [
        _unfinished(folder / name, plan.get(name), state, reason, finished)
        for name, state, reason in waiting
    ]
    return Sweep(folder.resolve().name, finished, unfinished, command, repeated)


def failures(folder: Path) -> dict[str, str]:
    """Return the cells of a grid that failed, each with its reason."""
    return {
        file.parent.name: file.read_text(encoding="utf-8", errors="replace").strip()
        for file in sorted(folder.glob(f"*/{runs.FAILURE}"))
    }


def compared(overrides: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return a cell's overrides without its seed and what changes no figure."""
    return tuple(sorted((k, v) for k, v in overrides.items() if k not in _NOT_COMPARED))


def _nothing(folder: Path, waiting: Sequence[tuple[str, str, str]]) -> str:
    if not waiting:
        return f"{folder} holds no run folders: nothing to report"
    states = ", ".join(f"{n} {state}" for state, n in Counter(s for _, s, _ in waiting).items())
    reason = next((f" ({reason})" for *_, reason in waiting if reason), "")
    return f"{folder}: no cell is finished, nothing to report: {states}{reason}"


def _read_cell(folder: Path, config: dict[str, Any]) -> Cell:
    metrics = runs.read_metrics(folder)
    file = folder / runs.METRICS
    for key in ("model", "split"):
        if not isinstance(metrics.get(key), str):
            raise UserError(f"{file} is no training run's: it lacks {key}")
    for key in _FIGURES:
        value = metrics.get(key)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{file} is no training run's, or damaged: it lacks {key}")
    size = metrics.get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)):
        raise UserError(f"{file} is no training run's, or damaged: it lacks image_size")
    xy_pred, xy_true = runs.read_predictions(folder)
    height, width = size
    outside = (
        (xy_true < 0).any() or (xy_true[:, 0] >= width).any() or (xy_true[:, 1] >= height).any()
    )
    if outside or len(xy_true) != metrics.get("test/count", len(xy_true)):
        raise UserError(f"{folder / runs.PREDICTIONS} does not fit {runs.METRICS} beside it")
    data = config.get("data")
    seeds = (config.get("seed"), data.get("seed") if isinstance(data, dict) else None)
    overrides = _read_overrides(folder)
    return Cell(folder, metrics, runs.kind_of_run(config), seeds, overrides, xy_pred, xy_true)


def _read_overrides(folder: Path) -> dict[str, str]:
    """Return what a grid set in a cell: ``{"model": "cnn", "optim.lr": "0.001"}``."""
    file = folder / runs.OVERRIDES
    try:
        lines = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else []
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"{file} is damaged") from error
    if not isinstance(lines, list):
        raise UserError(f"{file} is damaged")
    pairs = (str(line).partition("=") for line in lines)
    return {key: value for key, _, value in pairs}


def _chosen_model(folder: Path) -> str:
    """Return the model that a cell was composed with, also where an ablation chose it."""
    file = folder / runs.HYDRA
    try:
        return str(OmegaConf.load(file).hydra.runtime.choices.model) if file.is_file() else ""
    except (OmegaConfBaseException, YAMLError, ValueError, AttributeError):
        return ""


def _read_plan(folder: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return a grid's last command, and its cells' overrides by their folders' names.

    Hydra leaves them in ``multirun.yaml``. A folder without it has no plan.
    """
    file = folder / "multirun.yaml"
    if not file.is_file():
        return [], {}
    try:
        hydra = OmegaConf.load(file).hydra
        command = [str(override) for override in hydra.overrides.task]
        grid = [f"{key}={values}" for key, values in (hydra.sweeper.params or {}).items()]
        parsed = OverridesParser.create().parse_overrides([*grid, *command])
        excluded = list(hydra.job.config.override_dirname.exclude_keys)
    except (OmegaConfBaseException, HydraException, YAMLError, ValueError, AttributeError):
        return [], {}
    choices: dict[str, list[str]] = {}
    for override in parsed:
        swept = override.is_sweep_override() and override.is_discrete_sweep()
        choices[override.get_key_element()] = (
            list(override.sweep_string_iterator())
            if swept
            else [override.get_value_element_as_str()]
        )
    cells = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    return command, {_name(cell, excluded): cell for cell in cells}


def _name(overrides: Mapping[str, str], excluded: Sequence[str]) -> str:
    """Return the name that ``conf/train.yaml`` gives to a cell's folder."""
    return folder_name(
        ",".join(sorted(f"{k}={v}" for k, v in overrides.items() if k not in excluded))
    )


def _left_out(overrides: Mapping[str, str], limits: Mapping[str, Any]) -> bool:
    """Tell whether ``grid_seeds``, which a model's other cells show, leaves a cell out."""
    limit = overrides.get("grid_seeds", limits.get(overrides.get("model", "")))
    seed = overrides.get("seed", "0")
    return str(limit).isdecimal() and seed.isdecimal() and int(seed) >= int(str(limit))


def _unfinished(
    folder: Path,
    planned: Mapping[str, str] | None,
    state: str,
    reason: str,
    finished: Sequence[Cell],
) -> Unfinished:
    """Say what a cell without figures would have been; what it does not set, the others show."""
    overrides = dict(planned) if planned else _read_overrides(folder)
    config = runs.read_config(folder) if (folder / runs.CONFIG).is_file() else {}
    models, splits = {cell.model for cell in finished}, {cell.split for cell in finished}
    data = config.get("data")
    split = data.get("split") if isinstance(data, dict) else overrides.get("data.split")
    return Unfinished(
        name=folder.name,
        overrides=overrides,
        state=state,
        reason=reason,
        model=overrides.get("model")
        or _chosen_model(folder)
        or (models.pop() if len(models) == 1 else "unknown"),
        split=str(split or (splits.pop() if len(splits) == 1 else "unknown")),
    )
