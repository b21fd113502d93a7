"""Learning curves: the validation error after each epoch."""

from collections.abc import Sequence

import pandas as pd

from pixel_spotter import runs
from pixel_spotter.reporting.figures.drawing import curves
from pixel_spotter.reporting.groups import Curve, Group, estimate, splits_of
from pixel_spotter.reporting.section import Section

_VAL = "val/mean_error_px"
_CAPTION = (
    "Mean error on validation positions after each epoch, mean over seeds with its 95% interval. "
    "The error axis is the same in every panel. In quadrant and border these positions lie in the "
    "region that is trained on: a good curve says nothing about the test."
)


def sections(groups: Sequence[Group]) -> list[Section]:
    """Show a panel for each model, with a line for each split, or for each of its settings.

    A model that has several of both has a panel for each setting.
    """
    several_splits = len(splits_of(groups)) > 1
    panels: dict[str, dict[str, Curve]] = {}
    for group in groups:
        labels = {other.label for other in groups if other.model == group.model}
        curve = over_seeds(group)
        if group.trained and len(curve) > 1:
            panel = group.variant if several_splits and len(labels) > 1 else group.model
            line = group.split if several_splits else group.label or group.split
            panels.setdefault(panel, {})[line] = curve
    drawn = [curve for lines in panels.values() for curve in lines.values()]
    if not any(error.mean for curve in drawn for error in curve.values()):
        return []
    return [Section("Learning curves", _CAPTION, name="training", figure=curves(panels, "epoch"))]


def over_seeds(group: Group) -> Curve:
    """Return the mean over seeds of the epochs that all runs reached."""
    epochs = [runs.read_epochs(folder) for folder in group.runs["folder"]]
    if not all(_VAL in run for run in epochs):
        return {}
    table = pd.concat([run[_VAL] for run in epochs], axis=1).dropna()
    return {int(epoch): estimate(row) for epoch, row in zip(table.index, table.values, strict=True)}
