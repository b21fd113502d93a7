"""From runs to what a report says: groups over seeds, means with intervals, ranks, curves."""

import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pixel_spotter.coordinates import Size, as_size
from pixel_spotter.metrics import error_by_position, errors_px, point_metrics
from pixel_spotter.reporting.cells import Cell, Unfinished, compared

MEAN_ERROR = "test/mean_error_px"
SPLITS = ("uniform", "quadrant", "border", "iid")
"""The order in which splits are shown; others come after them."""

BASELINE = "baseline"
"""The label of the runs whose settings most of a model's runs share."""

_NONE = object()
_STANDARD = {f"test/{name}" for name in point_metrics(torch.zeros(1, 2), torch.zeros(1, 2))}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Args:
        mean: the mean.
        half: half the width of its 95% interval; None where there is one value only.
        n: how many values.
    """

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        """Return the interval's lower end, or the mean where there is none."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Return the interval's upper end, or the mean where there is none."""
        return self.mean + (self.half or 0.0)


@dataclass(frozen=True)
class Group:
    """The runs of one model, in one setting, on one split, that differ in their seeds.

    Args:
        model: its name.
        label: the settings in which the model's runs differ, empty where there are none.
        split: the split.
        cells: the finished runs.
        settings: the values behind the label, by their keys.
        unfinished: the runs that are missing.
    """

    model: str
    label: str
    split: str
    cells: list[Cell]
    settings: dict[str, Any] = field(default_factory=dict)
    unfinished: list[Unfinished] = field(default_factory=list)

    @property
    def variant(self) -> str:
        """Return what to call the model in this setting."""
        return f"{self.model}, {self.label}" if self.label else self.model

    @property
    def trained(self) -> bool:
        """Tell whether there was something to train; if not, it is a closed form."""
        return self.figure("parameters").mean > 0

    @property
    def exact(self) -> bool:
        """Tell whether no error is larger than what is written as 0."""
        return self.figure("test/max_error_px").mean < 5e-4

    @property
    def unseen(self) -> bool:
        """Tell whether training never saw any of the test positions."""
        return all(cell.metrics["test/seen_in_training"] == 0 for cell in self.cells)

    @property
    def size(self) -> Size:
        """Return the images' height and width, px."""
        return as_size(self.cells[0].metrics["image_size"])

    @property
    def error(self) -> Estimate:
        """Return the mean error on test positions, px."""
        return self.figure(MEAN_ERROR)

    def has(self, key: str) -> bool:
        """Tell whether every run has a figure."""
        return all(_is_figure(cell.metrics.get(key)) for cell in self.cells)

    def figure(self, key: str) -> Estimate:
        """Return a figure of ``metrics.json``, over seeds."""
        return estimate([float(cell.metrics[key]) for cell in self.cells])

    def texts(self, key: str) -> str:
        """Return what the runs say under a key: ``cpu``; several where they differ."""
        return ", ".join(sorted({str(cell.metrics.get(key, "?")) for cell in self.cells}))

    def error_by_position(self) -> np.ndarray:
        """Return the mean error at every position, over seeds: (H, W), px, nan where untested."""
        xy_pred = torch.cat([cell.xy_pred for cell in self.cells])
        xy_true = torch.cat([cell.xy_true for cell in self.cells])
        return error_by_position(xy_pred, xy_true, self.size)

    def worst(self, count: int) -> list["Miss"]:
        """Return the largest errors over all seeds, each position once, the worst first."""
        misses: dict[tuple[float, ...], Miss] = {}
        for cell in self.cells:
            error = errors_px(cell.xy_pred.double(), cell.xy_true.double())
            for index in error.argsort(descending=True).tolist():
                true = tuple(cell.xy_true[index].tolist())
                miss = Miss(
                    cell.xy_true[index], cell.xy_pred[index], error[index].item(), cell.seed[0]
                )
                if true not in misses or miss.error > misses[true].error:
                    misses[true] = miss
        return sorted(misses.values(), key=lambda miss: -miss.error)[:count]


@dataclass(frozen=True)
class Miss:
    """One prediction: truth and prediction xy_px (2,), its error in px, the run's seed."""

    xy_true: Tensor
    xy_pred: Tensor
    error: float
    seed: Any


