"""The run folder and the grid's folder: what is in them, and who may write there."""

import errno
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from filelock import FileLock, Timeout
from torch import Tensor

import pixel_spotter
from pixel_spotter.coordinates import FLAGS, Columns
from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write, write_text

METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
EPOCHS = "epochs.csv"
WORST = "worst.npz"
SHOWN = "shown.npz"
FAILURE = "failure.txt"
PLAN = "plan.json"
LOCK = ".lock"
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
KEPT = "checkpoints/after_{}"  # so many epochs: both, for a shorter run

CONFIG = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
HYDRA = ".hydra/hydra.yaml"

FREE_SETTINGS = (
    *("name", "max_time", "trust", "data.num_workers", "logger", "trainer.enable_progress_bar"),
    *("trainer.fast_dev_run", "trainer.max_time", "grid_seeds"),  # the last of version 0.1
)
"""Settings, and groups of them, that do not change what a run finds."""

_CLOSED_FORM = "pixel_spotter.models.closed_form.ClosedForm"
_CLASSES_OF_0_1 = {  # what configs called classes that have moved since
    "pixel_spotter.data.PixelDataModule": "pixel_spotter.data.pixels.PixelDataModule",
    "pixel_spotter.callbacks.StopEarly": "pixel_spotter.training.callbacks.StopEarly",
    "pixel_spotter.models.argmax.ArgmaxRegressor": _CLOSED_FORM,
    "pixel_spotter.models.centroid.CentroidRegressor": _CLOSED_FORM,
}

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in a tenth of the time

_GROUPS = ("${optim}", "${scheduler}")  # repeated by models' configs: compared where they stand


class InUseError(UserError):
    """Another process works in the run folder."""


