"""What the commands share: how they start, and how they end when their user made a mistake."""

import hashlib
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import HydraException, InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from pixel_spotter.errors import UserError

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
"""Where the configs are: inside an installed package, or beside it in a checkout."""

OmegaConf.register_new_resolver("folder_name", lambda name: folder_name(name), replace=True)


def run_command(
    config_name: str, task: Callable[[DictConfig], Any], paths: Sequence[str] = ()
) -> None:
    """Compose a command's config from the command line and run its task.

    What the user can put right ends in one line on stderr and exit status 1. Everything else is
    a bug and shows its traceback, as does everything under HYDRA_FULL_ERROR=1.

    Args:
        config_name: the command's primary config in ``conf/``.
        task: what to run with the composed config.
        paths: keys whose values are file names, taken as they are: Hydra would otherwise read
            the commas, blanks and brackets in them as its own syntax.
    """
    sys.argv[1:] = [_quote_path(argument, paths) for argument in sys.argv[1:]]
    # The processes that distributed training starts inherit what is set here.
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1" and "LOCAL_RANK" not in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    threading.excepthook = _thread_failed

    def one_line(work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            message = user_message(error)
            if message is None or full_error:
                raise
            sys.exit(f"error: {message}")

    def job(cfg: DictConfig) -> None:
        _quieten()  # a launcher may run the job in a process of its own
        one_line(task, cfg)

    main = hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)
    one_line(main(job))


def _quieten() -> None:
    """Keep what is no news to a user out of the output."""
    # The Trainer says the same things again for each of a grid's cells.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # A full disk is reported once, by the main thread, not by every logger and writer as well.
    logging.raiseExceptions = False
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    # Models that are solved have no optimizer, no loss, and members that were trained before.
    warnings.filterwarnings("ignore", ".*this fit will run with no optimizer.*")
    warnings.filterwarnings("ignore", ".*`training_step` returned `None`.*")
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)`.*")


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Leave a writer thread's disk errors to the main thread, which meets them too."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def instantiate(config: DictConfig, **arguments: Any) -> Any:
    """Instantiate a config's class with plain values; what its arguments lack is a `UserError`."""
    try:
        return hydra.utils.instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if cause is None or isinstance(
            cause, (ValueError, TypeError, MisconfigurationException, ImportError)
        ):
            where = re.search(r"full_key: (\S+)", str(error)) if type(cause) is TypeError else None
            prefix = f"{where[1]}: " if where else ""
            raise UserError(prefix + _one_line(cause or error)) from error
        raise


def pick_device(name: str) -> torch.device:
    """Return the device called cpu or cuda; ``auto`` takes a GPU where there is one.

    Raises:
        UserError: if it is neither, or not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={name}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch sees no GPU here")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def user_message(error: BaseException) -> str | None:
    """Return the line that tells a user what to put right, or None if the error is a bug."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the device is out of memory; try a smaller batch size"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "there is not enough memory; try fewer samples, or a smaller batch or image"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: add {error.full_key}=..."
    if isinstance(error, InstantiationException):
        return None
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return _one_line(error)
    cause: BaseException | None = error
    while cause is not None:  # what failed to be written is often wrapped in something else
        if isinstance(cause, OSError):
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{cause.strerror or cause}"
        cause = cause.__cause__ or cause.__context__
    return None


def _one_line(error: BaseException) -> str:
    """Fold a message of several lines, and the cause that Hydra leaves out, into one."""
    text = str(error)
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text}\n{str(error.__cause__).splitlines()[0]}"
    text = text.partition("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("full_key:", "object_type="))]
    return " ".join(kept)


def _quote_path(argument: str, paths: Sequence[str]) -> str:
    """Quote the value of ``key=value`` for Hydra, if the key is a path's and it is not quoted."""
    key, equals, value = argument.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if key not in paths or not equals or quoted or value in ("", "null"):
        return argument
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"{key}='{escaped}'".replace("${", "\\${")


def folder_name(overrides: str) -> str:
    """Make a run's overrides into the name of one folder, of at most 200 bytes."""
    name = overrides.replace("/", "_") or "default"
    if len(name.encode()) <= 200:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return name.encode()[:180].decode(errors="ignore") + "..." + digest
