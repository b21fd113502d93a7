"""What a user can get wrong, in one line."""

import difflib
import inspect
import re
import typing
from typing import Any

import hydra
import torch
from hydra.errors import HydraException, InstantiationException
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from typeguard import TypeCheckError, check_type

from pixel_spotter.cli.help import CONF_DIR, known_settings
from pixel_spotter.errors import UserError

_TRAINER = (
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "accumulate_grad_batches",
    "min_epochs",
    "num_nodes",
    "benchmark",
    "detect_anomaly",
    "sync_batchnorm",
)
"""Arguments of the Trainer that may be given beside those in ``conf/trainer/``.

The others would be overruled, or leave nothing to measure (``limit_val_batches=0``).
"""


def user_message(error: BaseException) -> str | None:
    """Return the line that tells a user what to put right, or None if the error is a bug."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the device is out of memory; try a smaller batch size"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "there is not enough memory; try fewer samples, or a smaller batch or image"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: add {error.full_key}=..."
    if type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool"):
        return (
            "a process of the grid was killed, maybe for lack of memory: the same command "
            "continues; hydra.launcher.n_jobs=1 takes less"
        )
    if type(error).__name__ in ("UncompletedJobError", "FailedJobError"):
        return (
            "a job of the grid ended without a result, maybe out of time or memory; what it said "
            "is in .submitit in the grid's folder: the same command continues"
        )
    if isinstance(error, InstantiationException):
        return None
    if "Config group override must be a string" in str(error):
        return "a group such as logger needs one of its choices, not null"
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return one_line(error)
    cause: BaseException | None = error
    while cause is not None:  # what failed to be written is often wrapped in something else
        if isinstance(cause, OSError):
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{cause.strerror or cause}"
        cause = cause.__cause__ or cause.__context__
    return None


def one_line(error: BaseException) -> str:
    """Fold a message of several lines, and the cause that Hydra leaves out, into one."""
    text = str(error)
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text}\n{str(error.__cause__).splitlines()[0]}"
    text = text.partition("Config search path:")[0]
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("full_key:", "object_type="))]
    return " ".join(kept)


def unknown_setting(error: BaseException, command: str) -> str | None:
    """Return the line for a setting that Hydra does not know, or knows already."""
    if not isinstance(error, HydraException):
        return None
    if found := re.match(r"Could not override '([^']+)'", str(error)):
        return _no_setting(found[1], command)
    if found := re.search(
        r"Could not find 'hydra/(?:sweeper|launcher)/(optuna|submitit)", str(error)
    ):
        return f"{found[1]} is not installed: pip install 'pixel-spotter[{found[1]}]'"
    if found := re.match(
        r"Could not append to config. An item is already at '([^']+)'", str(error)
    ):
        return f"{found[1]} is a setting already: leave out the + before it"
    return None


def refuse_unknown_settings(cfg: DictConfig, command: str) -> DictConfig:
    """Return a command's config, having made sure that it will use all of it.

    Raises:
        UserError: naming a setting that it would not, and the nearest that it would.
    """
    settings = known_settings(command)
    written_down = OmegaConf.load(CONF_DIR / f"{command}.yaml")
    known = {*(key.partition(".")[0] for key in settings), *map(str, written_down)}
    written = OmegaConf.to_yaml(cfg)
    for key in map(str, cfg):
        if key not in known and not re.search(rf"\${{{re.escape(key)}[.}}]", written):
            raise UserError(_no_setting(key, command))
    for key in map(str, cfg.get("early_stopping", {})):
        if f"early_stopping.{key}" not in settings and key != "_target_":
            raise UserError(_no_setting(f"early_stopping.{key}", command))
    if "save_dir" in cfg.get("logger", {}):
        raise UserError("logger.save_dir is not for use here: logs are kept in the run folder")
    if command == "evaluate":
        _refuse_what_only_training_uses(cfg)
    for key in map(str, cfg.get("trainer", {})):
        if f"trainer.{key}" not in settings and key not in ("_target_", *_TRAINER):
            raise UserError(_no_setting(f"trainer.{key}", command))
    return cfg


def _refuse_what_only_training_uses(cfg: DictConfig) -> None:
    defaults: Any = OmegaConf.load(CONF_DIR / "trainer/auto.yaml")
    for key in ("max_epochs", "max_time", "fast_dev_run", "log_every_n_steps"):
        if cfg.trainer[key] != defaults[key]:
            raise UserError(f"trainer.{key} is for training: leave it out")
    known = OmegaConf.load(CONF_DIR / "evaluate.yaml").data
    for key in map(str, cfg.data):
        if key not in known:
            raise UserError(f"data.{key} is for training: leave it out")


def _no_setting(key: str, command: str) -> str:
    """Say that there is no such setting, and which one may be meant."""
    settings = known_settings(command)
    group, _, word = key.rpartition(".")
    if (
        group == "trainer"
        and word in inspect.signature(Trainer).parameters
        and word not in settings
    ):
        return (
            f"{key} is not for use here: it would be overruled, or leave nothing to measure; "
            f"trainer.fast_dev_run=true is a quick try"
        )
    words = {name: name.rpartition(".")[2] for name in settings}
    near_words = difflib.get_close_matches(word, words.values(), 1)
    near = [
        *(name for name in settings if words[name] == word),
        *difflib.get_close_matches(key, settings, 1),
        *(name for name in settings if words[name] in near_words or words[name].endswith(word)),
    ]
    if key in near:
        return f"there is no setting {key} in what is chosen here"
    if not near:
        return f"there is no setting {key}; pixel-spotter {command} --help lists them"
    end = "=?" if (CONF_DIR / near[0]).is_dir() else "?"
    return f"there is no setting {key}; did you mean {near[0]}{end}"


def instantiate(config: DictConfig, key: str, **arguments: Any) -> Any:
    """Make what a config describes, from plain values.

    Args:
        config: a class and its constructor's arguments.
        key: where it stands in the config, for messages.
        arguments: further arguments.

    Raises:
        UserError: if the arguments are not what the constructor takes.
    """
    check_types(config, key)
    try:
        return hydra.utils.instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if cause is None or isinstance(
            cause, (ValueError, TypeError, MisconfigurationException, ImportError)
        ):
            if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(cause)):
                raise UserError(_no_setting(f"{key}.{unknown[1]}", "train")) from error
            prefix = f"{key}: " if type(cause) is TypeError else ""
            raise UserError(prefix + one_line(cause or error)) from error
        raise


def check_types(config: DictConfig, key: str) -> None:
    """Hold a config's values against the types of the arguments that they are for.

    Args:
        config: a class and its constructor's arguments.
        key: where it stands in the config.

    Raises:
        UserError: naming the value that does not fit.
    """
    try:
        made: Any = hydra.utils.get_object(config._target_)
        hints = typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except Exception:  # a class that is not there or whose hints cannot be read: not ours to say
        return
    for name in map(str, config):
        value = config[name]
        if isinstance(value, DictConfig) and "_target_" in value:
            check_types(value, f"{key}.{name}")
        elif name in hints:
            plain = value
            if OmegaConf.is_config(value):
                plain = OmegaConf.to_container(value, resolve=True)
            try:
                check_type(plain, hints[name])
            except TypeCheckError:
                words = getattr(hints[name], "__name__", str(hints[name]))
                words = str(hints[name]) if "[" in str(hints[name]) else words
                words = re.sub(r"\b(collections\.abc|typing|torch)\.", "", words)
                raise UserError(f"{key}.{name} must be {words}, got {plain!r}") from None
            except Exception:  # hints beyond what can be checked
                continue
