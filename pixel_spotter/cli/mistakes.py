"""What a user can get wrong, in one line."""

import difflib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from pixel_spotter import runs
from pixel_spotter.arguments import check_arguments, require
from pixel_spotter.cli.help import CONF_DIR, groups_of, known_settings
from pixel_spotter.errors import UserError, chain

_ADDED = {
    *("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.min_epochs"),
    *("trainer.accumulate_grad_batches", "trainer.sync_batchnorm", "trainer.num_nodes"),
    *("trainer.benchmark", "trainer.detect_anomaly"),
}
"""Arguments of the Trainer beside ``conf/trainer/``'s: others may leave nothing to measure."""

_TESTING = {  # arguments of the Trainer that a test uses: the others are for training
    *("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic"),
    *("benchmark", "enable_progress_bar"),
}

_NOT_INSTALLED = "{0} is not installed: pip install 'pixel-spotter[{0}]'"

_SAID = {  # what is told of errors, by how their kinds and messages begin
    "OutOfMemoryError": "the device is out of memory; try a smaller batch size",
    "MemoryError|.*can't allocate memory": "there is not enough memory; try fewer samples, or a "
    "smaller batch or image",
    r"MissingMandatoryValue:.*full_key: (\S+)": "{0} is missing: add {0}=...",
    "TerminatedWorkerError|BrokenProcessPool": "a process of the grid was killed, maybe for lack "
    "of memory: the same command continues; hydra.launcher.n_jobs=1 takes less",
    r"(?:UncompletedJobError|FailedJobError):.*\nerror: ([^\n]+)": "{0}",  # what the job said
    r"FailedJobError: sbatch: error: ([^\n]+)": "Slurm took no jobs: {0}",
    "UncompletedJobError|FailedJobError": "a job of the grid ended without a result, maybe out of "
    "time or memory; what it said is in .submitit in the grid's folder: the others go on, the same "
    "command continues",
    r"OperationalError: \([\w.]+\) ([^\n]+)": "the database: {0}",
    "ArgumentError: Could not parse": "hydra.sweeper.storage is no address of a database, which "
    "sqlite:///shared.db is",
    "ValueError: Please set either 'minimize'": "hydra.sweeper.direction must be minimize",
    "ValueError: No trials are completed yet": "no trial was run: hydra.sweeper.n_trials must be "
    "at least 1",
    'RuntimeError: Could not detect "srun"': "there is no Slurm on this machine: "
    "hydra/launcher=submitit_local starts jobs here",
    ".*Config group override must be a string": "a group such as logger needs one of its choices, "
    "not null",
    ".*Could not determine home directory": "a path begins with ~ and the name of a user whom this "
    "machine does not know",
    r"ConfigAttributeError:.*is not in struct.*full_key: (\S+)": "{0} is needed: leave out ~{0}",
    ".*Could not append to config. An item is already at '([^']+)'": "{0} is a setting already: "
    "leave out the + before it",
    ".*Could not find 'hydra/(?:sweeper|launcher)/(optuna|submitit|ray)": _NOT_INSTALLED,
}


def user_message(error: BaseException, command: str = "train") -> str | None:
    """Return the line that tells a user what to put right, or None if the error is a bug."""
    for beginning, told in _SAID.items():
        if found := re.match(beginning, f"{type(error).__name__}: {error}", flags=re.DOTALL):
            return told.format(*found.groups())
    if isinstance(error, InstantiationException):
        return None
    if found := re.match(r"Could not override '([^']+)'", str(error)):
        return _no_setting(found[1], command)
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return one_line(error)
    for cause in chain(error):  # what failed to be written is often wrapped in something else
        if isinstance(cause, OSError):
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{cause.strerror or cause}"
    return None


def one_line(error: BaseException) -> str:
    """Fold a message of several lines, and the cause that Hydra leaves out, into one."""
    text = str(error).partition("Config search path:")[0]
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{str(error.__cause__).splitlines()[0]}"
    lines = [line.strip() for line in text.splitlines()]
    told = (one for one in lines if one and not one.startswith(("full_key:", "object_type=")))
    return " ".join(told)


