"""The error against the number of training samples, or epochs, where a grid varies them."""

from collections.abc import Sequence

from pixel_spotter.reporting.figures.drawing import curves
from pixel_spotter.reporting.groups import Curve, Group, curves_over, splits_of
from pixel_spotter.reporting.section import Section

_SETTINGS = {"data.train_samples": "training samples", "trainer.max_epochs": "epochs"}


def sections(groups: Sequence[Group]) -> list[Section]:
    """Show a panel for each split, for each of the settings that varies."""
    found = []
    for key, words in _SETTINGS.items():
        panels: dict[str, dict[str, Curve]] = {}
        exact = set()
        for split in splits_of(groups):
            own = curves_over(key, [group for group in groups if group.split == split])
            for name, curve in own.items():
                if any(error.mean for error in curve.values()):
                    panels.setdefault(split, {})[name] = curve
                else:
                    exact.add(name)
        if panels:
            caption = (
                f"Mean error on test positions against the number of {words}, a line a model, with "
                f"its 95% interval; both axes are logarithmic."
            )
            if exact:
                caption += f" Not drawn, as their error is 0: {', '.join(sorted(exact))}."
            figure = curves(panels, words, log_x=True)
            name = f"over_{words.split()[-1]}"
            found.append(Section(f"Error against {words}", caption, name=name, figure=figure))
    return found
