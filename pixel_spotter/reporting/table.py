"""A grid's folder as a table: a row for each finished run, and the cells that are not finished."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns, as_size, as_xy, sides_px
from pixel_spotter.errors import UserError

MEAN_ERROR = "test/mean_error_px"
SEEN = "test/seen_in_training"
SEEDS = ("seed", "data.seed")

# Settings, and groups of them, that a solved model does not use: its ``lr`` is null.
_STEPWISE = ("optim", "scheduler", "early_stopping", "trainer.max_epochs", "trainer.min_epochs")
_KEPT_BYTES = 2**26  # so much of predictions of spots, of which most pictures are, stays in memory
_SCENE = ("data.", "camera.", "psf.")  # groups of settings that a scenario makes
_NEEDED = (  # what a training run's ``metrics.json`` must hold for a report
    *(f"test/{name}_error_px" for name in ("mean", "median", "p95", "max")),
    *("test/hit_rate", "test/within_1px", SEEN),
    *("epochs", "parameters", "train_seconds", "train_images_per_second"),
)


class Unfinished(NamedTuple):
    """A cell without figures: what the grid set in it, what became of it, what it would train."""

    name: str
    overrides: dict[str, str]
    state: str
    reason: str
    model: str
    split: str


class Predictions(Mapping[str, Tensor]):
    """A run's predictions and truths by their names, (N,) each, kept or read when they are used."""

    def __init__(self, folder: Path, columns: Columns, keep: bool) -> None:
        self.folder = folder
        self.names = tuple(columns)
        self.columns = columns if keep else None

    def __getitem__(self, name: str) -> Tensor:
        return (_read_again(self.folder) if self.columns is None else self.columns)[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@lru_cache(maxsize=1)  # all columns of a run are asked for one after another
def _read_again(folder: Path) -> Columns:
    return runs.read_predictions(folder)


class Sweep(NamedTuple):
    """A grid's folder as it stands.

    Args:
        runs: a row for each finished run: all of its ``metrics.json``, its ``cell`` (the folder's
            name), ``folder``, the ``settings`` it used but ``seeds``, which are one text, how many
            positions were ``tested``, its ``overrides`` and ``predictions``.
        unfinished: the cells that have no figures, those that failed first.
        commands: the overrides of every command that ran the grid.
        repeated: the folders left out because their settings and seeds are another run's.
    """

    name: str
    runs: pd.DataFrame
    unfinished: list[Unfinished]
    commands: list[list[str]]
    repeated: list[str]


def read_sweep(folder: Path) -> Sweep:
    """Read a grid's folder, or one of single runs; refuse it if none is finished, or damaged."""
    plan = runs.read_plan(folder)
    failed = {k: v for k, v in runs.failures(folder).items() if not runs.is_finished(folder / k)}
    states = dict.fromkeys(failed, "failed")
    rows: list[dict[str, Any]] = []
    kept_bytes, same = 0, _Same()
    planned = plan["cells"]
    found = {path.name for path in folder.iterdir() if path.is_dir()}
    for name in sorted((found | planned.keys()) - states.keys()):
        path = folder / name
        if runs.is_finished(path):
            row, columns = _read_run(path)
            spots = "bound_x" in columns
            kept_bytes += spots * sum(column.nbytes for column in columns.values())
            row["predictions"] = Predictions(path, columns, spots and kept_bytes <= _KEPT_BYTES)
            rows.append({intern(key): same.as_before(value) for key, value in row.items()})
        elif (path / runs.CONFIG).is_file() or (name in planned and any(path.glob("*"))):
            states[name] = "interrupted or running"
        elif name in planned:
            states[name] = "not begun"
    if not rows:
        raise UserError(_nothing(folder, states.values(), failed.values()))
    table = pd.DataFrame(rows, dtype=object)
    told = table["settings"].map(id)  # equal ones are the same
    repeated = table[["model", "split", "seeds"]].assign(settings=told).duplicated()
    unfinished = [
        _unfinished(folder / name, planned.get(name), state, failed.get(name, ""), table)
        for name, state in states.items()
    ]
    left_out = table.loc[repeated, "cell"].tolist()
    return Sweep(folder.resolve().name, table[~repeated], unfinished, plan["commands"], left_out)


class _Same:
    """Finds texts and settings that were there before: thousands of runs have few that differ."""

    def __init__(self) -> None:
        self.before: dict[bytes, Any] = {}

    def as_before(self, value: Any) -> Any:
        """Return an equal text or dictionary that was there before, or the value."""
        if isinstance(value, str):
            return intern(value)
        if not isinstance(value, dict):
            return value
        known = blake2b(repr(value).encode(), digest_size=16).digest()
        if known not in self.before:
            self.before[known] = {intern(key): self.as_before(one) for key, one in value.items()}
        return self.before[known]


def comparison(table: pd.DataFrame) -> str:
    """Write every run's figures as CSV, the smallest mean error first."""
    ours = ["folder", "settings", "seeds", "overrides", "predictions", "tested", "versions"]
    shown = table.sort_values(MEAN_ERROR, kind="stable").drop(columns=ours, errors="ignore")
    return str(shown.to_csv(index=False, lineterminator="\n"))


def is_figure(value: object) -> bool:
    """Tell whether an entry of ``metrics.json`` is a number."""
    return isinstance(value, int | float) and math.isfinite(value)


def telling(settings: Mapping[str, Any], solved: bool) -> dict[str, Any]:
    """Return the settings that tell groups apart: no seeds, and nothing that was not used."""
    unused = _STEPWISE if solved else ()
    return runs.without(settings, *SEEDS, "experiment", *runs.FREE_SETTINGS, *unused)


def _nothing(folder: Path, states: Iterable[str], reasons: Iterable[str]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states).items())
    if not counts:
        return f"{folder} holds no run folders: nothing to report"
    why = "".join(f" ({reason})" for reason in [*reasons][:1])
    return f"{folder}: no cell is finished, nothing to report: {counts}{why}"