def refuse_unknown_settings(cfg: DictConfig, command: str) -> DictConfig:
    """Return a command's config; refuse what it would not use, naming the nearest that it would."""
    settings = {*known_settings(command), *_ADDED}
    own: Any = OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"{command}.yaml"))
    known = {*(key.partition(".")[0] for key in settings), *map(str, own)}
    groups = [
        one for ones in own.get("defaults", []) if isinstance(ones, dict) for one in ones.items()
    ]
    for key, choice in groups:
        if choice and " " not in key and "_target_" not in cfg.get(key, {}):
            raise UserError(f"{key} is needed: leave out ~{key}")
    written = OmegaConf.to_yaml(cfg)
    for key in map(str, cfg):
        if key not in known and not re.search(rf"\${{{re.escape(key)}[.}}]", written):
            raise UserError(_no_setting(key, command, cfg))
    for group in ("early_stopping", "trainer"):
        for key in map(str, cfg.get(group, {})):
            if key != "_target_" and f"{group}.{key}" not in settings:
                raise UserError(_no_setting(f"{group}.{key}", command, cfg))
    if "save_dir" in cfg.get("logger", {}):
        raise UserError("logger.save_dir is not for use here: logs are kept in the run folder")
    if command == "evaluate":
        defaults: Any = OmegaConf.load(CONF_DIR / "trainer/auto.yaml")
        unused = [
            f"trainer.{key}"
            for key, value in cfg.trainer.items()
            if key not in _TESTING and value != defaults.get(key)
        ]
        unused += [f"data.{key}" for key in map(str, cfg.data) if key not in own["data"]]
        if unused:
            raise UserError(f"{unused[0]} is for training: leave it out")
    return cfg


_LEAST = {  # whole numbers, and the least of each, which no constructor looks at in time
    "seed": 0,
    "trainer.max_epochs": 1,
    "trainer.min_epochs": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.num_sanity_val_steps": -1,  # all of them
    "early_stopping.patience": 1,
    "scheduler.T_max": 1,
}


def refuse_out_of_range(cfg: DictConfig) -> None:
    """Refuse what a training cannot be set to."""
    for key, least in _LEAST.items():
        value = OmegaConf.select(cfg, key)
        whole = type(value) is int and least <= value < 2**32
        fits = whole or (value is None and key not in ("seed", "trainer.max_epochs"))
        require(fits, key, f"a whole number of at least {least}", value)
    min_epochs, max_time = cfg.trainer.get("min_epochs") or 1, cfg.trainer.max_time
    in_range = min_epochs <= cfg.trainer.max_epochs
    require(in_range, "trainer.min_epochs", "at most trainer.max_epochs", min_epochs)
    for key, time in (("trainer.max_time", max_time), ("max_time", cfg.max_time)):
        is_time = re.fullmatch(r"(?=.*[1-9])\d{1,6}:\d\d:\d\d:\d\d", str(time))
        require(time is None or bool(is_time), key, "DD:HH:MM:SS", time)
    refuse_rounding(cfg)


def refuse_rounding(cfg: DictConfig) -> None:
    """Refuse precisions in which coordinates would be rounded."""
    precision = str(cfg.trainer.precision)
    if precision not in ("auto", "32", "32-true", "16-mixed", "bf16-mixed"):
        raise UserError(
            f"trainer.precision={precision} would round coordinates or is none; "
            f"use auto, bf16-mixed, 16-mixed or 32-true"
        )


def refuse_what_is_not_there(cfg: DictConfig) -> None:
    """Refuse modules to trust, and settings of Hydra, that nothing would ever look for."""
    overrides = HydraConfig.get().overrides.hydra
    for key in (word.lstrip("+~").partition("=")[0] for word in overrides):
        for_grids = re.match(r"hydra[./](sweep|sweeper|launcher)\b", key)
        if for_grids and HydraConfig.get().mode != RunMode.MULTIRUN:
            raise UserError(f"{key} is for a grid, which pixel-spotter train --multirun is")
    if cfg.get("max_time") is not None and HydraConfig.get().mode != RunMode.MULTIRUN:
        raise UserError("max_time is for a grid: trainer.max_time is a run's")
    trust = cfg.get("trust", ListConfig([]))
    for module in trust if isinstance(trust, ListConfig) else [trust]:
        try:
            found = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):  # its package is not there, or no text
            found = None
        if found is None:
            raise UserError(f"trust={module}: there is no such module")
    added = [word for word in overrides if word.startswith("+hydra.")]
    for key in (word.removeprefix("+hydra.").partition("=")[0] for word in added):
        try:
            OmegaConf.merge(HydraConf, OmegaConf.from_dotlist([f"{key}=???"]))
        except ConfigKeyError as error:
            raise UserError(f"there is no setting hydra.{key}") from error


