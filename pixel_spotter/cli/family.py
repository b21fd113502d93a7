"""Which cells of a grid are one training: those that differ in nothing but their epochs."""

import copy
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.errors import UserError

log = logging.getLogger(__name__)

_EPOCHS = "trainer.max_epochs"
_NOT_TRAINED_APART = (*runs.FREE_SETTINGS, _EPOCHS)  # cells that differ in these alone
_LOGGER = "pixel_spotter.training.callbacks.EpochLogger"
_BLIND = ("pixel_spotter.", "torch.", "lightning.")
"""Classes in these do not look at how long the training is to be; one's own could."""


def siblings(cfg: DictConfig, run_dir: Path) -> dict[int, Path]:
    """Return the other cells of a grid that train as this one does, by their epochs.

    None, if what a run does in an epoch might depend on how many it has, or what is logged cannot
    be logged again.
    """
    cells = runs.read_plan(run_dir.parent)["cells"]
    own = cells.get(run_dir.name, {})
    same = runs.without(own, *_NOT_TRAINED_APART)
    found = {
        int(cell[_EPOCHS]): run_dir.parent / name
        for name, cell in cells.items()
        if own.get(_EPOCHS, "").isdecimal()
        and cell.get(_EPOCHS, "").isdecimal()
        and cell[_EPOCHS] != own.get(_EPOCHS)
        and runs.without(cell, *_NOT_TRAINED_APART) == same
    }
    return found if found and _independent(cfg) else {}


def trainings(
    cells: Mapping[str, Mapping[str, str]], config_of: Callable[[str], DictConfig], enough: int
) -> int:
    """Count a grid's trainings, up to ``enough``: cells that wait for one another are one."""
    kinds: dict[frozenset[tuple[str, str]], list[str]] = defaultdict(list)
    for name, cell in cells.items():
        kinds[frozenset(runs.without(cell, *_NOT_TRAINED_APART).items())].append(name)
    if len(kinds) >= enough:
        return enough
    several = [names for names in kinds.values() if len(names) > 1]
    waiting = (len(names) - 1 for names in several if _independent(config_of(names[0])))
    return min(enough, len(cells) - sum(waiting))


def alike(cfg: DictConfig, other: Path) -> bool:
    """Tell whether the run in another folder was begun with this one's settings but its epochs."""
    try:
        begun = comparable(OmegaConf.create(runs.read_yaml(other / runs.CONFIG, dict)))
    except (FileNotFoundError, UserError):  # not begun, or damaged
        return False
    return runs.without(begun, _EPOCHS) == runs.without(comparable(cfg), _EPOCHS)


@contextmanager
def turn(run_dir: Path, others: Mapping[int, Path]) -> Iterator[None]:
    """Wait until no other process trains one of these cells: this one may then go on from there."""
    if not others:
        yield
        return
    own = runs.read_plan(run_dir.parent)["cells"][run_dir.name]  # others may join it later
    shared = json.dumps(runs.without(own, *_NOT_TRAINED_APART), sort_keys=True)
    name = hashlib.sha256(shared.encode()).hexdigest()[:12]
    lock = run_dir.parent / f"{runs.LOCK}.{name}"
    with ExitStack() as stack:
        try:
            stack.enter_context(runs.locked(lock, timeout_s=0))
        except Timeout:
            log.info("waiting for the process that trains the same with other epochs: %s", run_dir)
            stack.enter_context(runs.locked(lock))
        yield


def _independent(cfg: DictConfig) -> bool:
    cfg = OmegaConf.masked_copy(cfg, [key for key in map(str, cfg) if key != "hydra"])
    longer = copy.deepcopy(cfg)
    longer.trainer.max_epochs += 1
    one, other = (runs.without(comparable(each), _EPOCHS) for each in (cfg, longer))
    classes = [str(value) for key, value in one.items() if key.endswith("_target_")]
    given = cfg.start_from is None and cfg.trainer.max_time is None
    logged = OmegaConf.select(cfg, "logger._target_") == _LOGGER
    return given and logged and one == other and all(name.startswith(_BLIND) for name in classes)


def comparable(cfg: Any) -> dict[str, Any]:
    """Return the settings that are written down; of a group that repeats another, the other's."""
    written, values = (
        runs.settings_of(OmegaConf.to_container(cfg, resolve=resolve))  # type: ignore[arg-type]
        for resolve in (False, True)
    )
    return {key: value for key, value in values.items() if key in written}
