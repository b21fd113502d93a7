"""From runs to what a report says: groups over seeds, means with intervals, labels, ranks."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from pixel_spotter import runs
from pixel_spotter.coordinates import Size, as_size
from pixel_spotter.metrics import error_by_position, pixels
from pixel_spotter.reporting.table import MEAN_ERROR, SEEDS, SEEN, Unfinished, is_figure

SPLITS = ("uniform", "quadrant", "border", "iid")
"""The order in which splits are shown; others come after them."""

BASELINE = "baseline"
"""The label of the runs whose settings most of a model's runs share."""


class Estimate(NamedTuple):
    """A mean over seeds, and half the width of its 95% interval: None where there is one value."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        """Write an error in px with its interval: ``0.217 ± 0.012 px``."""
        interval = "" if self.half is None else f" ± {pixels(self.half, self.mean)}"
        return f"{pixels(self.mean)}{interval} px"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values, at least one, and its 95% interval after Student's t."""
    mean, n = float(statistics.mean(values)), len(values)
    if n == 1:
        return Estimate(mean, None)
    error = float(statistics.stdev(values)) / math.sqrt(n)
    return Estimate(mean, float(stats.t.ppf(0.975, n - 1)) * error)


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one model, in one setting, on one split, that differ in their seeds.

    Args:
        model: its name.
        label: the settings in which the model's runs differ, empty where there are none.
        split: the split.
        runs: the finished runs, rows of `Sweep.runs`; none in a group that is open.
        settings: the values behind the label, by their keys.
        unfinished: the cells that are missing.
    """

    model: str
    label: str
    split: str
    runs: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    unfinished: list[Unfinished] = field(default_factory=list)

    @property
    def variant(self) -> str:
        """Return what to call the model in this setting."""
        return f"{self.model}, {self.label}" if self.label else self.model

    @property
    def trained(self) -> bool:
        """Tell whether there was something to train; if not, it is a closed form."""
        return self.mean("parameters") > 0

    @property
    def exact(self) -> bool:
        """Tell whether no error is larger than what is written as 0."""
        return self.mean("test/max_error_px") < 5e-4

    @property
    def unseen(self) -> bool:
        """Tell whether training never saw any of the test positions."""
        return self.mean(SEEN) == 0

    @property
    def size(self) -> Size:
        """Return the images' height and width, px."""
        return as_size(self.runs["image_size"].iloc[0])

    @property
    def error(self) -> Estimate:
        """Return the mean error on test positions, px."""
        return estimate([float(value) for value in self.runs[MEAN_ERROR]])

    def mean(self, key: str) -> float:
        """Return the mean over seeds of a figure that every run has."""
        return float(statistics.mean(map(float, self.runs[key])))

    def figure(self, key: str) -> Estimate | None:
        """Return a figure of ``metrics.json``, over seeds, if every run has it."""
        values = [*self.runs.get(key, [])]
        known = values and all(map(is_figure, values))
        return estimate([*map(float, values)]) if known else None

    def error_by_position(self) -> np.ndarray:
        """Return the mean error at every position, over seeds: (H, W), px, nan where untested."""
        found, names = [*self.runs["predictions"]], ("x", "y", "x_true", "y_true")
        columns = {name: torch.cat([one[name] for one in found]) for name in names}
        return error_by_position(columns, self.size)


def texts(table: pd.DataFrame, key: str) -> str:
    """Return what runs say under a key: ``cpu``; several where they differ, ``?`` for nothing."""
    values = table[key] if key in table else pd.Series([None], dtype=object)
    return ", ".join(sorted({"?" if pd.isna(value) else str(value) for value in values}))


def group_runs(table: pd.DataFrame, unfinished: Sequence[Unfinished] = ()) -> list[Group]:
    """Put the runs, rows of `Sweep.runs`, together that differ in nothing but their seeds.

    Returns:
        The groups, by split, the smallest mean error first; on each split the models of which
        nothing is finished stand last, as groups without runs.
    """
    groups: list[Group] = []
    for model, own in table.groupby("model", sort=False):
        written = _written(own["settings"]).set_index(own.index)
        # Runs made before there was a setting have no value: they do not tell themselves apart.
        varying = [k for k in written if k != "data.split" and written[k].nunique() > 1]
        keys = [own["split"], *(written[key] for key in varying)]
        kinds = [members for _, members in own.groupby(keys, sort=False, dropna=False)]
        found = [members["settings"].iloc[0] for members in kinds]
        shown = _shown(varying, found)
        settings = [{key: one[key] for key in shown if key in one} for one in found]
        baseline = _written([_baseline(settings)]).iloc[0].to_dict()
        for members, one in zip(kinds, settings, strict=True):
            rest = {key: value for key, value in one.items() if baseline.get(key) != repr(value)}
            label = _label(rest, shown) if rest or not one else BASELINE
            groups.append(Group(str(model), label, members["split"].iloc[0], members, one))
    groups += _open_groups(groups, unfinished)
    order = {split: place for place, split in enumerate(SPLITS)}

    def rank(group: Group) -> tuple[Any, ...]:
        error = math.inf if group.runs.empty else group.error.mean
        return order.get(group.split, len(order)), group.split, error, group.model, group.label

    return sorted(groups, key=rank)