@contextmanager
def owned(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Keep a run folder, or another path, for this process until the end; or raise InUseError.

    The lock is on the open file ``lock``, ``.lock`` in the folder.
    """
    lock = lock or path / LOCK
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, timeout_s=0))
        except Timeout:
            raise InUseError(
                f"another process is at work in {path}: wait for it, or choose another name"
            ) from None
        yield


@contextmanager
def locked(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Wait for a lock, and hold it until the end; without end, or raise filelock's Timeout.

    It is the operating system's, on an open file: it ends with the process, on whichever machine,
    and holds on network file systems that support locks at all.
    """
    try:
        held = FileLock(path, fallback_to_soft=False).acquire(timeout=timeout_s)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise UserError(
            f"the file system of {path.parent} cannot lock files: {error.strerror}"
        ) from error
    with held:
        yield


@contextmanager
def _undamaged(path: Path, remedy: str = "") -> Iterator[None]:
    """Say of a file whose content cannot be what it should that it is damaged."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever JSON, YAML, zip, pandas and NumPy make of damage
        raise UserError(f"{path} is damaged{remedy}") from error


def is_finished(run_dir: Path) -> bool:
    """Tell whether a run has come to its end: its figures are written last."""
    return (run_dir / METRICS).is_file()


def is_open(run_dir: Path) -> bool:
    """Tell whether something is left to do in a run: its time was up, or figures are damaged."""
    try:
        return not is_finished(run_dir) or read_metrics(run_dir).get("ended") == "max_time"
    except UserError:
        return True


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """Read a finished run's figures."""
    with _undamaged(run_dir / METRICS, "; delete it to redo the run"):
        return {**json.loads((run_dir / METRICS).read_text(encoding="utf-8"))}


def write_metrics(run_dir: Path, metrics: Mapping[str, Any]) -> None:
    """Write a run's figures, which says that it is finished."""
    write_text(run_dir / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def write_predictions(run_dir: Path, columns: Columns) -> None:
    """Write ``predictions.csv``: float32 columns are read back as they were."""
    table = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    if "flag" in table:
        table["flag"] = [FLAGS[int(flag)] for flag in table["flag"]]
    with atomic_write(run_dir / PREDICTIONS) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_predictions(run_dir: Path) -> Columns:
    """Read all columns of a run's predictions and truths."""
    with _undamaged(run_dir / PREDICTIONS, " or no file of predictions"):
        table = pd.read_csv(run_dir / PREDICTIONS)
        if "split" in table:  # of version 0.1
            table = table.drop(columns="split").rename(columns={"x_pred": "x", "y_pred": "y"})
        if "flag" in table:
            table["flag"] = [FLAGS.index(flag) for flag in table["flag"].fillna("")]
        columns = {
            name: torch.tensor(column.to_numpy("int64" if name == "sample" else "float32"))
            for name, column in table.items()
        }
        # Where nothing was found there is no position, and a flag that says so.
        names = ("x_true", "y_true") if "flag" in columns else ("x", "y", "x_true", "y_true")
        needed = torch.stack([columns[name] for name in names])
        if not needed.numel() or not needed.isfinite().all():
            raise ValueError("no positions")
    return columns


def write_images(run_dir: Path, name: str, columns: Columns, images: Tensor) -> None:
    """Keep images (K, H, W) and the columns of their predictions, (K,) each: `WORST`, `SHOWN`."""
    with atomic_write(run_dir / name) as temporary:
        arrays: dict[str, Any] = {name: column.numpy() for name, column in columns.items()}
        np.savez_compressed(temporary, image=images.numpy(), **arrays)


def read_images(run_dir: Path, name: str) -> tuple[Columns, Tensor]:
    """Read the columns of predictions and their images (K, H, W), if a run kept any."""
    path = run_dir / name
    if not path.is_file():  # version 0.1 kept none
        return {}, torch.zeros(0, 0, 0)
    with _undamaged(path), np.load(path, allow_pickle=False) as arrays:
        columns = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return columns, columns.pop("image")


def read_epochs(run_dir: Path) -> pd.DataFrame:
    """Read a run's figures by epoch: a row each, empty if there are none."""
    path = run_dir / EPOCHS
    if not path.is_file():
        return pd.DataFrame({"epoch": []})
    with _undamaged(path):
        return pd.read_csv(path).set_index("epoch", drop=False)


def write_epochs(run_dir: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    """Write a run's figures by epoch."""
    with atomic_write(run_dir / EPOCHS) as temporary:
        pd.DataFrame(epochs).to_csv(temporary, index=False, lineterminator="\n")


def read_plan(folder: Path) -> dict[str, Any]:
    """Read what a grid was to run: ``{"commands": [[override, ...]], "cells": {name: {...}}}``."""
    path = folder / PLAN
    if not path.is_file():
        return {"commands": [], "cells": {}}
    with _undamaged(path, "; delete it and give the grid's command again"):
        plan = json.loads(path.read_text(encoding="utf-8"))
        cells = {name: dict(cell) for name, cell in plan["cells"].items()}
        return {"commands": list(plan["commands"]), "cells": cells}


def add_to_plan(
    folder: Path, command: Sequence[str], cells: Mapping[str, Mapping[str, str]]
) -> None:
    """Add a command, as its overrides, and its cells, by their folders, to a grid's plan."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{LOCK}.{PLAN}"):  # two commands may begin at the same moment
        plan = read_plan(folder)
        plan["cells"] |= cells
        plan["commands"] = [*(one for one in plan["commands"] if one != [*command]), [*command]]
        write_text(folder / PLAN, json.dumps(plan, indent=1) + "\n")


def failures(folder: Path) -> dict[str, str]:
    """Return the cells of a grid that failed, each with its reason."""
    return {
        file.parent.name: file.read_text(encoding="utf-8", errors="replace").strip()
        for file in sorted(folder.glob(f"*/{FAILURE}"))
    }


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn cells with reasons into reasons with cells: what happened often is told once."""
    found: dict[str, list[str]] = {}
    for cell, reason in reasons.items():
        found.setdefault(reason, []).append(cell)
    return found


def folder_name(overrides: str) -> str:
    """Make a cell's overrides into the name of one folder, of at most 200 bytes."""
    name = overrides.replace("/", "_") or "default"
    if len(name.encode()) <= 200:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return name.encode()[:180].decode(errors="ignore") + "..." + digest


def read_yaml(path: Path, kind: type) -> Any:
    """Read one of a run's YAML files, a dict or a list: interpolations stay as they are written."""
    with _undamaged(path):
        content = yaml.load(path.read_text(encoding="utf-8"), _YAML)
        if not isinstance(content, kind):
            raise TypeError
        return content


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run's figures follow from: ``{"optim.lr": 0.001, ...}``."""
    settings = {
        key: _CLASSES_OF_0_1.get(value, value) if isinstance(value, str) else value
        for key, value in flat(config).items()
        if value not in _GROUPS
    }
    return without(settings, *FREE_SETTINGS)


def without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Leave out settings, and groups of them, by their names."""
    groups = tuple(f"{name}." for name in names)
    return {key: value for key, value in settings.items() if not f"{key}.".startswith(groups)}


def where_it_ran(device: torch.device) -> dict[str, Any]:
    """Return the entries of ``metrics.json`` that say on what a run ran."""
    units = torch.cpu._is_avx512_bf16_supported()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": torch.backends.cpu.get_cpu_capability() + (", bfloat16" if units else ""),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "lightning": version("lightning"),
            "pixel_spotter": pixel_spotter.__version__,
        },
    }


def flat(container: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a nested config by their full keys: ``{"optim.lr": 0.001, ...}``."""
    found: dict[str, Any] = {}
    for key, value in container.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
