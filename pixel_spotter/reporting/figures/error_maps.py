"""The mean error at every test position: of groups side by side, and of a run."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from pixel_spotter.coordinates import Columns, Size
from pixel_spotter.metrics import error_by_position, pixels
from pixel_spotter.reporting.figures.drawing import PLAIN, panels, styled
from pixel_spotter.reporting.groups import Group, Section, by_split, few

ERROR_RANGE_PX = (0.01, 30.0)  # that the colours of every map span, so that maps compare
_UNTESTED = "#dfe1e3"
_CAPTION = (
    "Mean error at every test position, over seeds, in the same colours everywhere. Pale is exact, "
    "dark is lost; grey was never tested. A dark edge or quarter is a region that training left "
    "out."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a map for each group but of spots, which have pictures of their own."""
    shown = few([group for group in groups if not group.figure("test/bound_px")])
    for split, own in by_split(shown).items():
        titles = [f"{g.variant}, {pixels(g.error.mean)} px".replace(", ", "\n") for g in own]
        maps = {title: group.error_by_position() for title, group in zip(titles, own, strict=True)}
        name, figure = f"error_{split}", error_sheet(maps)
        yield Section("Error by position", _CAPTION, split, name=name, figure=figure)


@styled
def error_sheet(maps: Mapping[str, np.ndarray], columns: int = 5) -> Figure:
    """Draw error maps, (H, W) in px, side by side in the same colours."""
    figure, grid = panels([*maps], columns, (1.9, 2.15))
    for axes, error in zip(grid, maps.values(), strict=True):
        axes.set_axis_off()
        axes.title.set_fontsize(8)
        show_error(axes, error)
    bar = figure.colorbar(grid[0].images[0], ax=grid, label="error (px)", shrink=0.8, aspect=30)
    bar.formatter = PLAIN
    return figure


def show_error(axes: Axes, error: np.ndarray) -> AxesImage:
    """Draw errors (H, W) in px; grey where there is none, nan."""
    height, width = error.shape
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, color=_UNTESTED, zorder=-1))
    norm, shown = LogNorm(*ERROR_RANGE_PX), error.clip(*ERROR_RANGE_PX)
    return axes.imshow(shown, norm=norm, cmap="magma_r", interpolation="none")


@styled
def error_map(columns: Columns, size: Size, title: str) -> Figure:
    """Draw the error at every tested position; positions without one stay grey."""
    figure, (axes,) = panels([""], 1, (5.2, 4.6))
    picture = show_error(axes, error_by_position([columns], size))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set(xlabel="x (px)", ylabel="y (px)")
    figure.suptitle("\n".join(textwrap.wrap(title, 60)), fontsize=10)
    figure.colorbar(picture, ax=axes, label="error (px)", shrink=0.9).formatter = PLAIN
    return figure
