"""Spots as they were recorded, with what models made of them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.metrics import errors_px, pixels
from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import panels, styled
from pixel_spotter.reporting.figures.predictions import PREDICTION, Miss, draw_prediction
from pixel_spotter.reporting.groups import Group, Section, by_split

SHOWN = 5
"""So many spots of each model are shown."""

_SCALES = (100, 50, 20, 10, 5, 2, 1)
_VIEW_PX = 2.0
"""An error that is shown together with its spot."""

_CAPTION = (
    "The same spots for every model, from the faintest to the brightest of those that runs kept: "
    "ring at the truth, cross at the prediction, around it an ellipse of one predicted standard "
    "deviation, where there is one. Errors and ellipses are drawn {} times as large as they are, "
    "errors held at the frame; the numbers are as measured."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show some spots of each group that kept their images, a picture for each split."""
    for split, own in by_split(bins.having(groups, "photons_true")).items():
        rows = {group.variant: kept for group in own if (kept := examples(group))[0]}
        if rows:
            middle = np.median([columns["bound_x"].median() for columns, _ in rows.values()])
            scale = next((s for s in _SCALES if s * middle <= 0.8), 1)
            figure, caption = draw(rows, scale), _CAPTION.format(scale)
            name = f"examples_{split}"
            yield Section("Examples", caption, split, name=name, figure=figure)


def examples(group: Group) -> tuple[Columns, Tensor]:
    """Return some of the spots that a group's first run kept, the faintest first."""
    columns, images = runs.read_images(group.runs["folder"].iloc[0], runs.SHOWN)
    if not columns or "bound_x" not in columns:
        return {}, images
    order = columns["photons_true"].argsort(stable=True)
    chosen = order[torch.linspace(0, len(order) - 1, min(SHOWN, len(order))).long()]
    return {name: column[chosen] for name, column in columns.items()}, images[chosen]


@styled
def draw(rows: dict[str, tuple[Columns, Tensor]], scale: int) -> Figure:
    """Draw spots, a row for each name; two rows stand side by side."""
    figure, grid = panels([""] * SHOWN * len(rows), SHOWN * min(2, len(rows)), (1.2, 1.75))
    for axes in grid:
        axes.set_axis_off()
    for k, (name, (columns, images)) in enumerate(rows.items()):
        own = grid[SHOWN * k : SHOWN * (k + 1)]
        own[0].text(0, 1.3, name, transform=own[0].transAxes, weight="bold", in_layout=False)
        errors = errors_px(columns)
        for row, (axes, image) in enumerate(zip(own, images, strict=False)):
            one = {name: column[row] for name, column in columns.items()}
            title = f"\n\n{one['photons_true']:,.0f} photons\n"
            if errors[row].isfinite():
                draw_spot(axes, image, one, scale)
                axes.set_title(f"{title}{pixels(float(errors[row]))} px", fontsize=7.5)
            else:
                axes.imshow(image, cmap="gray", interpolation="none")
                axes.set_title(f"{title}nothing found", fontsize=7.5)
    return figure


def draw_spot(axes: Axes, image: Tensor, spot: Columns, scale: int) -> None:
    """Draw a spot's image (H, W) with truth, prediction and ellipse, so many times as large."""
    true, found = (as_xy({k: v[None] for k, v in spot.items()}, s)[0] for s in ("_true", ""))
    shown = true + scale * (found - true)
    draw_prediction(axes, Miss(image, true, shown, _VIEW_PX))
    if "sd_x" in spot:
        axes.add_patch(ellipse(shown, spot, scale))


def ellipse(centre: Tensor, spot: Columns, scale: int) -> Ellipse:
    """Return the ellipse of one standard deviation, so many times as large."""
    sd_x, sd_y = float(spot["sd_x"]), float(spot["sd_y"])
    shared = float(spot.get("corr_xy", torch.zeros(()))) * sd_x * sd_y
    variances, axes = np.linalg.eigh([[sd_x**2, shared], [shared, sd_y**2]])
    sides = 2 * scale * np.sqrt(variances.clip(min=0))
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    return Ellipse(
        tuple(centre.tolist()), *sides, angle=angle, fill=False, color=PREDICTION, lw=1.0
    )
