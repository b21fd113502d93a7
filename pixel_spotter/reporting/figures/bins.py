"""Predictions of spots put into bins, with what chance leaves open: what their pictures share."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pixel_spotter.reporting.figures.drawing import colours_of
from pixel_spotter.reporting.groups import Group, few

LEAST = 50
"""A bin with fewer spots is left out."""

_SIGMAS = 1.96
"""So many standard errors are half of a 95% interval."""

ALONE = (7.6, 4.6)
"""The size of a panel that has no other beside it, inches."""

_ERRORS = ["at", "rmse", "rmse_half", "bound", "ratio", "ratio_half"]
_MARKERS = "osD^vPX*"


def having(groups: Sequence[Group], *names: str) -> list[Group]:
    """Return few groups whose runs have columns and a bound, and found `LEAST` spots or more."""
    needed = {"bound_x", "bound_y", *names}
    known = [g for g in groups if all(needed <= one.keys() for one in g.runs["predictions"])]
    return [g for g in few(known) if spots_of(g)["square"].count() >= LEAST]


def spots_of(group: Group) -> pd.DataFrame:
    """Return a group's predictions, over all seeds, a row a spot.

    Returns:
        All columns; ``error_x, error_y``, px, nan where nothing was found; ``square`` and
        ``floor``: squared error and squared bound, px², means over both axes.
    """
    tables = [
        pd.DataFrame({name: column.double().numpy() for name, column in one.items()})
        for one in group.runs["predictions"]
    ]
    spots = pd.concat(tables, ignore_index=True)
    for axis in ("x", "y"):
        spots[f"error_{axis}"] = spots[axis] - spots[f"{axis}_true"]
    spots["square"] = (spots["error_x"] ** 2 + spots["error_y"] ** 2) / 2
    spots["floor"] = (spots["bound_x"] ** 2 + spots["bound_y"] ** 2) / 2
    return spots


def edges_of(values: pd.Series, most: int = 10) -> np.ndarray:
    """Return the edges of at most so many bins that hold equally many values, `LEAST` or more."""
    count = max(1, min(most, values.count() // LEAST))
    return np.asarray(np.quantile(values.dropna(), np.linspace(0, 1, count + 1)))


def numbered(values: pd.Series, edges: np.ndarray) -> np.ndarray:
    """Return in which bin each value is."""
    return np.asarray(np.digitize(values, edges[1:-1]))


def errors_in(spots: pd.DataFrame, *bins: np.ndarray) -> pd.DataFrame:
    """Return the errors in bins, by the bins' numbers.

    Args:
        spots: see `spots_of`, with a column ``at``: what they are binned by.
        bins: the numbers of each spot's bin, (N,); of several, each combination is a bin.

    Returns:
        ``at``, the mean; ``rmse`` and ``bound``, px, and ``ratio``, rmse over bound, of the spots
        that were found; ``rmse_half`` and ``ratio_half``, half the widths of 95% intervals.
    """
    rows = {}
    for place, whole in spots.groupby([*bins]):
        own = whole[whole["square"].notna()]
        if len(own) < LEAST:
            continue
        rmse, bound = math.sqrt(own["square"].mean()), math.sqrt(own["floor"].mean())
        beyond = own["square"] - (rmse / bound) ** 2 * own["floor"]
        halves = [_SIGMAS * float(one.sem()) / 2 / rmse for one in (own["square"], beyond)]
        rows[place] = {
            "at": own["at"].mean(), "rmse": rmse, "rmse_half": halves[0], "bound": bound,
            "ratio": rmse / bound, "ratio_half": halves[1] / bound,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=_ERRORS)


def means_in(values: pd.Series, bins: np.ndarray) -> pd.DataFrame:
    """Return ``mean`` and ``mean_half``, half of its 95% interval, of values in bins."""
    by_bin = values.dropna().groupby(bins[values.notna()])
    found = pd.DataFrame({"mean": by_bin.mean(), "mean_half": _SIGMAS * by_bin.sem()})
    return found[by_bin.size() >= LEAST]


def styles_of(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Give each variant a colour and a marker, the same in every picture of a report."""
    colours = colours_of(group.variant for group in groups)
    return {
        name: {"color": colour, "marker": _MARKERS[k % len(_MARKERS)], "ms": 4, "lw": 1.2}
        for k, (name, colour) in enumerate(colours.items())
    }


def draw_line(axes: Axes, x: pd.Series, table: pd.DataFrame, y: str, style: dict[str, Any]) -> None:
    """Draw a column of a table with its 95% intervals."""
    axes.errorbar(x, table[y], table[f"{y}_half"], elinewidth=0.8, **style)


def lost(groups: Sequence[Group]) -> str:
    """Say which spots are left out, as nothing was found there, if there are any."""
    shares = {g: float(spots_of(g)["square"].isna().mean()) for g in groups}
    most = max(shares, key=lambda group: shares[group])
    if not shares[most]:
        return ""
    return (
        f" Spots where nothing was found are left out: at most {shares[most]:.2%} "
        f"({most.variant}, {most.split})."
    )