def baselines(groups: Sequence[Group]) -> dict[str, str]:
    """Return the settings that a label ``baseline`` stands for, by model."""
    found = [group for group in groups if group.label == BASELINE]
    return {group.model: _label(group.settings, list(group.settings)) for group in found}


def splits_of(groups: Sequence[Group]) -> list[str]:
    """Return the splits in the order in which they are shown."""
    return list(dict.fromkeys(group.split for group in groups))


def seen_share(groups: Sequence[Group]) -> str:
    """Return how much of the test positions training had seen: ``64%`` or ``63 to 65%``."""
    shares = [float(share) for group in groups for share in group.runs[SEEN]]
    low, high = math.floor(100 * min(shares)), math.ceil(100 * max(shares))
    mean = round(100 * sum(shares) / len(shares))
    return f"{mean}%" if high - low <= 1 else f"{low} to {high}%"


def curves_over(key: str, groups: Sequence[Group]) -> dict[str, dict[float, Estimate]]:
    """Return the mean error against a numeric setting: a curve for each model and the rest.

    What the Trainer's settings follow from it (fewer epochs where there are more samples) does not
    tell curves apart. Models whose runs do not differ in the setting have none.

    Args:
        key: ``data.train_samples`` or ``trainer.max_epochs``.
        groups: of one split, with finished runs.
    """
    curves: dict[str, dict[float, Estimate]] = {}
    numeric = [group for group in groups if is_figure(group.settings.get(key))]
    for model in dict.fromkeys(group.model for group in numeric):
        own = sorted((g for g in numeric if g.model == model), key=lambda g: float(g.settings[key]))
        written = _written([group.settings for group in own])
        by_value = written.groupby(key).nunique(dropna=False).max()
        following = [k for k in written if k.startswith("trainer.") and by_value.get(k) == 1]
        for group in own:
            rest = {k: v for k, v in group.settings.items() if k not in (key, *following)}
            name = f"{model}, {_label(rest, list(written))}" if rest else model
            curves.setdefault(name, {})[float(group.settings[key])] = group.error
    return {name: curve for name, curve in curves.items() if len(curve) > 1}


def _written(settings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return settings as texts, a column each, which compare where values may be lists."""
    rows = [{key: repr(value) for key, value in one.items()} for one in settings]
    return pd.DataFrame(rows, index=range(len(rows)), dtype=object)


def _shown(varying: Sequence[str], kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings to name: another scheduler's own go without saying."""
    targets = tuple(key.removesuffix("_target_") for key in varying if key.endswith("._target_"))
    own = [k for k in varying if k.startswith(targets) and not all(k in kind for kind in kinds)]
    return [key for key in varying if key.endswith("._target_") or key not in own]


def _baseline(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings that most runs have, if there are runs that have all of them.

    An ablation changes one setting at a time: its rows are labelled by what was changed. In a
    grid of all combinations no value has a majority, and there is no baseline.
    """
    written = _written(settings).fillna("")
    if written.empty:
        return {}
    common = written == written.mode().iloc[0]
    whole = common.all(axis=1)
    majority = (common.sum() * 2 > len(common)).all()
    return settings[int(whole.argmax())] if majority and whole.any() else {}


def _label(settings: Mapping[str, Any], among: Sequence[str]) -> str:
    """Name settings by the last words of their keys, where these are not two settings'."""
    last = {key: key.removesuffix("._target_").rpartition(".")[2] for key in (*settings, *among)}
    count = Counter(last.values())
    words = []
    for key, value in settings.items():
        if key.endswith("._target_"):
            value = str(value).rpartition(".")[2]
        words.append(f"{last[key] if count[last[key]] == 1 else key}={_text(value)}")
    return ", ".join(words)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _open_groups(groups: Sequence[Group], unfinished: Sequence[Unfinished]) -> list[Group]:
    """Add the unfinished cells to their groups; return new groups for those that have none."""

    def place(model: str, split: str, overrides: Mapping[str, str]) -> tuple[Any, ...]:
        free = ("experiment", *runs.FREE_SETTINGS, *SEEDS)
        return model, split, *sorted((k, v) for k, v in overrides.items() if k not in free)

    done = [(group, overrides) for group in groups for overrides in group.runs["overrides"]]
    places = {place(group.model, group.split, overrides): group for group, overrides in done}
    everywhere = [
        one.items() for one in (*(o for _, o in done), *(c.overrides for c in unfinished))
    ]
    common = set(everywhere[0]).intersection(*everywhere[1:])
    own = []
    for cell in unfinished:
        key = place(cell.model, cell.split, cell.overrides)
        if key not in places:
            rest = dict(pair for pair in key[2:] if pair not in common)
            rest = {k: v for k, v in rest.items() if k not in ("model", "data.split")}
            places[key] = Group(cell.model, _label(rest, list(rest)), cell.split, pd.DataFrame())
            own.append(places[key])
        places[key].unfinished.append(cell)
    return own
