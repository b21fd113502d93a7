"""What the commands share: how they start, and how they end when their user made a mistake."""

import logging
import os
import re
import sys
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

_INSTALLED = Path(__file__).parent / "conf"
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "conf"
"""Where the configs are: inside an installed package, or beside it in a checkout."""

OmegaConf.register_new_resolver("folder_name", lambda name: _folder_name(name), replace=True)


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
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*`isinstance\\(treespec, LeafSpec\\)`.*")

    def one_line(work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            message = user_message(error)
            if message is None or full_error:
                raise
            sys.exit(f"error: {message}")

    def job(cfg: DictConfig) -> None:
        one_line(task, cfg)

    main = hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)
    one_line(main(job))


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
            raise UserError(_one_line(cause or error)) from error
        raise


def pick_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes a GPU where there is one.

    Raises:
        UserError: if it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} is not available: {_one_line(error)}") from error


def user_message(error: BaseException) -> str | None:
    """Return the line that tells a user what to put right, or None if the error is a bug."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the device is out of memory; try a smaller data.batch_size"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: add {error.full_key}=..."
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return _one_line(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
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
    if key not in paths or not equals or value[:1] in ("'", '"') or value in ("", "null"):
        return argument
    return f"{key}=" + "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + "'"


def _folder_name(overrides: str) -> str:
    """Make a run's overrides into the name of one folder."""
    return overrides.replace("/", "_") or "default"
