"""From runs to what a report says: groups over seeds, means with intervals, labels, ranks."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from pixel_spotter.coordinates import as_size
from pixel_spotter.metrics import error_by_position, pixels
from pixel_spotter.reporting.table import MEAN_ERROR, SEEN, Unfinished, is_figure, telling

SPLITS = ("uniform", "quadrant", "border", "iid", "isolated")
"""The order in which splits are shown, and the first of the scenarios; others come after them."""

MANY, BEST = 60, 12
"""Of more than so many groups on a split, pictures show so many, the best: one for each colour."""

BASELINE = "baseline"  # the label of the runs whose settings most of a model's runs share
_NAMED = ("model", "model.estimator", "data.split", "scenario")  # what a cell is named by


class Estimate(NamedTuple):
    """A mean over seeds, and half the width of its 95% interval: None where there is one value."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        """Write an error in px with its interval: ``0.217 ± 0.012 px``."""
        interval = "" if self.half is None else f" ± {pixels(self.half, self.mean)}"
        return f"{pixels(self.mean)}{interval} px"


Curve = dict[float, Estimate]  # errors, px, against an epoch or a setting's value


class Entry(NamedTuple):
    """A table's cell: its text, beside it a smaller note and a tag, before it a rank."""

    text: str = ""
    note: str = ""
    tag: str = ""
    rank: str = ""


class Section(NamedTuple):
    """A section of a report; those in a row that have the same title are its parts.

    Each part has a ``note`` of its own, the caption stands once. Of a table's rows, each has its
    kind: ``best``, ``open`` or nothing in particular. ``name`` is the picture's, without ending.
    """

    title: str
    caption: str = ""
    part: str = ""
    note: str = ""
    head: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[Entry]]] = ()
    name: str = ""
    figure: Figure | None = None
    code: Sequence[str] = ()
    terms: Mapping[str, str] = {}


def estimate(values: Iterable[float]) -> Estimate:
    """Return the mean of values, at least one, and its 95% interval after Student's t."""
    values = [*map(float, values)]
    mean, n = statistics.mean(values), len(values)
    if n == 1:
        return Estimate(mean, None)
    error = statistics.stdev(values) / math.sqrt(n)
    return Estimate(mean, float(special.stdtrit(n - 1, 0.975)) * error)


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one model, in one setting, on one split, that differ in their seeds.

    Args:
        label: the settings in which the model's runs differ, empty where there are none.
        runs: the finished runs, rows of `Sweep.runs`; none in a group that is open.
        settings: the values behind the label as texts, by their keys.
        unfinished: the cells that are missing.
    """

    model: str
    label: str
    split: str
    runs: pd.DataFrame
    settings: dict[str, str] = field(default_factory=dict)
    unfinished: list[Unfinished] = field(default_factory=list)
    _found: dict[str, Estimate | None] = field(default_factory=dict, repr=False)

    @property
    def variant(self) -> str:
        """Return what to call the model in this setting."""
        return f"{self.model}, {self.label}" if self.label else self.model

    @property
    def trained(self) -> bool:
        """Tell whether there was something to train; if not, it is a closed form."""
        return self.mean("parameters") > 0

    @property
    def trained_before(self) -> bool:
        """Tell whether its runs took what was trained elsewhere: their time is not training's."""
        return "trained_here" in self.runs and not self.runs["trained_here"].astype(bool).any()

    @property
    def exact(self) -> bool:
        """Tell whether no error is larger than what is written as 0."""
        return self.mean("test/max_error_px") < 5e-4

    @property
    def unseen(self) -> bool:
        """Tell whether training never saw any of the test positions."""
        return self.mean(SEEN) == 0

    @property
    def error(self) -> Estimate:
        """Return the mean error on test positions, px."""
        return self._over_seeds(MEAN_ERROR)

    def mean(self, key: str) -> float:
        """Return the mean over seeds of a figure that every run has."""
        return self._over_seeds(key).mean

    def figure(self, key: str) -> Estimate | None:
        """Return a figure of ``metrics.json`` that all runs have; of training, if it was here."""
        if key.startswith("train_") and self.trained_before:
            return None
        if key not in self._found:
            values = [*self.runs.get(key, [])]
            all_have = bool(values) and all(map(is_figure, values))
            self._found[key] = estimate(values) if all_have else None
        return self._found[key]

    def _over_seeds(self, key: str) -> Estimate:
        return self.figure(key) or estimate(self.runs[key])

    def error_by_position(self) -> np.ndarray:
        """Return the mean error at every position, over seeds: (H, W), px, nan where untested."""
        size = as_size(self.runs["image_size"].iloc[0])
        return error_by_position(self.runs["predictions"], size)


def texts(table: pd.DataFrame, key: str) -> str:
    """Return what runs say under a key: ``cpu``; several where they differ, ``?`` for nothing."""
    values = table[key] if key in table else pd.Series([None], dtype=object)
    return ", ".join(sorted({"?" if pd.isna(value) else str(value) for value in values}))


