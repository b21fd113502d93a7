"""Where a grid's cells run: how many at once, with how many threads each, on which GPUs."""

import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import current_process
from pathlib import Path

import torch
from joblib import cpu_count
from omegaconf import DictConfig, ListConfig, open_dict, read_write

from pixel_spotter.arguments import require
from pixel_spotter.errors import UserError

log = logging.getLogger(__name__)

_JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"

_GIB = 2**30
_LEAST = 0.5 * _GIB  # what a process has for itself once it has imported everything
_USUAL = 1.5 * _GIB  # what one has that trains: a ResNet18 1.1, the other models 0.6
_ON_GPU = 2 * _GIB  # of a GPU's memory: guessed, there was none to measure on

_ASK_GPUS = """import torch
print(*(torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())))"""


def place(
    config: DictConfig, cells: Sequence[DictConfig], most: Callable[[int], int]
) -> tuple[str, ...]:
    """Have Hydra run as many of a grid's cells at once as fit, and say so in the log.

    What the user says wins; joblib shares the cores evenly among its processes. A command is placed
    alike however many of its cells are left: with other threads, figures are rounded otherwise.

    Args:
        config: the grid's, whose launcher is changed. Others than joblib's are left alone.
        cells: configs in which each value that the cells have comes up.
        most: returns how many cells can run at once, counted no further than it is told.

    Returns:
        The GPUs over which the cells are spread, for `take_gpu`.

    Raises:
        UserError: if the user asks for more at once than can be.
    """
    launcher = config.hydra.launcher
    if launcher._target_ != _JOBLIB:
        return ()
    asked, memory, fitting = launcher.n_jobs, free_memory(), _fitting_on_gpus(cells)
    require(asked != 0, "hydra.launcher.n_jobs", "at least 1, or -1 for as many as fit", asked)
    gpus = {gpu: number for gpu, number in fitting.items() if number}
    processes = any(cell.data.num_workers != 0 for cell in cells)
    limits = {f"hydra.launcher.n_jobs={asked}": asked}
    if asked < 0:  # -1 is all cores, -2 all but one
        limits = {f"{cpu_count()} cores": (cpu_count() + 1 + asked) // (_threads_asked() or 1)}
        if memory < math.inf:
            limits[f"{memory / _GIB:.1f} GiB of memory free"] = int(memory / _USUAL)
        if fitting:
            limits["free memory of GPUs"] = len(gpus) * min(gpus.values(), default=0)
        if processes:
            limits["data.num_workers"] = 1
    why, fit = min(limits.items(), key=lambda limit: limit[1])
    at_once = min(max(1, fit), most(max(1, fit)))
    if at_once > 1 and processes:
        raise UserError(
            "data.num_workers: cells that run side by side cannot have processes of their own; "
            "leave it out (0 is fastest), or add hydra/launcher=basic"
        )
    if at_once > 1 and at_once * _LEAST > memory:
        raise UserError(
            f"{why}: {at_once} cells at once take at least {at_once * _LEAST / _GIB:.1f} GiB, "
            f"{memory / _GIB:.1f} GiB of memory are free; {max(1, int(memory / _USUAL))} fit"
        )
    others = "no other can run meanwhile" if at_once == 1 else "all"
    because = why if at_once == max(1, fit) else others
    if at_once == 1:  # in this process, with all threads
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.launcher = {"_target_": _BASIC}
        log.info("one cell after another (%s)", because)
    else:
        with read_write(config.hydra):
            launcher.n_jobs = at_once
        threads = _threads_asked() or max(1, cpu_count() // at_once)
        each = f"{threads} thread{'s' if threads > 1 else ''} each"
        log.info("%d cells at once with %s (%s)", at_once, each, because)
    named = any(isinstance(cell.trainer.devices, ListConfig) for cell in cells)
    return () if named else tuple(gpus)


def _threads_asked() -> int:
    """Return how many threads the user wants each process to have; 0 if that is not said."""
    found = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))
    return int(found[0]) if found else 0


def free_memory(root: Path = Path("/")) -> float:
    """Return the free bytes of the machine, or of a control group; inf if nothing tells them."""
    free = [math.inf]
    if found := re.search(r"MemAvailable: +(\d+) kB", _read(root / "proc/meminfo")):
        free.append(1024.0 * int(found[1]))
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        names = ("limit_in_bytes", "usage_in_bytes") if kinds else ("max", "current")
        here = root / "sys/fs/cgroup" / ("memory" if kinds else "") / path.lstrip("/")
        for group in (here, *here.parents):  # a container may see its own as the topmost
            limit, used = (_read(group / f"memory.{name}").strip() for name in names)
            if limit.isdigit() and used.isdigit():
                files = re.findall(r"inactive_file (\d+)", _read(group / "memory.stat"))
                free.append(float(limit) - float(used) + max(map(float, files), default=0.0))
    return min(free)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _fitting_on_gpus(cells: Sequence[DictConfig]) -> dict[str, int]:
    """Return how many cells have room on each GPU that some may use.

    A process of its own looks, as memory of each GPU is taken by whoever does.
    """
    devices = [cell.trainer.devices for cell in cells if cell.trainer.accelerator != "cpu"]
    if not devices or not torch.cuda.device_count():
        return {}
    asked = [sys.executable, "-c", _ASK_GPUS]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(len(told)))
    fitting = {gpu: int(float(free) / _ON_GPU) for gpu, free in zip(names, told, strict=False)}
    named = {int(one) for some in devices if isinstance(some, ListConfig) for one in some}
    return {gpu: n for k, (gpu, n) in enumerate(fitting.items()) if not named or k in named}


def take_gpu(gpus: Sequence[str]) -> None:
    """Have this process, one of those in which cells run, use one of the GPUs: they take turns."""
    if gpus:
        number = re.search(r"\d+$", current_process().name)  # LokyProcess-3
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(number[0]) % len(gpus) if number else 0]
