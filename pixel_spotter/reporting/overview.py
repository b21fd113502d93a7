"""A page on what ``locate`` found in files: their frames, some spots, how many, how exactly."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.ticker import MaxNLocator

from pixel_spotter.files import write_text
from pixel_spotter.reporting.figures.drawing import log_scale, panels, styled
from pixel_spotter.reporting.groups import Section
from pixel_spotter.reporting.page import environment

SHOWN_FRAMES, SHOWN_SPOTS = 3, 12
_FOUND, _DOUBTFUL = "#ff9d3b", "#ff5a7a"
_AROUND_PX, _CIRCLE_PX = 5, 7
_ESTIMATED = "estimated "

ReadFrame = Callable[[str, int], np.ndarray]
"""Reads a frame (H, W) of a file, by their names in the table."""


def write_overview(
    path: Path, table: pd.DataFrame, read: ReadFrame, told: Mapping[str, Any]
) -> None:
    """Write the page.

    Args:
        path: an HTML file, which holds its pictures.
        table: all that was found, as `locate` writes it.
        read: a frame.
        told: what is to be said of how it was found.
    """
    page = environment.get_template("overview.html")
    sections = [*frames(table, read), *spots(table, read), *counts(table), *precision(table)]
    sections.append(Section("How this was found", terms=dict(flat(told))))
    write_text(path, page.render(title=headline(table), sections=sections, inlined=inlined))


def flat(told: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, str]]:
    """Yield what was told, settings within others by their whole names; not what was not."""
    for key, value in told.items():
        name = f"{of}{key}"
        if isinstance(value, Mapping):
            of_kind = f"{name}: " if of == _ESTIMATED else f"{name}."
            yield from flat(value, _ESTIMATED if key == "estimated" else of_kind)
        elif isinstance(value, list):
            others = len(value) - 1
            more = f" and {others:,} other{'s' * (others > 1)}" * (others > 0)
            yield name, f"{value[0]}{more}" if value else ""
        elif value is not None:
            yield name, f"{value:.5g}" if isinstance(value, float) else str(value)


def headline(table: pd.DataFrame) -> str:
    """Say how much was found: ``225 spots in 5 frames of 1 file, 3 of them flagged``."""
    places = table[["file", "frame"]].drop_duplicates()
    flagged = int((table["flag"] != "").sum())
    files, many = places["file"].nunique(), len(places)
    return (
        f"{len(table):,} spots in {many:,} frame{'s' * (many != 1)} of {files:,} "
        f"file{'s' * (files != 1)}, {flagged:,} of them flagged"
    )


def frames(table: pd.DataFrame, read: ReadFrame) -> list[Section]:
    """Show the first, the middle and the last frame in which there are spots."""
    places = [*table[["file", "frame"]].drop_duplicates().itertuples(index=False)]
    chosen = sorted({*np.linspace(0, len(places) - 1, SHOWN_FRAMES).round().astype(int)})
    shown = {
        f"{Path(file).name}, frame {frame}": (
            read(file, frame),
            table[(table["file"] == file) & (table["frame"] == frame)],
        )
        for file, frame in (places[k] for k in chosen if places)
    }
    caption = "Circles around what was found: orange, and red where a flag says why to doubt it."
    return [Section("Frames", caption, name="frames", figure=draw_frames(shown))] if shown else []


@styled
def draw_frames(shown: Mapping[str, tuple[np.ndarray, pd.DataFrame]]) -> Figure:
    """Draw frames with circles around their spots: one alone larger, and all in their shape."""
    wide = 4.2 if len(shown) > 1 else 5.4
    height = max(counts.shape[0] / counts.shape[1] for counts, _ in shown.values())
    figure, grid = panels(list(shown), 3, (wide, wide * min(height, 2.0) + 0.2))
    for axes, (counts, rows) in zip(grid, shown.values(), strict=False):
        show(axes, counts)
        across = max(8.0, _CIRCLE_PX * 72 * wide / counts.shape[1])  # points
        axes.autoscale(False)
        for doubtful, own in rows.groupby(rows["flag"] != ""):
            colour = _DOUBTFUL if doubtful else _FOUND
            axes.scatter(
                *(own["x"], own["y"], across**2),
                facecolors="none",
                edgecolors=colour,
                lw=0.9,
                clip_on=False,  # those at the edge
                in_layout=False,
            )
    return figure


def spots(table: pd.DataFrame, read: ReadFrame) -> list[Section]:
    """Show some spots, from the one that stands out least to the one that does most."""
    order = table.sort_values("score", kind="stable")
    places = np.linspace(0, len(order) - 1, SHOWN_SPOTS).round().astype(int)
    rows = order.iloc[sorted({*places})] if len(order) else order
    if rows.empty:
        return []
    caption = (
        "From the one that stands out least to the one that does most: a cross where it was found, "
        "around it the ellipse in which it lies with 95%."
    )
    return [Section("Spots", caption, name="spots", figure=draw_spots(rows, read))]


@styled
def draw_spots(rows: pd.DataFrame, read: ReadFrame) -> Figure:
    """Draw spots and how exactly they are known."""
    titles = [f"{row.score:.1f} deviations" for row in rows.itertuples()]
    figure, grid = panels(titles, 6, (1.5, 1.75))
    for axes, (_, row) in zip(grid, rows.iterrows(), strict=False):
        counts = read(row["file"], row["frame"])
        x, y = round(row["x"]), round(row["y"])
        top, left = max(0, y - _AROUND_PX), max(0, x - _AROUND_PX)
        part = counts[top : y + _AROUND_PX + 1, left : x + _AROUND_PX + 1]
        height, width = part.shape
        show(axes, part, (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5))
        axes.plot(row["x"], row["y"], "+", color=_FOUND, ms=5, mew=0.8)
        axes.add_patch(ellipse(row))
    return figure


def ellipse(row: pd.Series) -> Ellipse:
    """Return the ellipse that holds 95% of a Gaussian with a row's deviations."""
    shared = row["corr_xy"] * row["sd_x"] * row["sd_y"]
    variances, axes = np.linalg.eigh([[row["sd_x"] ** 2, shared], [shared, row["sd_y"] ** 2]])
    sides = 2 * np.sqrt(5.991 * variances.clip(min=0))
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    return Ellipse((row["x"], row["y"]), *sides, angle=angle, fill=False, color=_FOUND, lw=1.0)


