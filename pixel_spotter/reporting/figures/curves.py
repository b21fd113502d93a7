"""Errors as curves: against a setting that a grid varies, and learning curves."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pixel_spotter import runs
from pixel_spotter.reporting.figures.drawing import colours_of, legend, log_scale, panels, styled
from pixel_spotter.reporting.groups import (
    BEST,
    MANY,
    Curve,
    Group,
    Section,
    by_split,
    curves_over,
    estimate,
    few,
)  # fmt: skip

_SETTINGS = {"data.train_samples": "training samples", "trainer.max_epochs": "epochs"}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_VAL = "val/mean_error_px"
_CAPTION = (
    "Mean error on validation positions after each epoch, mean over seeds with its 95% interval. "
    "The error axis is the same in every panel. In quadrant and border these positions lie in the "
    "region that is trained on: a good curve says nothing about the test."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show curves against what the grid varies, and the learning curves."""
    yield from over_settings(groups)
    yield from learning(few(groups))


def over_settings(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a panel for each split, for each of the settings that varies."""
    for key, words in _SETTINGS.items():
        shown: dict[str, dict[str, Curve]] = {}
        exact = set()
        for split, own in by_split(groups).items():
            curves = [*curves_over(key, own).items()]
            if len(curves) > MANY:
                curves = sorted(curves, key=lambda pair: min(pair[1].values()))[:BEST]
            for name, curve in curves:
                if any(error.mean for error in curve.values()):
                    shown.setdefault(split, {})[name] = curve
                else:
                    exact.add(name)
        if shown:
            caption = (
                f"Mean error on test positions against the number of {words}, a line a model, with "
                f"its 95% interval; both axes are logarithmic."
            )
            if exact:
                caption += f" Not drawn, as their error is 0: {', '.join(sorted(exact))}."
            figure = draw(shown, words, log_x=True)
            name = f"over_{words.split()[-1]}"
            yield Section(f"Error against {words}", caption, name=name, figure=figure)


def learning(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a panel for each model, a line for each split or setting; of both, a panel a setting."""
    several_splits = len(by_split(groups)) > 1
    labels: dict[str, set[str]] = {}
    for group in groups:
        labels.setdefault(group.model, set()).add(group.label)
    shown: dict[str, dict[str, Curve]] = {}
    for group in groups:
        curve = over_seeds(group)
        if group.trained and len(curve) > 1:
            several = several_splits and len(labels[group.model]) > 1
            panel = group.variant if several else group.model
            line = group.split if several_splits else group.label or group.split
            shown.setdefault(panel, {})[line] = curve
    drawn = [curve for lines in shown.values() for curve in lines.values()]
    if any(error.mean for curve in drawn for error in curve.values()):
        yield Section("Learning curves", _CAPTION, name="training", figure=draw(shown, "epoch"))


def over_seeds(group: Group) -> Curve:
    """Return the mean over seeds of the epochs that all runs reached."""
    found = []
    for folder in group.runs["folder"]:
        epochs = runs.read_epochs(folder)
        if _VAL not in epochs:
            return {}
        found.append(epochs[_VAL].copy())  # without the rest
    table = pd.concat(found, axis=1).dropna()
    return {int(epoch): estimate(row) for epoch, row in zip(table.index, table.values, strict=True)}


@styled
def draw(by_panel: Mapping[str, Mapping[str, Curve]], x_label: str, log_x: bool = False) -> Figure:
    """Draw errors but 0 on a logarithmic axis; with ``log_x`` the other is too, values marked."""
    names = list(dict.fromkeys(name for lines in by_panel.values() for name in lines))
    if any("=" in name for name in names):  # settings: by their values, not by the errors
        names.sort(key=lambda t: [float(w) if _NUMBER.match(w) else w for w in _NUMBER.split(t)])
    colours = colours_of(names)
    width = 3.3 if len(by_panel) > 2 else 4.8
    figure, grid = panels([*by_panel], 3, (width, 0.72 * width), sharey=True)
    means = []
    for k, (axes, lines) in enumerate(zip(grid, by_panel.values(), strict=True)):
        for name, curve in lines.items():
            shown = {x: error for x, error in curve.items() if error.mean > 0}
            mean = np.array([error.mean for error in shown.values()])
            half = np.array([error.half or 0 for error in shown.values()])
            means += [*mean]
            line, colour, x = "o-" if log_x else "-", colours[name], [*shown]
            axes.plot(x, mean, line, color=colour, lw=1.4, ms=3.5)
            low = np.maximum(mean - half, mean / 100)
            axes.fill_between(x, low, mean + half, color=colour, alpha=0.2, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if log_x:
            axes.set_xscale("log")
            ticks = sorted({value for curve in lines.values() for value in curve})
            axes.set_xticks(ticks, [f"{v:g}" if v < 1000 else f"{v / 1000:g}k" for v in ticks])
            axes.set_xticks([], minor=True)
        axes.set(xlabel=x_label, ylabel="" if k % 3 else "mean error (px)")
        axes.grid()
    grid[0].set_ylim(min(means) / 1.5, max(means) * 1.5)
    log_scale(grid[0], "y")
    legend(figure, colours)
    return figure
