"""How a command starts: its arguments, its config, and what is made from it."""

import logging
import multiprocessing
import os
import re
import shutil
import sys
import threading
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.cli import grid, mistakes
from pixel_spotter.cli.begin import begun
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.errors import UserError

_TEXTS = ("checkpoint", "images", "output", "overview", "sweep", "start_from")
"""Keys whose values are paths, or names of grids: taken as they are, not read as Hydra's syntax."""

_FILES = ("model.checkpoint", "model.checkpoints", "model.weights", "psf.file", "trust")
"""Keys whose values are paths or modules as well, or lists of them in brackets."""

_PLAIN = re.compile(r"(?!(?i:true|false|nan|inf)$)(?:[a-zA-Z_/]|\.\.?/)[\w./-]*")
"""Texts that Hydra reads as they are."""

OmegaConf.register_new_resolver("folder_name", runs.folder_name, replace=True)
OmegaConf.register_new_resolver("conf_file", lambda name: str(CONF_DIR / name), replace=True)


def run_command(command: str, task: Callable[[DictConfig], Any]) -> None:
    """Compose a command's config from the command line and run its task.

    What the user can put right ends in one line on stderr and exit status 1, an interruption in one
    and status 130. All else is a bug and shows its traceback, as all does with HYDRA_FULL_ERROR=1.
    """
    # The processes that distributed training starts inherit what is set here.
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1" and "LOCAL_RANK" not in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    threading.excepthook = _thread_failed

    @contextmanager
    def guarded() -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            _interrupted(command)
        except Exception as error:
            message = mistakes.user_message(error, command)
            if message is None or full_error:
                raise
            for broken_off in [*grid.under_way]:
                broken_off.report()
            sys.exit(f"error: {message}")

    def job(cfg: DictConfig) -> Any:
        _quieten()  # a launcher may run the job in a process of its own
        try:
            with guarded():
                mistakes.refuse_unknown_settings(cfg, command)
                mistakes.refuse_what_is_not_there(cfg)
                return task(cfg)
        finally:
            forget(Path(HydraConfig.get().runtime.output_dir), f"{command}.log")

    with guarded():
        begun()
        sys.argv[1:] = in_order(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=command)(job)()


def in_order(arguments: list[str]) -> list[str]:
    """Return a command's arguments as Hydra takes them: options that it has first, texts quoted."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        options, others = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise UserError(str(error)) from error
    if unknown := [word for word in others if word[:1] == "-"]:
        raise UserError(f"there is no option {unknown[0]}: settings are written KEY=VALUE")
    settings = [*options.overrides, *others]
    first = [word for word in arguments if word not in settings]
    return [*first, *(text_as_it_is(word, options.multirun) for word in settings)]


def _interrupted(command: str) -> None:
    """End after Ctrl-C, saying what continues; a process of a grid leaves that to the grid's."""
    if multiprocessing.parent_process() is None:
        words, folder = sys.argv, None
        if HydraConfig.initialized():
            hydra_cfg = HydraConfig.get()
            words = [*sys.argv, *hydra_cfg.overrides.task]
            in_grid = hydra_cfg.mode == RunMode.MULTIRUN
            folder = Path(hydra_cfg.sweep.dir if in_grid else hydra_cfg.runtime.output_dir)
        elif grid.under_way:
            folder = grid.under_way[0].folder
        named = any(word.startswith(("name=", "experiment=")) for word in words)
        with_name = "" if named or folder is None else f" with name={folder.name}"
        continues = f": the same command{with_name} continues" if command == "train" else ""
        print(f"interrupted{continues}", file=sys.stderr)
    sys.exit(130)


def _quieten() -> None:
    # The Trainer says the same things again for each of a grid's cells.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # A full disk is reported once, by the main thread, not by every logger and writer as well.
    logging.raiseExceptions = False
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*AMP with fp16 is not supported on CPU.*")  # it is refused
    # Models that are solved have no optimizer, no loss, and members that were trained before.
    warnings.filterwarnings("ignore", ".*this fit will run with no optimizer.*")
    warnings.filterwarnings("ignore", ".*`training_step` returned `None`.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)`.*")


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Leave a writer thread's disk errors to the main thread, which meets them too."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def forget(run_dir: Path, log_file: str) -> None:
    """Remove the folder of a command that was refused, or only tried, if nothing else is in it."""
    nothing = {runs.LOCK, runs.CONFIG, runs.HYDRA, runs.OVERRIDES, log_file}
    if not run_dir.is_dir() or run_dir == Path.cwd():
        return
    from lightning.pytorch.utilities import rank_zero_only  # commands without a run need no seconds

    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return
    with suppress(OSError, UserError), runs.owned(run_dir):  # or it is another process's
        files = (path for path in run_dir.rglob("*") if not path.is_dir())
        if {path.relative_to(run_dir).as_posix() for path in files} <= nothing:
            shutil.rmtree(run_dir)


def pick_device(name: str) -> torch.device:
    """Return the device called cpu or cuda; ``auto`` takes a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={name}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch sees no GPU here")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def text_as_it_is(argument: str, multirun: bool = False) -> str:
    """Quote the value of ``key=value`` for Hydra, if it is a name or path and not quoted yet.

    In a grid, files sweep over what stands between their commas. Names that no folder can have are
    refused.
    """
    plus_key, equals, value = argument.partition("=")
    key = plus_key.lstrip("+")
    if key == "name" and equals:
        refuse_as_name(value)
        return f"{plus_key}={_quoted(value) if value != 'null' else repr(value)}"
    listed = re.fullmatch(r"\[([^\[\]'\"]*)\]", value) if key in _FILES else None
    if listed:
        return f"{plus_key}=[{','.join(map(_quoted_if_odd, listed[1].split(',')))}]"
    if key in _FILES and re.search(r"[\[\]]|\$\{", value):
        return argument
    quote = _quoted if key in _TEXTS else _quoted_if_odd
    if not equals or (key not in (*_TEXTS, *_FILES) and value[:1] != "~"):
        return argument
    sweeps = multirun and key in ("start_from", *_FILES) and not {*value} & {*"'\""}
    return f"{plus_key}={','.join(map(quote, value.split(',') if sweeps else [value]))}"


def refuse_as_name(value: str) -> None:
    """Refuse a name that cannot be a folder's, or would not be the one that was meant."""
    path = Path(value.strip("'\" "))
    inside = path.parts and ".." not in path.parts and not path.is_absolute()
    if not inside or path.parts[0][0] == "~" or "${" in value:
        raise UserError(f"name={value} cannot be a folder's name inside outputs/: choose another")


def _quoted_if_odd(value: str) -> str:
    """Quote a text for Hydra, if it would read it as something else: grids' folders show quotes."""
    return value if _PLAIN.fullmatch(value) else _quoted(value)


def _quoted(value: str) -> str:
    """Quote a text for Hydra, if it is not quoted yet; ``null`` is none."""
    if value in ("", "null") or (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        return value
    if value == "~" or (value.startswith("~") and "/" in value):
        value = str(Path(value).expanduser())
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'".replace("${", "\\${")