def _no_setting(key: str, command: str, cfg: DictConfig | None = None) -> str:
    known = known_settings(command)
    groups = [name for name in known if (CONF_DIR / name).is_dir()]
    group, _, word = key.rpartition(".")
    if key in _ADDED and (command == "train" or word in _TESTING):
        return f"{key} has no value here yet: write it with a plus, +{key}=..."
    if group == "trainer" and word in {*_arguments_of_the_trainer()} - {*known}:
        return (
            f"{key} is not for use here: it would be overruled, or leave nothing to measure; "
            f"trainer.fast_dev_run=true is a quick try"
        )
    cfg = _chosen(command, groups_of(command)) if cfg is None else cfg
    first = key.partition(".")[0]
    for file in (file for name in groups for file in sorted((CONF_DIR / name).glob("*.yaml"))):
        if first not in cfg and f"/{first}@_global_." in file.read_text(encoding="utf-8"):
            return f"{key} comes with {file.parent.name}={file.stem}: add that"
    if key in known:
        return f"there is no setting {key} in what is chosen here"
    chosen: Any = OmegaConf.to_container(cfg)
    keys = runs.flat({**chosen, "hydra": None})
    own = [name for name, value in keys.items() if name != key and str(value)[:2] != "${"]
    settings = [*groups, *(name for name in own if not re.search(r"(^hydra|\._\w+_)$", name))]
    words = {name: name.rpartition(".")[2] for name in settings}
    near_words = difflib.get_close_matches(word, words.values(), 1)
    near = [
        *(name for name in settings if words[name] == word),
        *(difflib.get_close_matches(key, settings, 1) if not group else []),
        *(name for name in settings if words[name] in near_words or words[name].endswith(word)),
    ]
    if not near:
        return f"there is no setting {key}; pixel-spotter {command} --help lists them"
    return f"there is no setting {key}; did you mean {near[0]}{'=?' if near[0] in groups else '?'}"


def _arguments_of_the_trainer() -> Iterable[str]:
    from lightning import Trainer  # which takes seconds; most commands need none

    return inspect.signature(Trainer).parameters


def _chosen(command: str, groups: list[str]) -> DictConfig:
    """Compose the config of what the command line chooses in ``conf/``, whatever else is on it."""
    words = [word for word in sys.argv[1:] if word.partition("=")[0] in groups]
    words = [word for word in words if (CONF_DIR / f"{word.replace('=', '/', 1)}.yaml").is_file()]
    running = GlobalHydra.instance().is_initialized()
    home = hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3") if not running else None
    with home or nullcontext():
        return hydra.compose(command, words)


def instantiate(config: DictConfig, key: str, **arguments: Any) -> Any:
    """Make what stands under a key of the config; refuse arguments that it does not take."""
    check_types(config, key)
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        return hydra.utils.instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or UserError(str(error))
        if isinstance(cause, UserError):
            raise cause from error
        if not isinstance(cause, ValueError | TypeError | MisconfigurationException | ImportError):
            raise
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(cause)):
            raise UserError(_no_setting(f"{key}.{unknown[1]}", "train")) from error
        extra = re.search("wandb|mlflow", str(cause))
        if extra and isinstance(cause, ImportError):
            raise UserError(_NOT_INSTALLED.format(extra[0])) from error
        prefix = f"{key}: " if type(cause) is TypeError else ""
        raise UserError(prefix + one_line(cause)) from error


def check_types(config: DictConfig, key: str) -> None:
    """Refuse values of a config that are not of the types of the arguments they are for."""
    try:
        made: Any = hydra.utils.get_object(config._target_)
    except Exception:  # a class that is not there: not ours to say
        return
    takes = inspect.signature(made).parameters.values()
    any_name = any(one.kind is one.VAR_KEYWORD for one in takes)
    values = {}
    for name in map(str, config):
        value = config[name]
        if not (any_name or name[0] == "_" or name in (one.name for one in takes)):
            raise UserError(_no_setting(f"{key}.{name}", "train"))
        if isinstance(value, DictConfig) and "_target_" in value:
            check_types(value, f"{key}.{name}")
        elif f"{key}.{name}" != "trainer.precision":  # which refuse_rounding looks at
            values[name] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    check_arguments(made, values, key)
