import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from sweeps import cell, columns, images_of, table

from pixel_spotter import runs
from pixel_spotter.reporting import overview
from pixel_spotter.reporting.figures import (
    curves,
    drawing,
    error_maps,
    frontier,
    predictions,
)
from pixel_spotter.reporting.groups import Group, group_runs


def groups(*cells: dict[str, Any]) -> list[Group]:
    return group_runs(table(*cells))


def timed(model: str, error: float, seconds: float, **others: Any) -> dict[str, Any]:
    return cell(model, error=error, train_seconds=seconds, **others)


# Accuracy and cost


def frontier_of(*cells: dict[str, Any]) -> Axes:
    figure = frontier.draw(groups(*cells))
    return figure.axes[0]


def names_in(axes: Axes) -> dict[str, Any]:
    return {text.get_text(): text for text in axes.texts if hasattr(text, "xy")}


def test_pareto_front() -> None:
    points = [(1, 9.0), (2, 5.0), (3, 6.0), (4, 1.0), (4, 2.0), (9, 1.0)]
    assert frontier.pareto_front(points) == [0, 1, 3]


def test_the_frontier_joins_what_nothing_beats_in_both() -> None:
    axes = frontier_of(
        *(timed("good", error, 10, seed=k) for k, error in enumerate((0.4, 0.6))),
        timed("fast", 4.0, 1),
        timed("bad", 9.0, 20),
        timed("argmax", 0.0, 1, parameters=0),
    )
    stairs = axes.lines[-1].get_xydata()
    np.testing.assert_allclose(stairs, [[1, 4], [10, 4], [10, 0.5], [32, 0.5]])
    filled = {
        tuple(one.get_offsets()[0]): bool(len(one.get_facecolors())) for one in axes.collections
    }
    assert filled == {(10.0, 0.5): True, (1.0, 4.0): True, (20.0, 9.0): False}
    half = 12.7062 * 0.1
    np.testing.assert_allclose(
        axes.lines[0].get_xydata(), [[10, 0.5 / 3], [10, 0.5 + half]], rtol=1e-4
    )
    assert names_in(axes).keys() == {"fast", "good", "bad"}
    assert "floor: argmax (0 px)" in {text.get_text() for text in axes.texts}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("training time (s)", "mean error (px)")


CROWD = {"cnn": (90, 15.2), "ensemble": (112, 15.6), "simcc": (111, 17.4), "coordconv": (105, 4.0),
         "resnet18_scratch": (250, 12.1), "svm": (2.3, 18.0), "heatmap": (9.2, 0.002)}  # fmt: skip


