"""The error against the number of training samples, or epochs, where a grid varies them."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pixel_spotter.reporting.figures.drawing import curves
from pixel_spotter.reporting.groups import Estimate, Group, curves_over, splits_of
from pixel_spotter.reporting.section import Section

_SETTINGS = {"data.train_samples": "training samples", "trainer.max_epochs": "epochs"}


def sections(groups: Sequence[Group]) -> list[Section]:
    """Show a panel for each split, for each of the settings that varies."""
    found = []
    for key, words in _SETTINGS.items():
        panels: dict[str, dict[str, pd.DataFrame]] = {}
        exact = set()
        for split in splits_of(groups):
            own = curves_over(key, [group for group in groups if group.split == split])
            for name, curve in own.items():
                if any(error.mean for error in curve.values()):
                    panels.setdefault(split, {})[name] = _with_ends(curve)
                else:
                    exact.add(name)
        if panels:
            caption = (
                f"Mean error on test positions against the number of {words}, a line a model, with "
                f"its 95% interval; both axes are logarithmic."
            )
            caption += (
                f" Not drawn, as their error is 0: {', '.join(sorted(exact))}." if exact else ""
            )
            figure = curves(panels, words, log_x=True)
            name = f"over_{words.split()[-1]}"
            found.append(Section(f"Error against {words}", caption, name=name, figure=figure))
    return found


def _with_ends(curve: Mapping[float, Estimate]) -> pd.DataFrame:
    """Return the mean and the ends of its interval, px, by the setting's value."""
    rows = [(mean, mean - (half or 0), mean + (half or 0)) for mean, half in curve.values()]
    return pd.DataFrame(rows, index=[*curve], columns=["mean", "low", "high"])
