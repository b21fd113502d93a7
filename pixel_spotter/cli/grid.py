"""What happens around a grid: its plan before it, progress in it, the report after it."""

import json
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig

from pixel_spotter import runs
from pixel_spotter.cli import mistakes
from pixel_spotter.errors import BadValueError, UserError
from pixel_spotter.files import write_text

log = logging.getLogger(__name__)

under_way: list["AroundGrid"] = []  # the grid that this process runs, if it does

_START = ".start.json"  # when its last command began, after how much: progress is told from it
# What can keep a cell from running: those that have the same in these are tried once.
_TRIED = re.compile(r"model(\.weights)?|ablation|experiment|trainer(\.devices)?|data\.num_workers")

Cells = dict[str, dict[str, str]]  # what a grid sets in each, by the names of their folders


class AroundGrid(Callback):
    """Writes a grid's plan when it starts and its report when it ends."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Plan the cells, and refuse what cannot run before anything has."""
        self.folder = Path(config.hydra.sweep.dir)
        self.start_s = time.time()
        self.dry_run = bool(config.trainer.fast_dev_run)
        # Hydra turns exceptions of callbacks into warnings; SystemExit goes through.
        try:
            cells = _planned(config)
            cannot = _try(config, cells)
            if self.dry_run:
                return
            runs.add_to_plan(self.folder, [*config.hydra.overrides.task], cells)
            start = {"time_s": self.start_s, "done": len(_done(self.folder)), "cannot": cannot}
            write_text(self.folder / _START, json.dumps(start))
        except Exception as error:
            raise SystemExit(f"error: {mistakes.user_message(error) or repr(error)}") from error
        under_way.append(self)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the grid's cells; end in an error that names the reasons of failed ones."""
        if problem := self.report():
            raise SystemExit(f"error: {problem}")

    def report(self) -> str:
        """Write and print the report; return what is wrong, if anything is."""
        # Every training command makes this callback; only a grid's end needs these.
        from pixel_spotter.report import print_report, write_report

        under_way.clear()
        failed = {
            cell: reason
            for cell, reason in runs.failures(self.folder).items()
            if (self.folder / cell / runs.FAILURE).stat().st_mtime >= self.start_s - 1
        }  # files have coarser times
        problem = f"{len(failed)} cells failed" if failed else ""
        try:
            if not self.dry_run:
                print_report(write_report(self.folder), self.folder)
        except Exception as error:
            lines = [f"no report: {mistakes.user_message(error) or repr(error)}", f"{problem}:"]
            for reason, cells in runs.by_reason(failed).items():
                named = cells[0] if len(cells) == 1 else f"{len(cells)} cells, {cells[0]} the first"
                lines.append(f"  {named}: {reason}")
            problem = "\n".join(lines) if failed else lines[0]
        return problem


