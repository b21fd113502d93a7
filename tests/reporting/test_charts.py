import io
import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from pixel_spotter.reporting import charts
from pixel_spotter.reporting.groups import Curve, Estimate, Miss
from pixel_spotter.reporting.plots import ERROR_RANGE_PX


def known(mean: float, half: float | None = None) -> Estimate:
    return Estimate(mean, half, 3)


def drawn(**changes: object) -> Axes:
    points = {"fast": (1.0, known(4.0)), "good": (10.0, known(0.5, 0.1)), "bad": (20.0, known(9.0))}
    arguments = {
        "points": points,
        "floor": {"argmax": 0.0},
        "colours": charts.colours_of(points),
        "names": {name: name for name in points},
    } | changes
    return charts.panel(lambda axes: charts.draw_frontier(axes, **arguments)).axes[0]  # type: ignore[arg-type]


def test_the_frontier_joins_what_nothing_beats_in_both() -> None:
    axes = drawn()
    front = axes.lines[-1].get_xydata()
    assert front[:2].tolist() == [[1, 4], [10, 0.5]]
    assert front[-1].tolist() == [pytest.approx(32), 0.5]
    filled = {tuple(c.get_offsets()[0]): len(c.get_facecolors()) for c in axes.collections}
    assert filled == {(1.0, 4.0): 1, (10.0, 0.5): 1, (20.0, 9.0): 0}
    written = {text.get_text() for text in axes.texts}
    assert written == {"fast", "good", "bad", "floor: argmax (0 px)"}


def test_a_trained_model_without_error_stays_on_the_logarithmic_axis() -> None:
    axes = drawn(points={"cnn": (2.0, known(0.3)), "heatmap": (3.0, known(0.0))},
                 colours={"cnn": "red", "heatmap": "blue"},
                 names={"cnn": "cnn", "heatmap": "heatmap"})  # fmt: skip
    heights = sorted(float(c.get_offsets()[0][1]) for c in axes.collections)
    assert heights == [pytest.approx(0.1), pytest.approx(0.3)]
    assert math.isfinite(axes.get_ylim()[0])


def test_too_many_names_are_written_on_the_front_only() -> None:
    axes = drawn(names={name: name + "." * 60 for name in ("fast", "good", "bad")})
    assert not any(text.get_text().startswith("bad") for text in axes.texts)
    assert any(text.get_text().startswith("good") for text in axes.texts)


def test_curves_with_their_intervals() -> None:
    curves = {"cnn": Curve([100, 1000, 10000], [known(4.0, 1.0), known(2.0, 3.0), known(0.0)])}
    axes = charts.panel(
        lambda axes: charts.draw_curves(axes, curves, {"cnn": "red"}, "samples", log_x=True)
    ).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[100, 4], [1000, 2]]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} >= {(100.0, 3.0), (100.0, 5.0), (1000.0, 5.0)}
    assert band[:, 1].min() > 0
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "1k", "10k"]


def test_a_drawing_for_a_page_takes_the_page_s_colours_and_needs_no_file() -> None:
    drawing = charts.svg(charts.panel(lambda axes: axes.plot([1, 2], [3, 4]).clear()))
    assert drawing.startswith("<svg")
    assert drawing.endswith("</svg>")
    assert "currentColor" in drawing
    assert "http" not in drawing
    assert "<style" not in drawing


def test_error_colours_are_those_of_the_errors() -> None:
    low, high = ERROR_RANGE_PX
    error = np.array([[math.nan, 0.0, low], [high, high * 9, math.sqrt(low * high)]])
    file = io.BytesIO()
    charts.error_colours(error).save(file, format="PNG")
    rgba = np.asarray(charts.error_colours(error).convert("RGBA"))
    assert rgba[..., 3].tolist() == [[0, 255, 255], [255, 255, 255]]
    assert rgba[0, 1].tolist() == rgba[0, 2].tolist()
    assert rgba[1, 0].tolist() == rgba[1, 1].tolist()
    assert rgba[0, 1, :3].sum() > rgba[1, 2, :3].sum() > rgba[1, 0, :3].sum()
    hexes = "#{:02x}{:02x}{:02x}".format(*rgba[1, 0, :3])
    assert charts.error_colour(high) == hexes


@pytest.mark.parametrize(
    ("true", "error", "shown"),
    [
        ([25.0, 25.0], 3.5, (-0.5, -0.5, 50, 40)),
        ([25.0, 20.0], 0.1, (18.5, 13.5, 12, 12)),
        ([0.0, 39.0], 0.1, (-0.5, 27.5, 12, 12)),
        ([49.0, 0.0], 2.9, (37.5, -0.5, 12, 12)),
    ],
)
def test_small_misses_are_enlarged(
    true: list[float], error: float, shown: tuple[float, ...]
) -> None:
    xy = torch.tensor(true)
    assert charts.view(Miss(xy, xy, error, 0), (40, 50)) == shown


def test_a_small_image_is_shown_whole() -> None:
    xy = torch.tensor([1.0, 1.0])
    assert charts.view(Miss(xy, xy, 0.1, 0), (12, 50)) == (-0.5, -0.5, 50, 12)