@dataclass(frozen=True)
class Curve:
    """A mean over seeds against something: the same number of ``x`` and ``y``."""

    x: list[float]
    y: list[Estimate]

    @property
    def positive(self) -> bool:
        """Tell whether there is anything to draw on a logarithmic axis."""
        return any(value.mean > 0 for value in self.y)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values and its 95% interval after Student's t.

    Raises:
        ValueError: if there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to estimate from")
    mean = float(statistics.mean(values))
    if n == 1:
        return Estimate(mean, None, 1)
    error = float(statistics.stdev(values)) / math.sqrt(n)
    return Estimate(mean, float(stats.t.ppf(0.975, n - 1)) * error, n)


def group_runs(cells: Sequence[Cell], unfinished: Sequence[Unfinished] = ()) -> list[Group]:
    """Put the runs together that differ in nothing but their seeds.

    Returns:
        The groups, by split, the smallest mean error first; on each split the models of which
        nothing is finished stand last, as groups without cells.
    """
    groups: list[Group] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model]
        varying = _varying([cell.kind for cell in own])
        kinds: dict[str, list[Cell]] = {}
        for cell in own:
            told_apart = [repr(cell.kind.get(key, _NONE)) for key in varying]
            kinds.setdefault(repr((cell.split, told_apart)), []).append(cell)
        shown = _shown(varying, [members[0].kind for members in kinds.values()])
        settings_of = [
            {key: members[0].kind[key] for key in shown if key in members[0].kind}
            for members in kinds.values()
        ]
        baseline = _baseline(settings_of)
        for members, settings in zip(kinds.values(), settings_of, strict=True):
            rest = {k: v for k, v in settings.items() if repr(v) != repr(baseline.get(k, _NONE))}
            label = _label(rest, shown) if rest or not settings else BASELINE
            groups.append(Group(model, label, members[0].split, members, settings))
    groups += _open_groups(groups, unfinished)
    return sorted(groups, key=_rank)


def baselines(groups: Sequence[Group]) -> dict[str, str]:
    """Return the settings that a label ``baseline`` stands for, by model."""
    return {
        group.model: _label(group.settings, list(group.settings))
        for group in groups
        if group.label == BASELINE
    }


def splits_of(groups: Sequence[Group]) -> list[str]:
    """Return the splits in the order in which they are shown."""
    return list(dict.fromkeys(group.split for group in groups))


def extra_figures(groups: Sequence[Group]) -> list[str]:
    """Return the keys of the figures that some models have of their own."""
    keys = {key: None for group in groups for cell in group.cells for key in cell.metrics}
    return [
        key
        for key in keys
        if key.startswith("test/")
        and key not in (*_STANDARD, "test/seen_in_training")
        and any(group.cells and group.has(key) for group in groups)
    ]


def seen_share(groups: Sequence[Group]) -> str:
    """Return how much of the test positions training had seen: ``64%`` or ``63 to 65%``."""
    shares = [cell.metrics["test/seen_in_training"] for group in groups for cell in group.cells]
    low, high = math.floor(100 * min(shares)), math.ceil(100 * max(shares))
    mean = round(100 * sum(shares) / len(shares))
    return f"{mean}%" if high - low <= 1 else f"{low} to {high}%"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which of the points (cost, error) no other one beats in both, by rising cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda k: points[k]):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def training_curve(group: Group, tag: str = "val/mean_error_px") -> Curve | None:
    """Return a logged scalar against the epoch, over the epochs that every run reached."""
    runs = [_scalars(cell.folder, tag) for cell in group.cells]
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    if not epochs:
        return None
    return Curve([float(e) for e in epochs], [estimate([run[e] for run in runs]) for e in epochs])


def curves_over(key: str, groups: Sequence[Group]) -> dict[str, Curve]:
    """Return the mean error against a numeric setting: a curve for each model and the rest.

    What the Trainer's settings follow from it (fewer epochs where there are more samples) does not
    tell curves apart. Models whose runs do not differ in the setting have none.

    Args:
        key: ``data.train_samples`` or ``trainer.max_epochs``.
        groups: of one split.
    """
    curves: dict[str, dict[float, Estimate]] = {}
    for model in dict.fromkeys(group.model for group in groups):
        own = [group for group in groups if group.model == model and group.cells]
        own = [group for group in own if isinstance(group.settings.get(key), int | float)]
        keys = list(dict.fromkeys(k for group in own for k in group.settings))
        apart = [
            k for k in keys if k != key and not (k.startswith("trainer.") and _follows(k, key, own))
        ]
        for group in sorted(own, key=lambda group: float(group.settings[key])):
            rest = _label({k: v for k, v in group.settings.items() if k in apart}, keys)
            name = f"{model}, {rest}" if rest else model
            curves.setdefault(name, {})[float(group.settings[key])] = group.error
    return {
        name: Curve(list(points), list(points.values()))
        for name, points in curves.items()
        if len(points) > 1
    }


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _rank(group: Group) -> tuple[Any, ...]:
    known = SPLITS.index(group.split) if group.split in SPLITS else len(SPLITS)
    error = group.error.mean if group.cells else math.inf
    return known, group.split, error, group.model, group.label


