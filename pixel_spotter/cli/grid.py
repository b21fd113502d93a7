"""What happens around a grid: its plan before it, progress in it, the report after it."""

import errno
import logging
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, ListConfig

from pixel_spotter import runs
from pixel_spotter.arguments import require
from pixel_spotter.cli import mistakes
from pixel_spotter.cli.cells import (
    Cells,
    Configs,
    finished,
    planned,
    run_only,
    time_is_up,
    words_of,
)
from pixel_spotter.cli.family import trainings
from pixel_spotter.cli.placement import place, take_gpu
from pixel_spotter.errors import BadValueError, UserError, chain
from pixel_spotter.files import write_text

log = logging.getLogger(__name__)

under_way: list["AroundGrid"] = []  # the grid that this process runs, if it does

# What can keep a cell from running: those that have the same in these are tried once.
_TRIED = re.compile(r"model(\.weights)?|ablation|experiment|trainer(\.devices)?|data\.num_workers")

_COUNTING = 0.01  # so much of a process's time may go into counting cells


class AroundGrid(Callback):
    """Writes a grid's plan when it starts and its report when it ends."""

    until_s: float | None = None  # when the grid's time is up, by the monotonic clock
    gpus: tuple[str, ...] = ()  # that its processes share

    def __getstate__(self) -> dict[str, Any]:
        """Take along into other processes, with each cell, no more than they need."""
        return {"until_s": self.until_s, "gpus": self.gpus}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Plan the cells, and refuse what cannot run before anything has."""
        self.folder = Path(config.hydra.sweep.dir)
        self.dry_run = bool(config.trainer.fast_dev_run)
        # Hydra turns exceptions of callbacks into warnings; SystemExit goes through.
        try:
            self._start(config, time.monotonic())
        except Exception as error:
            raise SystemExit(f"error: {mistakes.user_message(error) or repr(error)}") from error

    def _start(self, config: DictConfig, begun_s: float) -> None:
        self.cells = planned(config)
        configs = Configs(config, self.cells) if self.cells else None
        composed = {name: configs.of(name) for name in _telling(self.cells)} if configs else {}
        telling = [*composed.values()] or [config]  # another sweeper finds its cells as it goes
        cannot = _try(config, self.cells, composed, telling)

        def most(enough: int) -> int:
            if configs is None:  # Optuna's sweeper says so, others have no such setting
                return int(config.hydra.sweeper.get("n_jobs", 1))
            return trainings(self.cells, configs.of, enough)

        self.before = _marks(self.folder)
        limit = telling[0].max_time  # the same in all
        if limit is not None:
            self.until_s = begun_s + seconds(limit)
        tried = {*self.cells} if self.dry_run else set()
        begun = {name for name in self.cells.keys() - tried if runs.is_finished(self.folder / name)}
        done = finished(self.folder, configs, begun) if configs else set()
        apart = (done | cannot.keys()) - tried
        left = {name: cell for name, cell in self.cells.items() if name not in apart}
        if configs is not None:
            configs.compose_each_kind(left)
            run_only(left, self.until_s)
        if left or configs is None:
            self.gpus = place(config, telling, most)
        if self.dry_run:
            return
        if done:
            log.info("%d of %d cells are finished already", len(done), len(self.cells))
        for name in cannot.keys() - begun:
            write_text(self.folder / name / runs.FAILURE, cannot[name] + "\n")
        for name in self.before.keys() & done:
            (self.folder / name / runs.FAILURE).unlink(missing_ok=True)
        runs.add_to_plan(self.folder, [*config.hydra.overrides.task], self.cells)
        _progress.pop(self.folder, None)
        under_way.append(self)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Tell the process that a cell runs in when the grid's time is up, and its GPU."""
        _until_s[:] = [] if self.until_s is None else [self.until_s]
        take_gpu(self.gpus)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Drop what Hydra keeps of each cell until the end: thousands would fill the memory."""
        job_return.cfg = job_return.hydra_cfg = None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the grid's cells; end in an error that names the reasons of failed ones."""
        if problem := self.report():
            raise SystemExit(f"error: {problem}")

    def report(self) -> str:
        """Write and print the report; return what is wrong, if anything is."""
        # Every training command makes this callback; only a grid's end needs these.
        from pixel_spotter.report import print_report, write_report

        under_way.clear()
        now, reasons = _marks(self.folder), runs.failures(self.folder)
        failed = {k: why for k, why in reasons.items() if now.get(k) != self.before.get(k)}
        problem = f"{len(failed)} cells failed" if failed else ""
        try:
            if not self.dry_run:
                with runs.locked(self.folder / f"{runs.LOCK}.{runs.PLAN}"):
                    written = write_report(self.folder)  # one, when two commands end together
                print_report(written, self.folder)
        except Exception as error:
            lines = [f"no report: {mistakes.user_message(error) or repr(error)}", f"{problem}:"]
            for reason, cells in runs.by_reason(failed).items():
                named = cells[0] if len(cells) == 1 else f"{len(cells)} cells, {cells[0]} the first"
                lines.append(f"  {named}: {reason}")
            problem = "\n".join(lines) if failed else lines[0]
        if time_is_up(self.until_s):
            left = [
                name
                for name in self.cells
                if name not in failed and runs.is_open(self.folder / name)
            ]
            if left or not self.cells:
                which = f"{len(left)} of {len(self.cells)} cells are left" if left else "time is up"
                print(f"max_time: {which}, the same command continues")
        return problem


_until_s: list[float] = []  # when the time of this process's grid is up, if it is limited


class NoTimeLeftError(UserError):
    """A grid's time was up before a cell had begun."""