def run_cell(run_dir: Path, train: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Train a grid's cell; return its figures, or None where it failed, saying why, or is taken."""
    failure = run_dir / runs.FAILURE
    metrics = None
    try:
        cannot = _start(run_dir.parent).get("cannot", {})
        if run_dir.name in cannot:
            raise UserError(cannot[run_dir.name])
        metrics = train()
        failure.unlink(missing_ok=True)
    except runs.InUseError as error:
        log.info("left to the process that has it: %s", error)
    except Exception as error:
        message = mistakes.user_message(error)
        if message is None:
            log.exception("failed: %s", run_dir)
            message = f"{type(error).__name__}: {error}; see {run_dir / 'train.log'}"
        if runs.is_finished(run_dir):  # what is finished stays so
            log.error("%s", message)
        else:
            write_text(failure, message + "\n")
    _tell_progress(run_dir.parent)
    return metrics


def _tell_progress(folder: Path) -> None:
    start, planned = _start(folder), runs.read_plan(folder)["cells"]
    done, failed = (
        len([name for name in cells if name in planned or not planned])
        for cells in (_done(folder), runs.failures(folder))
    )
    left = len(planned) - done - failed if planned else 0  # other sweepers plan as they go
    words = f"{done}/{len(planned)} done" if planned else f"{done} done"
    if failed:
        words += f", {failed} failed"
    now = done - start.get("done", done)
    if left and now > 0:
        words += f", about {_duration((time.time() - start['time_s']) / now * left)} left"
    log.info("%s", words)


def _start(folder: Path) -> Any:
    file = folder / _START
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _done(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob(f"*/{runs.METRICS}")}


def _duration(seconds: float) -> str:
    """Write a time as people say it: ``40 s``, ``12 min``, ``1 h 40 min``."""
    if seconds < 60:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _planned(config: DictConfig) -> Cells:
    """Return the cells of Hydra's own sweeper; another one decides as it goes."""
    hydra = config.hydra
    if not hydra.sweeper._target_.endswith(".BasicSweeper"):
        return {}
    grid = [f"{key}={values}" for key, values in (hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*grid, *hydra.overrides.task])
    sweeper: Any = get_class(hydra.sweeper._target_)
    (listed,) = sweeper.split_arguments(overrides, None)
    excluded = hydra.job.config.override_dirname.exclude_keys
    cells = {}
    for words in listed:
        cell = {key: value for key, _, value in (word.partition("=") for word in words)}
        named = (word for word in words if word.lstrip("+~").partition("=")[0] not in excluded)
        cells[runs.folder_name(",".join(sorted(named)))] = cell  # as conf/train.yaml has it
    return cells


def _try(config: DictConfig, cells: Cells) -> dict[str, str]:
    """Look before the grid starts for what cannot work; refuse it, or say why some cells cannot."""
    kinds: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, cell in cells.items():
        kinds[_kind(cell)].append(name)
    cannot: dict[str, str] = {}
    asked = config.hydra.overrides.get("hydra", [])
    found_in = [word for word in asked if "hydra.searchpath" in word]  # where configs may be
    composed = {}
    for name in _telling(cells):
        overrides = [*found_in, *_words(cells[name])]
        loader = GlobalHydra.instance().config_loader()
        composed[name] = loader.load_configuration("train", overrides, RunMode.RUN)
    for cfg in [*composed.values()] or [config]:  # another sweeper finds its cells as it goes
        _refuse_processes(cfg, config.hydra.launcher._target_)
        _refuse_values(cfg)
    for name, cfg in composed.items():
        names = kinds.pop(_kind(cells[name]), [])
        try:
            if names and cfg.model.get("weights") is not None:
                mistakes.instantiate(cfg.model, "model")
        except UserError as error:
            cannot |= dict.fromkeys(names, str(error))
            log.warning("%d of %d cells cannot run: %s", len(names), len(cells), error)
            if len(cannot) == len(cells):
                raise
    return cannot


def _kind(cell: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for word in _words(cell) if _TRIED.fullmatch(word.partition("=")[0]))


def _words(cell: dict[str, str]) -> list[str]:
    return [key if key[0] == "~" and not value else f"{key}={value}" for key, value in cell.items()]


def _telling(cells: Cells) -> list[str]:
    """Pick few cells with each kind and each value; of whole numbers the least and the greatest."""
    has = {name: {*_words(cell), _kind(cell)} for name, cell in cells.items()}
    left = {one for ones in has.values() for one in ones}
    for key in {key for cell in cells.values() for key in cell}:
        values = {cell[key] for cell in cells.values() if key in cell}
        whole = sorted((value for value in values if re.fullmatch(r"-?\d+", value)), key=int)
        left -= {f"{key}={value}" for value in whole[1:-1]}
    picked: list[str] = []
    while left:
        picked.append(max(has, key=lambda name: len(has[name] & left)))
        left -= has[picked[-1]]
    return picked


def _refuse_values(cfg: DictConfig) -> None:
    """Refuse settings that are none, and values that none of a grid's cells could have."""
    mistakes.refuse_unknown_settings(cfg, "train")
    mistakes.refuse_out_of_range(cfg)
    for key, value in cfg.items():
        made = isinstance(value, DictConfig) and "_target_" in value
        if made and value.get("patience", 0) is not None:  # or it never stops early
            mistakes.check_types(value, str(key))
    try:
        mistakes.instantiate(cfg.data, "data")
    except BadValueError:
        raise
    except UserError:
        pass  # with these values; others may go together with some of them


def _refuse_processes(cfg: DictConfig, launcher: str) -> None:
    devices = cfg.trainer.devices
    if not (devices in (1, "1") or (isinstance(devices, ListConfig) and len(devices) == 1)):
        raise UserError("a grid trains each cell on one device: leave out trainer.devices")
    if "joblib" in launcher and cfg.data.num_workers != 0:
        raise UserError(
            "data.num_workers: cells that run side by side cannot have processes of their own; "
            "leave it out (0 is fastest), or add hydra/launcher=basic"
        )