def counts(table: pd.DataFrame) -> list[Section]:
    """Show how many spots each frame has, if there are several."""
    number = table.groupby(["file", "frame"], sort=False).size().to_numpy()
    if len(number) < 2:
        return []
    caption = "In each frame that has any, in the order of the table."
    return [Section("Spots a frame", caption, name="counts", figure=draw_counts(number))]


@styled
def draw_counts(number: np.ndarray) -> Figure:
    """Draw how many spots there are over time."""
    figure, (axes,) = panels([""], 1, (7.5, 2.6))
    axes.plot(number, lw=1.0, marker="." if len(number) < 100 else "")
    axes.set(xlabel="frame", ylabel="spots", ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


def precision(table: pd.DataFrame) -> list[Section]:
    """Show how exactly positions are known."""
    if table.empty:
        return []
    deviation = np.sqrt((table["sd_x"] ** 2 + table["sd_y"] ** 2) / 2).to_numpy()
    caption = (
        f"Standard deviations of a coordinate, as answered: half of them are below "
        f"{np.median(deviation):.3f} px."
    )
    figure = draw_precision(deviation, table["photons"].to_numpy())
    return [Section("How exactly", caption, name="precision", figure=figure)]


@styled
def draw_precision(deviation: np.ndarray, photons: np.ndarray) -> Figure:
    """Draw how often deviations are how large, and how they fall with photons."""
    figure, (left, right) = panels(["", ""], 2, (3.9, 2.8))
    top = np.quantile(deviation, 0.99)
    left.hist(deviation[deviation <= top], bins=40, range=(0, top))
    left.set(xlabel="deviation, px", ylabel="spots")
    left.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    right.plot(photons, deviation, ".", ms=3 if len(photons) > 100 else 6, alpha=0.4)
    right.set(xlabel="photons", ylabel="deviation, px")
    for which in "xy":
        log_scale(right, which)
    return figure


def show(
    axes: Axes, counts: np.ndarray, extent: tuple[float, float, float, float] | None = None
) -> None:
    """Show counts in grey, the brightest few pixels all white."""
    low, high = np.nanquantile(counts, [0.01, 0.998]) if np.isfinite(counts).any() else (0, 1)
    high = max(high, low + 1e-9)
    axes.imshow(counts, cmap="gray", vmin=low, vmax=high, interpolation="none", extent=extent)
    axes.set_axis_off()


def inlined(figure: Figure) -> str:
    """Return a picture as a page holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144)
    return base64.b64encode(file.getvalue()).decode()