def refuse_late() -> None:
    """Raise NoTimeLeftError if the time of this process's grid is up."""
    if any(map(time_is_up, _until_s)):
        raise NoTimeLeftError("the grid's time is up")


def training_time(limit: str | None) -> timedelta | None:
    """Return how long a training may take: until its limit, ``DD:HH:MM:SS``, or its grid's."""
    left = [until_s - time.monotonic() for until_s in _until_s]
    left += [] if limit is None else [seconds(limit)]
    return timedelta(seconds=max(0.0, min(left))) if left else None


def seconds(time_: str) -> int:
    """Return how long ``DD:HH:MM:SS`` is, s."""
    days, hours, minutes, rest = map(int, time_.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def run_cell(run_dir: Path, train: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Train a grid's cell; return its figures, or None.

    None is of a cell that failed, saying why, that another process has, or that has no time left.
    """
    folder, failure = run_dir.parent, run_dir / runs.FAILURE
    progress = _progress.get(folder) or _progress.setdefault(folder, _Progress(folder))
    metrics = None
    try:
        metrics = train()
        failure.unlink(missing_ok=True)
        progress.done.add(run_dir.name)
        progress.failed.discard(run_dir.name)
    except runs.InUseError as error:
        log.info("left to the process that has it: %s", error)
    except NoTimeLeftError:
        return None
    except Exception as error:
        message = mistakes.user_message(error)
        if _has_no_room(error):  # nor would the others, whose failures it would not be
            raise UserError(f"{message}: make room, the same command continues") from error
        if message is None:
            log.exception("failed: %s", run_dir)
            message = f"{type(error).__name__}: {error}; see {run_dir / 'train.log'}"
        if runs.is_finished(run_dir):  # what is finished stays so
            log.error("%s", message)
        else:
            write_text(failure, message + "\n")
            progress.failed.add(run_dir.name)
    log.info("%s", progress.told())
    return metrics


def _has_no_room(error: BaseException) -> bool:
    """Tell whether something was not written as the disk, or the user's part of it, is full."""
    return any(
        isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT)
        for one in chain(error)
    )


class _Progress:
    """How many of a grid's cells are done, by which processes ever.

    The folder is looked through only as often as that takes little of the time; in between, a
    process knows of its own cells.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start_s = time.monotonic()
        self._count()
        self.before = len(self.done)

    def _count(self) -> None:
        start_s = time.monotonic()
        self.planned = runs.read_plan(self.folder)["cells"].keys()
        done, failed = (
            {path.parent.name for path in self.folder.glob(f"*/{name}")}
            for name in (runs.METRICS, runs.FAILURE)
        )
        self.done = done & self.planned if self.planned else done
        self.failed = failed & self.planned if self.planned else failed
        self.counted_s = time.monotonic()
        self.cost_s = self.counted_s - start_s

    def told(self) -> str:
        """Say how far the grid is, and how long the rest will take."""
        now_s = time.monotonic()
        if (now_s - self.counted_s) * _COUNTING > self.cost_s:
            self._count()
        done, failed, planned = len(self.done), len(self.failed), len(self.planned)
        left = planned - done - failed if planned else 0  # other sweepers plan as they go
        words = f"{done}/{planned} done" if planned else f"{done} done"
        if failed:
            words += f", {failed} failed"
        if left > 0 and done > self.before:
            rest_s = (now_s - self.start_s) / (done - self.before) * left
            words += f", about {_duration(rest_s)} left"
        return words


_progress: dict[Path, _Progress] = {}


def _duration(seconds: float) -> str:
    """Write a time as people say it: ``40 s``, ``12 min``, ``1 h 40 min``."""
    if seconds < 60:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _marks(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what tells each failure of a grid's cells from an earlier one, whatever the clock."""
    found = {file.parent.name: file.stat() for file in folder.glob(f"*/{runs.FAILURE}")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def _try(
    config: DictConfig, cells: Cells, composed: dict[str, DictConfig], telling: list[DictConfig]
) -> dict[str, str]:
    """Look before the grid starts for what cannot work; refuse it, or say why some cells cannot."""
    most = config.hydra.sweeper.get("max_batch_size")
    require(most is None or most > 0, "hydra.sweeper.max_batch_size", "at least 1", most)
    kinds: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, cell in cells.items():
        kinds[_kind(cell)].append(name)
    cannot: dict[str, str] = {}
    for cfg in telling:
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
    return tuple(word for word in words_of(cell) if _TRIED.fullmatch(word.partition("=")[0]))


def _telling(cells: Cells) -> list[str]:
    """Pick few cells with each kind and each value; of numbers the least and the greatest."""
    has = {name: {*words_of(cell), _kind(cell)} for name, cell in cells.items()}
    left = {one for ones in has.values() for one in ones}
    for key in {key for cell in cells.values() for key in cell}:
        values = {cell[key] for cell in cells.values() if key in cell}
        for kind in (r"-?\d+", r"-?\d*\.\d+"):  # whole or not: some settings take one only
            numbers = sorted((value for value in values if re.fullmatch(kind, value)), key=float)
            left -= {f"{key}={value}" for value in numbers[1:-1]}
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
    if cfg.max_time is not None and not launcher.endswith(("BasicLauncher", "JoblibLauncher")):
        raise UserError("max_time is for grids on this machine: elsewhere, hydra.launcher has one")
    devices = cfg.trainer.devices
    if not (devices in (1, "1") or (isinstance(devices, ListConfig) and len(devices) == 1)):
        raise UserError("a grid trains each cell on one device: leave out trainer.devices")
