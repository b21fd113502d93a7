"""A grid's cells: which there are, which of them are finished, and how Hydra runs the others."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from sys import intern
from typing import Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.errors import UserError

Cells = dict[str, dict[str, str]]  # what a grid sets in each, by the names of their folders

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
_BATCH = 64  # so many cells are handed to joblib at once where time may run out meanwhile


class OpenCells(Sweeper):
    """Hydra's own sweeper, but of the cells that are left to run.

    That one would compose each cell's config once more before the first, to see whether it can be.
    """

    cells: ClassVar[list[list[str]]] = []
    until_s: ClassVar[float | None] = None

    def __init__(self, max_batch_size: int | None, params: Any) -> None:
        self.most = max_batch_size

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        one_by_one = config.hydra.launcher._target_.endswith("BasicLauncher")
        timed = 1 if one_by_one else _BATCH
        self.size = self.most or (timed if self.until_s else max(1, len(self.cells)))

    def sweep(self, arguments: list[str]) -> None:
        for first in range(0, len(self.cells), self.size):
            if time_is_up(self.until_s):
                return
            batch = self.cells[first : first + self.size]
            for job in self.jobs.launch(batch, initial_job_idx=first):
                _ = job.return_value  # raises what the job has raised


def time_is_up(until_s: float | None) -> bool:
    """Tell whether a time of the monotonic clock is over."""
    return until_s is not None and time.monotonic() >= until_s


def run_only(cells: Cells, until_s: float | None = None) -> None:
    """Have Hydra run these of the cells that it would sweep over, and begin none after a time."""
    OpenCells.cells, OpenCells.until_s = [*map(words_of, cells.values())], until_s
    Plugins.instance().class_name_to_class[_BASIC] = OpenCells


def planned(config: DictConfig) -> Cells:
    """Return the cells of Hydra's own sweeper; another one decides as it goes.

    Raises:
        UserError: if different cells would have one folder, where only one would be trained.
    """
    hydra = config.hydra
    if hydra.sweeper._target_ != _BASIC:
        return {}
    grid = [f"{key}={values}" for key, values in (hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*grid, *hydra.overrides.task])
    sweeper: Any = get_class(_BASIC)
    (listed,) = sweeper.split_arguments(overrides, None)
    excluded = hydra.job.config.override_dirname.exclude_keys
    cells: Cells = {}
    for words in listed:
        halves = (word.partition("=") for word in words)
        cell = {intern(key): intern(value) for key, _, value in halves}  # thousands have few
        named = (word for word in words if word.lstrip("+~").partition("=")[0] not in excluded)
        name = runs.folder_name(",".join(sorted(named)))  # as conf/train.yaml has it
        if (other := cells.setdefault(name, cell)) != cell:
            key = next(key for key in cell if cell[key] != other.get(key))
            raise UserError(
                f"cells that differ in {key} alone would have the same folder: "
                f"give each a grid of another name"
            )
    return cells


def words_of(cell: dict[str, str]) -> list[str]:
    """Return a cell's overrides."""
    return [key if key[0] == "~" and not value else f"{key}={value}" for key, value in cell.items()]


class Configs:
    """The configs of a grid's cells: as few are composed as tell of all.

    Composing one takes Hydra a twentieth of a second. Cells that differ in nothing but the values
    of keys that are no groups, nor within other keys, have configs that differ in these only.
    """

    def __init__(self, config: DictConfig, cells: Cells) -> None:
        asked = config.hydra.overrides.get("hydra", [])
        self._found_in = [word for word in asked if "hydra.searchpath" in word]  # where configs are
        self._loader = GlobalHydra.instance().config_loader()
        self._cells = cells
        keys = {key for cell in cells.values() for key in cell}
        first = self.of(next(iter(cells)))
        apart = {key for key in keys if not any(_within(key, k) for k in keys - {key})}
        self._plain = {key for key in apart if _is_plain(key, first)}
        self._like: dict[tuple[str, ...], str] = {}  # a cell of each kind
        for name in cells:
            self._like.setdefault(self._kind(name), name)
        self._written: dict[str, dict[str, Any] | None] = {}
        self._values: dict[str, Any] = {}

    def of(self, name: str) -> DictConfig:
        """Compose a cell's config."""
        overrides = [*self._found_in, *words_of(self._cells[name])]
        return self._loader.load_configuration("train", overrides, RunMode.RUN)

    def compose_each_kind(self, names: Iterable[str]) -> None:
        """Raise what composing the configs of some cells would raise."""
        for kind in dict.fromkeys(map(self._kind, names)):
            self.of(self._like[kind])

    def settings(self, name: str) -> dict[str, Any] | None:
        """Return the settings that a cell's figures follow from, or None where they do not show."""
        like = self._like[self._kind(name)]
        if like not in self._written:
            config = self.of(like)
            plain = all(_is_plain(key, config) for key in self._plain & {*self._cells[like]})
            written: Any = OmegaConf.to_container(config)
            del written["hydra"]
            self._written[like] = runs.settings_of(written) if plain else None
        base, cell = self._written[like], self._cells[name]
        own = {key: self._value(f"{key}={cell[key]}") for key in self._plain & {*cell}}
        if base is None or any(isinstance(value, dict) for value in own.values()):
            return None
        return base | {key: value for key, value in own.items() if key in base}

    def _kind(self, name: str) -> tuple[str, ...]:
        cell = self._cells[name]
        return tuple(words_of({key: cell[key] for key in cell if key not in self._plain}))

    def _value(self, word: str) -> Any:
        if word not in self._values:
            parser = OverridesParser.create(self._loader)
            self._values[word] = parser.parse_override(word).value()
        return self._values[word]


def _within(key: str, other: str) -> bool:
    a, b = (f"{k.lstrip('+~').partition('@')[0].replace('/', '.')}." for k in (key, other))
    return a.startswith(b) or b.startswith(a)


def _is_plain(key: str, config: DictConfig) -> bool:
    """Tell whether a key of a composed config is that of a value, not of a group."""
    if not re.fullmatch(r"\w+(\.\w+)*", key):
        return False
    parent, _, last = key.rpartition(".")
    holder = OmegaConf.select(config, parent) if parent else config
    if not isinstance(holder, DictConfig) or last not in holder:
        return False
    return not isinstance(holder._get_node(last), DictConfig)


def finished(folder: Path, configs: Configs, names: Iterable[str]) -> set[str]:
    """Return which cells are finished with just these settings: nothing is left to do there."""
    found = set()
    for name in names:
        with suppress(UserError, OSError):  # Hydra's job will meet it, too
            ended = runs.read_metrics(folder / name).get("ended")
            held = runs.settings_of(runs.read_yaml(folder / name / runs.CONFIG, dict))
            if ended != "max_time" and held == configs.settings(name):
                found.add(name)
    return found
