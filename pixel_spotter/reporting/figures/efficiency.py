"""How close to the bound spots are found, by their photons and background."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pixel_spotter.reporting.figures import bins
from pixel_spotter.reporting.figures.drawing import panels, styled
from pixel_spotter.reporting.groups import Group, Section, by_split

PHOTONS, BACKGROUNDS = 5, 4
"""So many bins there are along each axis."""

_CAPTION = (
    "Bound over rmse by photons and background, a map for each model, in the same colours "
    "everywhere: 1 is all that the light allows. Bins hold equally many spots each; a map's "
    "numbers are uncertain by about {:.0%} (95% interval, the median over bins of the best map)."
)


def sections(groups: Sequence[Group]) -> Iterator[Section]:
    """Show a map for each group whose spots differ in both, a picture for each split."""
    for split, own in by_split(bins.having(groups, "photons_true", "background_true")).items():
        maps = {group.variant: efficiencies(group) for group in own}
        maps = {k: one for k, one in maps.items() if np.isfinite(one[0][1:, 1:]).any()}
        if maps:
            best = max(maps.values(), key=lambda one: float(np.nanmedian(one[0])))
            caption, name = _CAPTION.format(np.nanmedian(best[1] / best[0])), f"efficiency_{split}"
            yield Section("Efficiency", caption, split, name=name, figure=draw(maps))


Map = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def efficiencies(group: Group) -> Map:
    """Return bound / rmse and half its 95% interval, (backgrounds, photons), and both's edges."""
    spots = bins.spots_of(group)
    spots["at"] = spots["photons_true"]
    count = int((len(spots) // bins.LEAST) ** 0.5)
    backgrounds, photons = (
        np.unique(bins.edges_of(spots[name], min(most, count)))
        for name, most in (("background_true", BACKGROUNDS), ("photons_true", PHOTONS))
    )
    numbers = (
        bins.numbered(spots["background_true"], backgrounds),
        bins.numbered(spots["photons_true"], photons),
    )
    found = bins.errors_in(spots, *numbers).reindex(columns=["ratio", "ratio_half"])
    places = pd.MultiIndex.from_product([range(len(backgrounds) - 1), range(len(photons) - 1)])
    table = found.reindex(places).to_numpy().reshape(len(backgrounds) - 1, len(photons) - 1, 2)
    return 1 / table[..., 0], table[..., 1] / table[..., 0] ** 2, backgrounds, photons


@styled
def draw(maps: dict[str, Map]) -> Figure:
    """Draw maps side by side, with their numbers."""
    figure, grid = panels([*maps], 3, (3.5, 2.6))
    for axes, (values, _, backgrounds, photons) in zip(grid, maps.values(), strict=True):
        picture = axes.imshow(values, vmin=0, vmax=1, cmap="cividis", origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = "black" if value > 0.55 else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink)
        for axis, edges in ((axes.xaxis, photons), (axes.yaxis, backgrounds)):
            axis.set_ticks(np.arange(len(edges)) - 0.5, [f"{float(f'{e:.2g}'):g}" for e in edges])
        axes.set(xlabel="photons", ylabel="background (photons/px)")
    figure.colorbar(picture, ax=grid, label="bound / rmse", shrink=0.7, aspect=30)
    return figure
