"""The pictures of spots, of tables whose errors are known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from sweeps import cell, table

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns
from pixel_spotter.reporting.figures import (
    bins,
    coverage,
    drawing,
    efficiency,
    error_maps,
    examples,
    over_bound,
    phase,
    photons,
    speed,
)
from pixel_spotter.reporting.groups import Group, group_runs
from pixel_spotter.reporting.page import FIGURES

N = 2000
WHERE = torch.linspace(0, 1, N)


def spots(error: Any = 0.1, bound: Any = 0.05, **more: torch.Tensor) -> Columns:
    """Return spots whose x errs upwards and downwards by turns, and whose y does not err.

    Photons rise from 100 to 10,000 along the rows, x from 4 to 12, y falls from 12 to 4.
    """
    turns = torch.tensor([1.0, -1.0]).repeat(N // 2)
    true = {"x_true": 4 + 8 * WHERE, "y_true": 12 - 8 * WHERE}
    found = {"x": true["x_true"] + error * turns, "y": true["y_true"] + 0 * turns}
    bounds = {name: torch.ones(N) * bound for name in ("bound_x", "bound_y")}
    return {**found, **true, "photons_true": 100 * 100**WHERE, **bounds, **more}


def groups(*cells: dict[str, Any]) -> list[Group]:
    return group_runs(table(*cells))


def spot_group(columns: Columns, **more: Any) -> Group:
    (group,) = groups(cell("fit", "all", predictions=columns, **more))
    return group


def drawn(axes: Axes) -> dict[str, np.ndarray]:
    """Return the lines with intervals of a panel by their colours: (n, 2)."""
    return {to_hex(one[0].get_color()): one[0].get_xydata() for one in axes.containers}


def test_bins_hold_equally_many_and_enough() -> None:
    values = pd.Series(np.arange(1000.0) ** 2)
    edges = bins.edges_of(values)
    assert len(edges) == 11
    assert np.bincount(bins.numbered(values, edges)).tolist() == [100] * 10
    assert len(bins.edges_of(values[:149])) == 3
    assert len(bins.edges_of(pd.Series([7.0] * 500 + [np.nan] * 500))) == 11
    assert set(bins.numbered(pd.Series([7.0] * 500), np.array([7.0, 7.0]))) == {0}


def test_errors_in_bins_by_hand() -> None:
    """A quarter errs by 0.4 in x, the others by nothing: mean square 0.16 / 8, over both axes."""
    quarter = torch.arange(N) % 4 == 0
    found = bins.spots_of(spot_group(spots(error=0.4 * quarter)))
    found["at"] = found["photons_true"]
    (row,) = bins.errors_in(found, np.zeros(N, dtype=int)).to_dict("records")
    assert row["rmse"] == pytest.approx(0.02**0.5)
    assert row["bound"] == pytest.approx(0.05)
    assert row["ratio"] == pytest.approx(0.02**0.5 / 0.05)
    # squares are 0.08 or 0: their deviation is 0.08 sqrt(3) / 4
    half = 1.96 * 0.08 * 3**0.5 / 4 / N**0.5 / 2 / 0.02**0.5
    assert row["rmse_half"] == pytest.approx(half, rel=1e-3)
    assert row["ratio_half"] == pytest.approx(half / 0.05, rel=1e-3)
    assert row["at"] == pytest.approx(float(found["photons_true"].mean()))


def test_intervals_hold_what_they_say() -> None:
    """Also where errors follow from bounds that differ: their ratio is better known than each."""
    rng = torch.Generator().manual_seed(0)
    inside = []
    for _ in range(60):
        bound = 0.01 * 30 ** torch.rand(400, generator=rng).double()
        errors = bound * torch.randn(2, 400, generator=rng).double()
        one = {"square": errors.square().mean(dim=0), "floor": bound**2, "at": bound}
        row = bins.errors_in(pd.DataFrame(one), np.zeros(400, dtype=int)).iloc[0]
        inside.append(abs(row["ratio"] - 1) < row["ratio_half"])
        assert row["ratio_half"] < row["rmse_half"] / row["bound"]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.08)


def test_what_was_not_found_is_left_out_and_told() -> None:
    columns = spots()
    for name in ("x", "y"):
        columns[name][:500] = torch.nan
    lost, whole = spot_group(columns), spot_group(spots())
    assert bins.lost([whole, lost]).endswith("at most 25.00% (fit, all).")
    assert bins.lost([whole]) == ""
    (section,) = photons.sections([lost])
    assert "25.00%" in section.caption
    assert section.figure is not None
    (line,) = drawn(section.figure.axes[0]).values()
    assert len(line) == 8, "the first quarter has no error: two bins of ten, and half of a third"
    assert line[:, 1] == pytest.approx(0.1 / 2**0.5, rel=1e-4)


def test_errors_against_photons_and_the_bound() -> None:
    falling = 10 / (100 * 100**WHERE).sqrt()
    one = spots(error=2 * falling, bound=falling)
    (section,) = photons.sections(groups(cell("fit", "all", predictions=one)))
    assert section.figure is not None
    (axes,) = section.figure.axes
    (line,), dashed = drawn(axes).values(), axes.lines[-1]
    assert len(line) == 10
    np.testing.assert_allclose(line[:, 1], 2**0.5 * 10 / line[:, 0] ** 0.5, rtol=0.03)
    np.testing.assert_allclose(dashed.get_xydata()[:, 0], line[:, 0])
    np.testing.assert_allclose(dashed.get_ydata(), line[:, 1] / 2**0.5, rtol=1e-6)
    assert line[0, 0] == pytest.approx(100 * 10**0.1, rel=0.03)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("photons", "rmse per axis (px)")
    named = {t.get_text() for t in section.figure.legends[0].get_texts()}
    assert named == {"fit", "Cramér-Rao bound"}


def test_spots_of_one_brightness_and_clean_pixels_have_no_curve() -> None:
    same = spots() | {"photons_true": torch.full((N,), 1000.0)}
    assert [*photons.sections([spot_group(same)])] == []
    clean = groups(cell("cnn"), cell("argmax", parameters=0))
    for figure in (photons, efficiency, over_bound, coverage, phase, speed, examples):
        assert figure in FIGURES
        assert [*figure.sections(clean)] == []
    assert len([*error_maps.sections(clean)]) == 1
    assert [*error_maps.sections([spot_group(spots())])] == []


def test_a_map_has_background_upwards_and_photons_to_the_right() -> None:
    """Twice the error at low background, four times at many photons."""
    light = (torch.arange(N) % 50 + 0.5) / 50
    background = (torch.arange(N) // 50 + 0.5) / 40
    error = 0.05 * 2**0.5 * (1 + (background < 0.5)) * (1 + 3 * (light > 0.8))
    columns = spots(error, background_true=1 + background)
    columns["photons_true"] = 100 * 100**light
    values, half, backgrounds, light_edges = efficiency.efficiencies(spot_group(columns))
    assert values.shape == (4, 5)
    np.testing.assert_allclose(values[:, 0], [0.5, 0.5, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(values[3], [1, 1, 1, 1, 0.25], rtol=1e-5)
    assert half.max() < 0.03
    assert light_edges[[0, -1]] == pytest.approx([100, 10_000], rel=0.06)
    assert backgrounds == pytest.approx([1, 1.25, 1.5, 1.75, 2], abs=0.02)
    (section,) = efficiency.sections([spot_group(columns)])
    assert section.figure is not None
    axes = section.figure.axes[0]
    written = {t.get_position(): t.get_text() for t in axes.texts}
    assert (written[0, 0], written[0, 3], written[4, 3]) == ("0.50", "1.00", "0.25")
    assert axes.images[0].get_extent()[3] > axes.images[0].get_extent()[2], "upwards"
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 1)


def test_distances_from_what_was_recorded() -> None:
    frame = pd.DataFrame(
        {"x_true": [0.0, 19.0, 10, 10, 10], "y_true": [5.0, 5, 8.5, 5, 5]}
        | {"cut_x_true": [0.0, 0, 0, 8, -7], "cut_y_true": [0.0, 0, 0, 0, 0]}
    )
    assert over_bound.edge_distance(frame, (10, 20)).tolist() == [0.5, 0.5, 1.0, 2.5, 2.5]
    whole = frame.drop(columns=["cut_x_true", "cut_y_true"])
    assert over_bound.edge_distance(whole, (10, 20)).tolist() == [0.5, 0.5, 1.0, 4.5, 4.5]
    far = over_bound.edge_distance(whole, (40, 40))
    assert far.fillna(99).tolist() == [0.5, 5.5, 99, 5.5, 5.5]
    there = pd.DataFrame(
        {"x_true": [1.0, 1], "y_true": [2.0, 2], "neighbour_x_true": [4.0, 4]}
        | {"neighbour_y_true": [6.0, 6], "neighbour_photons_true": [50.0, 0]}
    )
    found = over_bound.neighbour_distance(there, (9, 9))
    assert found[0] == 5
    assert math.isnan(found[1])


def test_errors_against_distances_are_over_the_bound() -> None:
    """Within 1 px of a neighbour the error is five times the bound, elsewhere the bound."""
    columns = spots()
    away = 1 + 4 * WHERE
    error = 2**0.5 * 0.05 * (1 + 4 * (away < 2))
    more = {"neighbour_x_true": columns["x_true"], "neighbour_y_true": columns["y_true"] + away}
    near = spots(error, **more, neighbour_photons_true=torch.ones(N))
    *_, section = over_bound.sections([spot_group(near)])
    assert (section.title, section.name) == ("Error near a neighbour", "over_neighbour")
    assert section.figure is not None
    (line,) = drawn(section.figure.axes[0]).values()
    np.testing.assert_allclose(line[line[:, 0] < 2, 1], 5, rtol=1e-5)
    np.testing.assert_allclose(line[line[:, 0] > 2, 1], 1, rtol=1e-5)
    assert line[:, 0] == pytest.approx(1 + 4 * (np.arange(16) + 0.5) / 16, abs=0.01)


def test_an_edge_that_is_far_and_a_width_that_is_the_same_are_no_pictures() -> None:
    wide = spots(sigma_px_true=0.8 + WHERE)
    same = spots(sigma_px_true=0.95 + 0.1 * WHERE)
    far = {"image_size": [40, 40]}
    for columns in (wide, same):  # 10 px from every edge
        columns |= {"x_true": columns["x_true"] + 12, "y_true": columns["y_true"] + 12}
    assert [*over_bound.sections([spot_group(same, **far)])] == []
    (width,) = over_bound.sections([spot_group(wide, **far)])
    assert width.title == "Error against width"
    (edge,) = over_bound.sections([spot_group(spots())])
    assert edge.title == "Error near the edge"


def test_bias_by_phase_is_of_the_same_axis() -> None:
    columns = spots(error=0.0)
    rng = torch.Generator().manual_seed(3)
    columns |= {f"{a}_true": 4 + 8 * torch.rand(N, generator=rng) for a in ("x", "y")}
    for axis in ("x", "y"):
        true = columns[f"{axis}_true"]
        columns[axis] = true + 0.1 * (2 * torch.pi * true).sin() + (axis == "x")
    group = spot_group(columns)
    found = phase.bias(group)
    assert found["at"].tolist() == pytest.approx(np.arange(-0.475, 0.5, 0.05))
    expected = 0.1 * np.sin(2 * np.pi * found["at"])
    np.testing.assert_allclose(found["mean"], expected, atol=0.004)
    (section,) = phase.sections([group])
    assert section.figure is not None
    (axes,) = section.figure.axes
    assert axes.get_title() == "fit: 0.100 px"
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((-0.005, 0.005))


def test_coverage_is_of_the_deviations_that_were_predicted() -> None:
    """Of 0.1 in x, the brighter half covers it with 0.11, the fainter with 1.96 x 0.06."""
    bright = WHERE > 0.5
    deviation = torch.where(bright, 0.11, 0.06)
    group = spot_group(spots(sd_x=deviation, sd_y=torch.ones(N)))
    one, two = (coverage.covered(group, z) for z in (1.0, 1.96))
    np.testing.assert_allclose(one["mean"], [0.5] * 5 + [1.0] * 5, atol=0.01)
    assert two["mean"].tolist() == [1] * 10
    assert one["mean_half"].iloc[0] == pytest.approx(1.96 * 0.5 / 400**0.5, rel=0.01)
    assert one["at"].tolist() == pytest.approx((100 * 10 ** (0.2 * np.arange(10) + 0.1)), rel=0.03)
    (section,) = coverage.sections([group])
    assert section.figure is not None
    assert [axes.lines[0].get_ydata()[0] for axes in section.figure.axes] == [68.27, 95]
    (line,) = drawn(section.figure.axes[0]).values()
    assert line[-1, 1] == 100
    assert [*coverage.sections([spot_group(spots())])] == []


def test_speed_against_efficiency() -> None:
    fast = cell("fast", "all", predictions=spots(), test_images_per_second=5000.0)
    slow = cell("slow", "all", predictions=spots(0.05 * 2**0.5), test_images_per_second=70.0)
    old = cell("old", "all", predictions=spots())
    (section,) = speed.sections(groups(fast, slow, old))
    assert "with 1 threads on: cpu" in section.caption
    assert section.figure is not None
    (axes,) = section.figure.axes
    places = {tuple(one.get_offsets()[0].round(4)) for one in axes.collections}
    assert places == {(5000.0, round(0.5 * 2**0.5, 4)), (70.0, 1.0)}
    assert {text.get_text() for text in axes.texts} == {"fast", "slow"}


def test_examples_are_the_same_spots_the_faintest_first(tmp_path: Path) -> None:
    kept = {name: column[torch.arange(0, N, 250).flip(0)] for name, column in spots().items()}
    kept |= {"sd_x": torch.full((8,), 0.2), "sd_y": torch.full((8,), 0.1)}
    kept["corr_xy"] = torch.zeros(8)
    kept["x"][7] = kept["y"][7] = torch.nan
    images = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(0))
    runs.write_images(tmp_path, runs.SHOWN, kept, images)
    found, _ = examples.examples(spot_group(spots(), folder=tmp_path))
    assert found["photons_true"].tolist() == sorted(found["photons_true"].tolist())
    (section,) = examples.sections([spot_group(spots(), folder=tmp_path)])
    assert "drawn 10 times as large" in section.caption  # 10 x 0.05 is seen, 20 x 0.05 is far
    assert section.figure is not None
    first, second, *_, last = section.figure.axes
    assert first.get_title().endswith("100 photons\nnothing found")
    assert last.get_title().endswith("0.100 px")
    true = float(kept["x_true"][0])
    truth, cross = last.collections[-2:]
    assert truth.get_offsets()[0][0] == pytest.approx(true)
    assert abs(cross.get_offsets()[0][0] - true) == pytest.approx(1.0, abs=1e-3)
    (ellipse,) = last.patches
    assert ellipse.center == pytest.approx(tuple(cross.get_offsets()[0]))
    np.testing.assert_allclose(last.images[0].get_array(), images[0])
    assert second.patches
    assert [*examples.sections([spot_group(spots(), folder=tmp_path / "none")])] == []


def test_an_ellipse_is_one_deviation_and_turned_as_its_correlation() -> None:
    spot = {"sd_x": torch.tensor(0.3), "sd_y": torch.tensor(0.1), "corr_xy": torch.tensor(0.0)}
    flat = examples.ellipse(torch.zeros(2), spot, 10)
    inverse = np.linalg.inv([[9.0, 0], [0, 1.0]])
    corners = flat.get_verts()[::2]  # those in between only bend it
    np.testing.assert_allclose(((corners @ inverse) * corners).sum(1), 1, rtol=1e-3)
    tilted = {"sd_x": torch.tensor(0.2), "sd_y": torch.tensor(0.2), "corr_xy": torch.tensor(0.6)}
    corners = examples.ellipse(torch.zeros(2), tilted, 10).get_verts()[::2]
    inverse = np.linalg.inv([[4, 2.4], [2.4, 4]])
    np.testing.assert_allclose(((corners @ inverse) * corners).sum(1), 1, rtol=1e-3)


def test_every_variant_looks_the_same_in_every_picture() -> None:
    own = groups(*(cell(name, "all", predictions=spots()) for name in "abcdefghij"))
    styles = bins.styles_of(own)
    assert len({(one["color"], one["marker"]) for one in styles.values()}) == 10
    lines = drawing.colours_of([group.variant for group in own])
    assert {name: one["color"] for name, one in styles.items()} == lines


@pytest.mark.parametrize("count", [2, 130, 400])
@pytest.mark.parametrize("found", [0.4, 1.0])
def test_few_spots_or_few_that_were_found_make_no_report_fail(count: int, found: float) -> None:
    more = {"background_true": 1 + WHERE, "sigma_px_true": 1 + WHERE, "sd_x": WHERE, "sd_y": WHERE}
    columns = {name: column[:: N // count][:count] for name, column in spots(**more).items()}
    for name in ("x", "y"):
        columns[name][max(1, int(found * count)) :] = torch.nan
    (group,) = groups(cell("fit", "all", predictions=columns, test_images_per_second=1.0))
    for figure in FIGURES:
        for section in figure.sections([group]):
            assert section.figure is not None
            section.figure.draw_without_rendering()