def _varying(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings, other than the split, that have several values.

    A setting that some runs lack, having been made before there was such a setting, has several
    values only if the others do not agree either.
    """
    values: dict[str, set[str]] = {}
    for kind in kinds:
        for key, value in kind.items():
            values.setdefault(key, set()).add(repr(value))
    return [key for key, found in values.items() if len(found) > 1 and key != "data.split"]


def _shown(varying: Sequence[str], kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings to name: another scheduler's own go without saying."""
    targets = tuple(key.removesuffix("_target_") for key in varying if key.endswith("._target_"))
    return [
        key
        for key in varying
        if key.endswith("._target_")
        or not key.startswith(targets)
        or all(key in kind for kind in kinds)
    ]


def _baseline(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that most runs have, if there are runs that have all of them.

    An ablation changes one setting at a time: its rows are labelled by what was changed. In a
    grid of all combinations no value has a majority, and there is no baseline.
    """
    keys = list(dict.fromkeys(key for one in settings for key in one))
    found: dict[str, Any] = {}
    for key in keys:
        values = [repr(one.get(key, _NONE)) for one in settings]
        value, count = Counter(values).most_common(1)[0]
        if count * 2 <= len(values):
            return {}
        found[key] = next(
            one.get(key, _NONE) for one, v in zip(settings, values, strict=True) if v == value
        )
    whole = {key: value for key, value in found.items() if value is not _NONE}
    return whole if any(dict(one) == whole for one in settings) else {}


def _label(settings: Mapping[str, Any], among: Sequence[str]) -> str:
    """Name settings by the last words of their keys, where these are not two settings'."""
    words = []
    for key, value in settings.items():
        name = key.removesuffix("._target_").rpartition(".")[2]
        if sum(other.removesuffix("._target_").rpartition(".")[2] == name for other in among) > 1:
            name = key
        if key.endswith("._target_"):
            value = str(value).rpartition(".")[2]
        words.append(f"{name}={_text(value)}")
    return ", ".join(words)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


def _open_groups(groups: Sequence[Group], unfinished: Sequence[Unfinished]) -> list[Group]:
    """Add the unfinished runs to their groups; return new groups for those that have none."""
    places = {
        (cell.model, cell.split, compared(cell.overrides)): group
        for group in groups
        for cell in group.cells
    }
    own: dict[tuple[Any, ...], Group] = {}
    common = _common([cell.overrides for cell in unfinished], groups)
    for cell in unfinished:
        key = (cell.model, cell.split, compared(cell.overrides))
        if key not in places and key not in own:
            rest = {
                k: v for k, v in key[2] if k not in ("model", "data.split") and (k, v) not in common
            }
            own[key] = Group(cell.model, _label(rest, list(rest)), cell.split, [])
        (places.get(key) or own[key]).unfinished.append(cell)
    return list(own.values())


def _common(
    overrides: Sequence[Mapping[str, str]], groups: Sequence[Group]
) -> set[tuple[str, str]]:
    """Return the overrides that every cell shares."""
    everywhere = [*overrides, *(cell.overrides for group in groups for cell in group.cells)]
    return set.intersection(*(set(one.items()) for one in everywhere)) if everywhere else set()


def _follows(key: str, cause: str, groups: Sequence[Group]) -> bool:
    """Tell whether one setting has a single value for each value of another."""
    values: dict[str, set[str]] = {}
    for group in groups:
        values.setdefault(repr(group.settings[cause]), set()).add(repr(group.settings.get(key)))
    return len(values) > 1 and all(len(found) == 1 for found in values.values())


def _scalars(folder: Path, tag: str) -> dict[int, float]:
    """Read a scalar from a run's TensorBoard files: step -> value, the last one written."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    keep: dict[str, int] = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}
    quiet: Callable[..., None] = logging.getLogger("tensorboard").setLevel
    quiet(logging.ERROR)
    events: Any = EventAccumulator(str(folder), size_guidance=keep)
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        return {}
    return {int(event.step): float(event.value) for event in events.Scalars(tag)}