def boxes_of(figure: Figure) -> dict[str, Any]:
    """Return where names are written, without their lines, and that they spoil nothing."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    centres = [axes.transData.transform(one.get_offsets()[0]) for one in axes.collections]
    ends = [pair for line in axes.lines for pair in pairwise(np.asarray(line.get_xydata()))]
    others = [Bbox(axes.transData.transform(pair)) for pair in ends]  # all upright or level
    others += [text.get_window_extent() for text in axes.texts if not hasattr(text, "xy")]
    boxes = {name: Text.get_window_extent(text) for name, text in names_in(axes).items()}
    for name, box in boxes.items():
        gaps = [
            math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
            for x, y in centres
        ]
        assert min(gaps) > 6, f"{name} covers a marker"
        assert not any(map(box.overlaps, others)), f"{name} covers a line, or the floor"
        for other, covered in boxes.items():
            assert other == name or not box.overlaps(covered), f"{name} covers {other}"
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1, name
        assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1, name
    return boxes


def test_a_name_stands_by_its_own_marker_with_a_line_to_it() -> None:
    cells = [timed(model, error, seconds) for model, (seconds, error) in CROWD.items()]
    figure = frontier.draw(groups(*cells))
    (axes,) = figure.axes
    colours = {
        tuple(one.get_offsets()[0]): to_hex(one.get_edgecolors()[0]) for one in axes.collections
    }
    assert len(set(colours.values())) == len(CROWD)
    assert boxes_of(figure).keys() == CROWD.keys()
    for name, text in names_in(axes).items():
        assert text.xy == pytest.approx(CROWD[name])
        assert text.arrow_patch is not None
    legend = figure.legends[0]
    named = {text.get_text(): line.get_color() for text, line in
             zip(legend.get_texts(), legend.get_lines(), strict=True)}  # fmt: skip
    assert named == {model: colours[place] for model, place in CROWD.items()}


@pytest.mark.parametrize("seed", range(4))
def test_names_cover_nothing_however_the_models_lie(seed: int) -> None:
    random = np.random.default_rng(seed)
    cells = [
        timed(f"model_{k}", 10 ** random.normal(0, 0.2), 10 ** random.normal(0, 0.2))
        for k in range(18)
    ]
    assert len(boxes_of(frontier.draw(groups(*cells)))) >= 6


def test_names_leave_the_floor_in_its_corner_legible() -> None:
    """There is room to the right, to the left and above for others only."""
    places = [(2, 1.0), (2.4, 1.0), (1.7, 1.0), (2, 1.15), (60, 9.0)]
    cells = [timed(f"model_{k}", error, seconds) for k, (seconds, error) in enumerate(places)]
    closed = [
        timed(name, 0.0, 1, parameters=0) for name in ("argmax", "centre_of_mass", "centroid")
    ]
    figure = frontier.draw(groups(*cells, *closed))
    assert boxes_of(figure).keys() >= {"model_0", "model_4"}
    assert any(
        text.get_text().startswith("floor: argmax (0 px), ") for text in figure.axes[0].texts
    )


def test_markers_without_a_name_are_not_covered_either() -> None:
    cells = [
        timed("cnn", error, seconds, settings={"model.a_really_rather_long_setting": seconds})
        for seconds, error in ((1, 2.0), (1.02, 2.2), (1.04, 2.4), (1.06, 2.6), (1.08, 2.8), (9, 1))
    ]
    assert boxes_of(frontier.draw(groups(*cells))).keys() == {
        "a_really_rather_long_setting=1", "a_really_rather_long_setting=9"
    }  # fmt: skip


def test_a_trained_model_without_error_stays_on_the_logarithmic_axis() -> None:
    axes = frontier_of(timed("cnn", 0.3, 2), timed("heatmap", 0.0, 3))
    heights = sorted(float(one.get_offsets()[0][1]) for one in axes.collections)
    assert heights == [pytest.approx(0.1), pytest.approx(0.3)]
    corners = {
        len(one.get_paths()[0].vertices): one.get_offsets()[0][0] for one in axes.collections
    }
    assert corners[4] == 3, "a triangle, closed, stands for an error of 0"
    assert math.isfinite(axes.get_ylim()[0])


def test_too_many_names_are_written_on_the_front_only_and_colours_named_below() -> None:
    cells = [
        timed(model, error, seconds, settings={"model.setting": f"{model}{k}" + "x" * 25})
        for model, error, seconds in (("fast", 4.0, 1), ("good", 0.5, 10), ("bad", 9.0, 20))
        for k in (0, 1)
    ]
    figure = frontier.draw(groups(*cells))
    names = names_in(figure.axes[0])
    assert not any("bad" in name for name in names)
    assert any("good" in name for name in names)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"fast", "good", "bad"}


def test_equal_labels_of_two_models_are_two_points() -> None:
    cells = [
        timed(model, error * lr, 1, settings={"optim.lr": lr})
        for model, error in (("a", 1.0), ("b", 2.0))
        for lr in (1, 2)
    ]
    assert len(frontier_of(*cells).collections) == 4


def test_closed_forms_alone_have_no_frontier() -> None:
    assert [*frontier.sections(groups(timed("argmax", 0.0, 1, parameters=0)))] == []


# Curves


def over_samples(split: str, **errors: tuple[float, ...]) -> list[dict[str, Any]]:
    return [
        cell(model, split, error=error, settings={"data.train_samples": samples})
        for model, values in errors.items()
        for samples, error in zip((100, 1000, 10000), values, strict=True)
    ]


def test_curves_against_a_setting_with_their_intervals() -> None:
    cells = [
        cell("cnn", seed=k, error=error, settings={"data.train_samples": samples})
        for samples, errors in ((100, (3.9, 4.1)), (1000, (1.0, 3.0)), (10000, (0.0, 0.0)))
        for k, error in enumerate(errors)
    ]
    (section,) = curves.sections(groups(*cells))
    assert (section.title, section.name) == ("Error against training samples", "over_samples")
    assert section.figure is not None
    (axes,) = section.figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[100, 4], [1000, 2]])
    band = axes.collections[0].get_paths()[0].vertices
    corners = [(100, 4 - 1.27062), (100, 4 + 1.27062), (1000, 2 + 12.7062), (1000, 2 / 100)]
    for corner in corners:  # an interval down to below 0 ends where it can be drawn
        assert min(np.abs(band - corner).sum(axis=1)) < 1e-3
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "1k", "10k"]
    assert axes.lines[0].get_marker() == "o", "each value is marked"
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlabel() == "training samples"


def test_the_error_axis_is_the_same_in_every_panel() -> None:
    cells = over_samples("uniform", cnn=(4.0, 2.0, 1.0)) + over_samples("iid", cnn=(0.4, 0.2, 0.01))
    (section,) = curves.sections(groups(*cells))
    assert section.figure is not None
    panels = section.figure.axes
    assert [axes.get_title() for axes in panels] == ["uniform", "iid"]
    for axes in panels:
        assert axes.get_ylim() == pytest.approx((0.01 / 1.5, 6.0))
    assert panels[0].get_ylabel() == "mean error (px)"


def test_what_has_no_error_is_named_and_not_drawn() -> None:
    (section,) = curves.sections(
        groups(*over_samples("uniform", cnn=(4.0, 2.0, 1.0), exact=(0.0, 0.0, 0.0)))
    )
    assert section.caption.endswith("Not drawn, as their error is 0: exact.")
    assert section.figure is not None
    assert len(section.figure.axes[0].lines) == 1
    exact = groups(*over_samples("uniform", exact=(0.0, 0.0, 0.0)))
    assert [*curves.sections(exact)] == []


def test_lines_of_settings_are_coloured_by_their_values() -> None:
    cells = [
        cell("cnn", error=epochs / lr, settings={"optim.lr": lr, "trainer.max_epochs": epochs})
        for lr in (0.5, 0.25, 10)
        for epochs in (32, 16)
    ]
    (section,) = curves.sections(groups(*cells))
    assert section.figure is not None
    names = [text.get_text() for text in section.figure.legends[0].get_texts()]
    assert names == ["cnn, lr=0.25", "cnn, lr=0.5", "cnn, lr=10"]
    colours = [line.get_color() for line in section.figure.legends[0].get_lines()]
    worst_line = max(section.figure.axes[0].lines, key=lambda line: line.get_ydata()[-1])
    assert worst_line.get_color() == colours[0]  # that of lr=0.25


def learnt(folder: Path, model: str, seed: int, values: list[float], **others: Any) -> Any:
    own = folder / f"{model}{seed}{others}"
    runs.write_epochs(own, [{"epoch": k, "val/mean_error_px": v} for k, v in enumerate(values)])
    return cell(model, seed=seed, folder=own, **others)


def test_learning_curves_end_where_the_first_seed_does(tmp_path: Path) -> None:
    cells = [
        learnt(tmp_path, "cnn", 0, [4.0, 2.0]),
        learnt(tmp_path, "cnn", 1, [6.0, 4.0, 1.0]),
        learnt(tmp_path, "svm", 0, [0.5]),
        cell("nothing", folder=tmp_path / "none"),
    ]
    (section,) = curves.sections(groups(*cells))
    assert section.figure is not None
    (axes,) = section.figure.axes
    assert axes.get_title() == "cnn"
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 5], [1, 3]])
    band = axes.collections[0].get_paths()[0].vertices
    for epoch, mean in ((0, 5), (1, 3)):  # t(0.975, 1) = 12.7062, times 1; held above 0
        ends = {round(y, 3) for x, y in band.tolist() if x == epoch}
        assert ends == {mean / 100, round(mean + 12.7062, 3)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "mean error (px)")


def test_a_panel_of_learning_curves_is_a_model_and_a_line_a_split(tmp_path: Path) -> None:
    cells = [
        learnt(tmp_path, model, 0, [start, start / 2], split=split)
        for model, start in (("cnn", 4.0), ("svm", 40.0))
        for split in ("uniform", "iid")
    ]
    (section,) = curves.sections(groups(*cells))
    assert section.figure is not None
    axes = section.figure.axes
    assert [one.get_title() for one in axes] == ["cnn", "svm"]
    for one in axes:
        assert one.get_ylim() == pytest.approx((2 / 1.5, 60.0))
    names = [text.get_text() for text in section.figure.legends[0].get_texts()]
    assert names == ["uniform", "iid"]


def test_epochs_without_errors_make_no_curves(tmp_path: Path) -> None:
    assert [*curves.sections(groups(learnt(tmp_path, "cnn", 0, [0.0, 0.0])))] == []


# Errors by position


def shown_in(axes: Axes) -> np.ndarray:
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def test_error_map_has_the_errors_where_they_were_made() -> None:
    tested = columns([[3, 4], [2, 2], [4, 1]], [[0, 0], [2, 1], [2, 1]])
    figure = error_maps.error_map(tested, (2, 3), "title")
    axes = figure.axes[0]
    np.testing.assert_allclose(shown_in(axes), [[5, np.nan, np.nan], [np.nan, np.nan, 1.5]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (px)", "y (px)")
    assert axes.get_ylim() == (1.5, -0.5)  # y grows downwards
    (untested,) = axes.patches
    assert to_hex(untested.get_facecolor()) == "#dfe1e3"
    assert untested.get_bbox().bounds == (-0.5, -0.5, 3, 2)
    assert figure.axes[1].get_ylabel() == "error (px)"


def test_each_map_is_its_own_group_s() -> None:
    tested = columns([[3, 4], [2, 2]], [[0, 0], [2, 1]])
    found = groups(
        cell("cnn", "iid", predictions=tested, image_size=[2, 3]),
        cell("svm", "iid", error=9.0, predictions=columns([[9, 0]], [[0, 0]])),
        cell("cnn", "uniform", predictions=tested),
    )
    sections = [*error_maps.sections(found)]
    assert [(one.part, one.name) for one in sections] == [
        ("uniform", "error_uniform"),
        ("iid", "error_iid"),
    ]
    figure = sections[1].figure
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cnn\n1.000 px", "svm\n9.000 px"]
    np.testing.assert_allclose(
        shown_in(figure.axes[0]), [[5, np.nan, np.nan], [np.nan, np.nan, 1.0]]
    )
    assert figure.axes[1].images[0].get_array().shape == (16, 16)
    assert {axes.images[0].norm.vmin for axes in figure.axes[:2]} == {0.01}
    assert {axes.images[0].norm.vmax for axes in figure.axes[:2]} == {30}


# The worst predictions


def kept(folder: Path, seed: int, pred: list[list[float]], true: list[list[float]]) -> Any:
    own = folder / str(seed)
    tested = columns(pred, true)
    runs.write_images(own, runs.WORST, tested, images_of(tested))
    return cell("cnn", seed=seed, folder=own)


def test_the_worst_are_over_all_seeds_and_each_position_once(tmp_path: Path) -> None:
    one = kept(tmp_path, 0, [[1, 0], [4, 1]], [[0, 0], [2, 1]])
    two = kept(tmp_path, 7, [[5, 0.2], [2.5, 1]], [[0, 0.2], [2, 1]])
    (group,) = groups(one, two)
    found = predictions.worst_of(group)
    assert [miss.error for miss in found] == [5.0, 2.0]
    assert found[0].xy_true.tolist() == [0, pytest.approx(0.2)]
    assert found[1].xy_pred.tolist() == [4, 1]
    assert found[1].image.argmax().item() == 1 * 16 + 2


def test_no_more_than_four_are_shown(tmp_path: Path) -> None:
    true = [[float(k), 3.0] for k in range(6)]
    (group,) = groups(kept(tmp_path, 0, [[x, 3 + x] for x, _ in true], true))
    assert [miss.error for miss in predictions.worst_of(group)] == [5, 4, 3, 2]
    (section,) = predictions.sections([group])
    assert section.figure is not None
    titles = [axes.get_title().strip() for axes in section.figure.axes]
    assert titles == ["5.000 px", "4.000 px", "3.000 px", "2.000 px"]
    assert section.figure.axes[0].texts[0].get_text() == "cnn"


def test_what_was_not_found_is_no_miss(tmp_path: Path) -> None:
    lost = [[math.nan, math.nan], [1.0, 3.0]]
    (group,) = groups(kept(tmp_path, 0, lost, [[5.0, 5.0], [0.0, 3.0]]))
    assert [miss.error for miss in predictions.worst_of(group)] == [1.0]


def test_each_group_has_its_own_misses(tmp_path: Path) -> None:
    first = kept(tmp_path / "a", 0, [[1, 0]], [[0, 0]])
    second = kept(tmp_path / "b", 0, [[5, 1]], [[2, 1]]) | {"model": "svm"}
    exact = cell("argmax", error=0.0, folder=tmp_path / "a/0")
    (section,) = predictions.sections(groups(first, second, exact))
    assert section.figure is not None
    named = [axes for axes in section.figure.axes if axes.texts]
    assert [axes.texts[0].get_text() for axes in named] == ["cnn", "svm"]
    assert [axes.get_title().strip() for axes in named] == ["1.000 px", "3.000 px"]


def test_runs_that_kept_no_images_show_none() -> None:
    assert [*predictions.sections(groups(cell("cnn")))] == []


@pytest.mark.parametrize(
    ("true", "error", "shown"),
    [
        ([25.0, 25.0], 9.0, (6, 1, 39, 39)),
        ([25.0, 25.0], 9.2, (0, 0, 50, 40)),
        ([25.0, 20.0], 0.1, (22, 17, 7, 7)),
        ([24.6, 20.4], 0.1, (22, 17, 7, 7)),
        ([0.0, 39.0], 0.1, (0, 33, 7, 7)),
        ([49.4, -0.4], 2.0, (39, 0, 11, 11)),
        ([49.5, 39.5], 0.1, (43, 33, 7, 7)),
    ],
)
def test_small_misses_are_enlarged(true: list[float], error: float, shown: tuple[int, ...]) -> None:
    assert predictions.view(torch.tensor(true), error, (40, 50)) == shown


def test_a_small_image_is_shown_whole() -> None:
    assert predictions.view(torch.tensor([1.0, 1.0]), 0.1, (7, 50)) == (0, 0, 50, 7)


# One run


def pictures(pred: list[list[float]], true: list[list[float]], **others: Any) -> dict[str, Figure]:
    tested = columns(pred, true)
    shown = torch.arange(len(true)).flip(0)
    images = images_of({name: values[shown] for name, values in tested.items()}, (30, 40))
    arguments = {"images": images, "shown": shown, "title": "cnn"} | others
    return predictions.run_pictures(tested, (30, 40), **arguments)


def test_truth_and_prediction_are_marked_on_their_own_image() -> None:
    found = pictures([[10.25, 20.0], [39.0, 5.0]], [[10, 20], [3, 5]])
    assert found.keys() == {"predictions", "error_map"}
    far, near = found["predictions"].axes
    assert [axes.get_title() for axes in (far, near)] == [
        "36.00 px at (3, 5)",
        "0.250 px at (10, 20)",
    ]
    truth, cross = near.collections[-2:]
    assert truth.get_offsets().tolist() == [[10, 20]]
    assert [to_hex(one.get_edgecolors()[0]) for one in (truth, cross)] == ["#30c060", "#ff5030"]
    assert len(truth.get_paths()[0].vertices) > len(cross.get_paths()[0].vertices), "ring and cross"
    assert cross.get_offsets().tolist() == [[10.25, 20]]
    assert np.argwhere(near.images[0].get_array()).tolist() == [[20, 10]]
    assert np.argwhere(far.images[0].get_array()).tolist() == [[5, 3]]
    assert (near.get_xlim(), near.get_ylim()) == ((6.5, 13.5), (23.5, 16.5))
    assert (far.get_xlim(), far.get_ylim()) == ((-0.5, 39.5), (29.5, -0.5))
    grid = [collection.get_segments() for collection in near.collections[:2]]
    assert [segments[0][0].tolist() for segments in grid] == [[7.5, 16.5], [6.5, 17.5]]


def test_a_prediction_outside_the_picture_is_held_at_its_frame() -> None:
    (axes,) = pictures([[-7.0, 5.0]], [[3, 5]])["predictions"].axes
    assert axes.collections[-1].get_offsets().tolist() == [[-0.5, 5.0]]


def test_a_spot_that_was_not_found_is_shown_whole_without_a_cross() -> None:
    lost = [[math.nan, math.nan], [1.0, 1.0]]
    found, none = pictures(lost, [[3, 5], [1, 1]])["predictions"].axes
    assert none.get_title() == "nothing found at (3, 5)"
    assert (none.get_xlim(), none.get_ylim()) == ((-0.5, 39.5), (29.5, -0.5))
    drawn = [one.get_offsets() for one in none.collections]
    assert [np.isfinite(np.ma.filled(one, np.nan)).all() for one in drawn] == [True, False]
    assert found.get_title() == "0 px at (1, 1)"


def test_titles_are_not_cut_off() -> None:
    title = "a model with a very long name, quadrant split, the best checkpoint of a grid's cell"
    for name, figure in pictures([[1, 1]] * 12, [[2, 3]] * 12, title=title).items():
        figure.draw_without_rendering()
        assert figure._suptitle is not None, name  # type: ignore[attr-defined]
        box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
        assert box.x0 > 0, name
        assert box.x1 < figure.bbox.x1, name
        assert box.y1 < figure.bbox.y1, name


# Writing


def test_a_figure_is_saved_as_finely_as_asked(tmp_path: Path) -> None:
    figure = pictures([[1, 1]], [[2, 3]])["error_map"]
    for dpi in (96, 192):
        drawing.save(figure, tmp_path / "new/map.png", dpi)
        with Image.open(tmp_path / "new/map.png") as image:
            assert image.size == (int(5.2 * dpi), int(4.6 * dpi))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["map.png"]


def test_an_overview_shows_frames_spots_and_their_ellipses_where_they_are() -> None:
    image = np.zeros((40, 60))
    image[30, 50] = 9.0
    rows = {
        "file": ["a.tif"] * 3,
        "frame": [0, 0, 2],
        "x": [50.0, 2.0, 50.0],
        "y": [30.0, 3.0, 30.0],
    }
    rows |= {"sd_x": [0.3, 0.1, 0.2], "sd_y": [0.1, 0.1, 0.2], "corr_xy": [0.0, 0.0, 0.5]}
    rows |= {
        "photons": [900.0, 100.0, 400.0],
        "score": [40.0, 6.0, 20.0],
        "flag": ["", "crowded", ""],
    }
    table = pd.DataFrame(rows)
    read: list[tuple[str, int]] = []

    def frame(file: str, number: int) -> np.ndarray:
        read.append((file, number))
        return image

    (frames,) = overview.frames(table, frame)
    assert read == [("a.tif", 0), ("a.tif", 2)]
    assert frames.figure is not None
    first = frames.figure.axes[0]
    assert first.get_title() == "a.tif, frame 0"
    circles = [(*c.get_offsets()[0], c.get_edgecolor()[0].tolist()) for c in first.collections]
    assert [c[:2] for c in circles] == [(50.0, 30.0), (2.0, 3.0)]
    assert circles[0][2] != circles[1][2]
    wide, high = frames.figure.get_size_inches()
    assert (wide / 2 * 40 / 60) == pytest.approx(high, abs=0.3), "panels as wide as frames"
    (across,) = {float(c.get_sizes()[0]) ** 0.5 for c in first.collections}
    assert across / (72 * wide / 2) == pytest.approx(7 / 60), "7 px"
    (alone,) = overview.frames(table[:2], frame)
    assert alone.figure is not None
    assert alone.figure.get_figwidth() > wide / 2
    (spots,) = overview.spots(table, frame)
    assert spots.figure is not None
    worst, middle, best = spots.figure.axes[:3]
    assert [a.get_title() for a in (worst, middle, best)] == [
        *("6.0 deviations", "20.0 deviations", "40.0 deviations"),
    ]
    shown = best.images[0]
    left, right, bottom, top = shown.get_extent()
    assert (left, right, bottom, top) == (44.5, 55.5, 35.5, 24.5)
    assert np.argwhere(shown.get_array() == 9.0).tolist() == [[5, 5]]
    assert worst.images[0].get_extent() == [-0.5, 7.5, 8.5, -0.5]
    drawn = best.patches[0]
    assert drawn.get_center() == (50.0, 30.0)
    widths = sorted((drawn.width, drawn.height))
    np.testing.assert_allclose(widths, [2 * 2.4477 * 0.1, 2 * 2.4477 * 0.3], rtol=1e-3)
    (number,) = overview.counts(table)
    assert number.figure is not None
    assert number.figure.axes[0].lines[0].get_ydata().tolist() == [2, 1]
    (exactly,) = overview.precision(table)
    assert "half of them are below 0.200 px" in exactly.caption
    assert exactly.figure is not None
    assert exactly.figure.axes[0].get_xlim()[0] < 0.01, "deviations from 0 on"
    assert overview.headline(table) == "3 spots in 2 frames of 1 file, 1 of them flagged"
    assert overview.frames(table[:0], frame) == []


def test_what_was_told_and_estimated_is_named_in_whole() -> None:
    told = {"files": ["a", "b"], "camera": {"gain": None, "offset": 2.0}, "estimated": {"g": 0.5}}
    assert [*overview.flat(told)] == [
        *(("files", "a and 1 other"), ("camera.offset", "2"), ("estimated g", "0.5")),
    ]
    of_kinds = {"estimated": {"tif": {"files": ["a", "b", "c"], "camera.gain": 0.5}}}
    assert [*overview.flat(of_kinds)] == [
        *(("estimated tif: files", "a and 2 others"), ("estimated tif: camera.gain", "0.5")),
    ]