def group_runs(table: pd.DataFrame, unfinished: Sequence[Unfinished] = ()) -> list[Group]:
    """Put the runs, rows of `Sweep.runs`, together that differ in nothing but their seeds.

    Groups come by split, the smallest mean error first, those of which nothing is finished last.
    """
    groups: list[Group] = []
    for model, own in table.groupby("model", sort=False):
        told = {id(one): one for one in own["settings"]}.values()
        every = dict.fromkeys(key for one in told for key in one if key != "data.split")
        # Runs made before there was a setting have no value: they do not tell themselves apart.
        differ = [key for key in every if len({_text(one[key]) for one in told if key in one}) > 1]
        texts = [{k: _text(one[k]) for k in differ if k in one} for one in own["settings"]]
        varying = pd.DataFrame(texts, own.index, differ, dtype=object)
        keys = [own["split"], *(varying[key] for key in varying)]
        kinds = [members for _, members in own.groupby(keys, sort=False, dropna=False)]
        rows = varying.loc[[members.index[0] for members in kinds]]
        baseline = _baseline(rows)
        for members, (_, row) in zip(kinds, rows.iterrows(), strict=True):
            kind = row.dropna().to_dict()
            changed = {key: text for key, text in kind.items() if baseline.get(key) != text}
            label = _label(changed, varying) if changed or not kind else BASELINE
            groups.append(Group(str(model), label, members["split"].iloc[0], members, kind))
    groups += _open_groups(groups, unfinished)
    splits = [*SPLITS, *sorted({group.split for group in groups} - {*SPLITS})]

    def rank(group: Group) -> tuple[Any, ...]:
        error = math.inf if group.runs.empty else group.error.mean
        return splits.index(group.split), error, group.model, group.label

    return sorted(groups, key=rank)


def baselines(groups: Sequence[Group]) -> dict[str, str]:
    """Return the settings that a label ``baseline`` stands for, by model."""
    found = [group for group in groups if group.label == BASELINE]
    return {group.model: _label(group.settings, group.settings) for group in found}


def by_split(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """Return the groups of each split, in the order in which they are shown."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.split, []).append(group)
    return found


def few(groups: Sequence[Group]) -> list[Group]:
    """Return what pictures have room for: the best of each split, if there are very many."""
    splits = by_split(groups).values()
    return [group for own in splits for group in (own if len(own) <= MANY else own[:BEST])]


def seen_share(groups: Sequence[Group]) -> str:
    """Return how much of the test positions training had seen: ``64%`` or ``63 to 65%``."""
    shares = [100 * float(share) for group in groups for share in group.runs[SEEN]]
    low, high = math.floor(min(shares)), math.ceil(max(shares))
    return f"{statistics.mean(shares):.0f}%" if high - low <= 1 else f"{low} to {high}%"


def curves_over(key: str, groups: Sequence[Group]) -> dict[str, Curve]:
    """Return the mean error against a numeric setting: a curve for each model and the rest.

    Settings of the Trainer that follow from it (fewer epochs with more samples) tell none apart.
    The groups are of one split and have finished runs.
    """
    texts = pd.Series({group: group.settings.get(key) for group in groups}, dtype=object)
    values = pd.to_numeric(texts, errors="coerce").dropna()
    following: dict[str, list[str]] = {}
    every: dict[str, list[str]] = {}
    for model in {group.model for group in values.index}:
        own = pd.DataFrame([one.settings for one in values.index if one.model == model])
        by_value = own.groupby(key).nunique(dropna=False).max()
        following[model] = [k for k in own if k.startswith("trainer.") and by_value.get(k) == 1]
        every[model] = [*own]
    curves: dict[str, Curve] = {}
    for group, value in values.items():
        left_out = (key, *following[group.model])
        rest = {k: text for k, text in group.settings.items() if k not in left_out}
        name = f"{group.model}, {_label(rest, every[group.model])}" if rest else group.model
        curves.setdefault(name, {})[value] = group.error
    return {name: dict(sorted(curve.items())) for name, curve in curves.items() if len(curve) > 1}


def _baseline(settings: pd.DataFrame) -> dict[str, str]:
    """Return the settings that most rows have, if there is a row that has all of them.

    It is that of an ablation, which changes one at a time: in a grid none has a majority.
    """
    if settings.empty:
        return {}
    texts = settings.fillna("")
    common = texts == texts.mode().iloc[0]
    whole = settings[common.all(axis=1)]
    majority = (common.mean() > 0.5).all() and not whole.empty
    return whole.iloc[0].dropna().to_dict() if majority else {}


def _label(settings: Mapping[str, str], among: Iterable[str]) -> str:
    """Name settings by the last words of their keys, where these are not two settings'."""
    last = {key: key.removesuffix("._target_").rpartition(".")[2] for key in among}
    count = Counter(last.values())
    words = []
    for key, text in settings.items():
        value = text.rpartition(".")[2] if key.endswith("._target_") else text
        words.append(f"{last[key] if count[last[key]] == 1 else key}={value}")
    return ", ".join(words)


def _text(value: Any) -> str:
    """Write a setting as YAML does; equal texts are equal settings."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _open_groups(groups: Sequence[Group], unfinished: Sequence[Unfinished]) -> list[Group]:
    """Add the unfinished cells to their groups; return new groups for those that have none."""
    done = [(group, overrides) for group in groups for overrides in group.runs["overrides"]]
    finished = [group for group in groups if not group.runs.empty]
    solved = {g.model for g in finished if g.runs.get("lr", pd.Series(0)).isna().all()}

    def place(model: str, split: str, overrides: Mapping[str, str]) -> tuple[Any, ...]:
        return model, split, *sorted(telling(overrides, solved=model in solved).items())

    places = {place(group.model, group.split, overrides): group for group, overrides in done}
    every = [*(overrides for _, overrides in done), *(cell.overrides for cell in unfinished)]
    common = set.intersection(*({*overrides.items()} for overrides in every))
    opened = []
    for cell in unfinished:
        key = place(cell.model, cell.split, cell.overrides)
        if key not in places:
            rest = dict(pair for pair in key[2:] if pair not in common)
            label = {k: v for k, v in rest.items() if k not in _NAMED}
            places[key] = Group(cell.model, _label(label, label), cell.split, pd.DataFrame())
            opened.append(places[key])
        places[key].unfinished.append(cell)
    return opened