def _read_run(folder: Path) -> tuple[dict[str, Any], Columns]:
    metrics, file = runs.read_metrics(folder), folder / runs.METRICS
    if not (folder / runs.CONFIG).is_file():
        raise UserError(f"{folder} is no training run's: it lacks {runs.CONFIG}")
    overrides = _read_overrides(folder)
    if metrics.get("split", "") is None:  # of data that are not shared out
        metrics["split"] = overrides.get("scenario", "all")
    lacking = [key for key in ("model", "split") if not isinstance(metrics.get(key), str)]
    lacking += [key for key in _NEEDED if not is_figure(metrics.get(key))]
    if lacking:
        raise UserError(f"{file} is no training run's, or damaged: it lacks {lacking[0]}")
    predictions = runs.read_predictions(folder)
    truth = as_xy(predictions, "_true")
    try:
        last = sides_px(as_size(metrics.get("image_size", ())), truth) - 0.5
    except UserError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    outside = (truth < -0.5) | (truth > last)
    if outside.any() or len(truth) != metrics.get("test/count", len(truth)):
        raise UserError(f"{folder / runs.PREDICTIONS} does not fit {runs.METRICS} beside it")
    settings = runs.settings_of(runs.read_yaml(folder / runs.CONFIG, dict))
    if settings.get("trainer.precision") == "32-true" and "trainer.precision" not in overrides:
        settings["trainer.precision"] = "auto"  # the default of before, where nobody chose
    if "scenario" in overrides:  # its name stands for them
        settings = {k: v for k, v in settings.items() if k in overrides or not k.startswith(_SCENE)}
    row = {
        "cell": folder.name,
        **metrics,
        "folder": folder,
        "settings": telling(settings, solved=metrics.get("lr", 0) is None),
        "seeds": repr([settings.get(key) for key in SEEDS]),
        "overrides": overrides,
        "tested": len(truth),
    }
    return row, predictions


def _read_overrides(folder: Path) -> dict[str, str]:
    """Return what a grid set in a cell: ``{"model": "cnn", "optim.lr": "0.001"}``."""
    file = folder / runs.OVERRIDES
    lines = runs.read_yaml(file, list) if file.is_file() else []
    return {key: value for key, _, value in (str(line).partition("=") for line in lines)}


def _unfinished(
    folder: Path, planned: dict[str, str] | None, state: str, reason: str, table: pd.DataFrame
) -> Unfinished:
    """Say what a cell without figures would have been; what it does not set, the others show."""
    overrides = planned or _read_overrides(folder)
    known: dict[str, Any] = dict(overrides)
    if (folder / runs.CONFIG).is_file():
        known |= runs.settings_of(runs.read_yaml(folder / runs.CONFIG, dict))
    if (folder / runs.HYDRA).is_file():  # an ablation chooses its model
        hydra = runs.settings_of(runs.read_yaml(folder / runs.HYDRA, dict))
        known["model"] = hydra.get("hydra.runtime.choices.model", known.get("model"))
    if known.get("model") == "closed_form":
        known["model"] = known.get("model.estimator")
    if "scenario" in overrides:
        known["data.split"] = overrides["scenario"]
    model, split = (
        known.get(key) or (column.iloc[0] if column.nunique() == 1 else "unknown")
        for key, column in (("model", table["model"]), ("data.split", table["split"]))
    )
    return Unfinished(folder.name, overrides, state, reason, str(model), str(split))
