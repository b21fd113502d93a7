"""Reports on grids of very many cells: what they read, keep and show."""

import csv
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import cell, columns, images_of, table, write_cell

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns
from pixel_spotter.report import write_report
from pixel_spotter.reporting.figures import curves, error_maps, frontier, photons, predictions
from pixel_spotter.reporting.groups import BEST, MANY, Group, by_split, few, group_runs
from pixel_spotter.reporting.page import Report
from pixel_spotter.reporting.table import read_sweep


def settings(count: int, split: str = "uniform") -> list[Group]:
    """Return so many groups, the best first."""
    runs_ = [cell("cnn", split, error=1.0 + k, settings={"optim.lr": k}) for k in range(count)]
    return group_runs(table(*runs_))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which of their files is read of which cells."""
    found: list[tuple[str, str]] = []

    def watch(name: str) -> None:
        really = getattr(runs, name)

        def watched(folder: Path, *others: Any) -> Any:
            found.append((name, folder.name))
            return really(folder, *others)

        monkeypatch.setattr(runs, name, watched)

    for name in ("read_predictions", "read_metrics", "read_epochs", "read_images"):
        watch(name)
    return found


def test_pictures_show_all_groups_or_the_best_of_many() -> None:
    groups = [*settings(MANY), *settings(MANY + 1, "iid")]
    assert {split: len(own) for split, own in by_split(few(groups)).items()} == {
        "uniform": MANY,
        "iid": BEST,
    }
    assert [g.error.mean for g in few(settings(MANY + 1))] == [1.0 + k for k in range(BEST)]


def test_tables_and_pictures_have_an_end_and_the_csv_has_all(
    tmp_path: Path, read: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixel_spotter.report.save", lambda figure, path, dpi: path.touch())
    monkeypatch.setattr("pixel_spotter.reporting.page.base64.b64encode", lambda data: b"")
    count, drawn = MANY + 5, [frontier, photons, curves, error_maps, predictions]
    monkeypatch.setattr("pixel_spotter.reporting.page.FIGURES", drawn)
    for k in range(count):
        epochs = (2.0, 1.0 + k / 100)
        write_cell(tmp_path, "cnn", error=0.5 + k / 100, settings={"optim.lr": k}, epochs=epochs)
    (tmp_path / "report").mkdir()
    report = write_report(tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert f"The first {MANY} of {count}, all are in report.csv" in text
        assert f"lr={MANY - 1}" in text
        assert f"lr={MANY}" not in text.partition("How this was made")[0]
    assert len([*csv.reader((tmp_path / "report.csv").read_text().splitlines())]) == 1 + count
    assert len([*csv.reader((tmp_path / "comparison.csv").read_text().splitlines())]) == 1 + count
    figures = {one.name: one.figure for one in Report(report.sweep).sections() if one.figure}
    assert len(figures["error_uniform"].axes) == 15 + 1, "three rows of maps, and the colours"
    assert len(figures["training"].axes[0].lines) == BEST
    assert len(figures["frontier"].axes[0].collections) == BEST
    times = {name: len([one for one in read if one[0] == name]) for name, _ in read}
    assert times["read_metrics"] == count
    assert times["read_predictions"] <= count + 2 * BEST, "a second time for what is drawn"
    assert times["read_epochs"] == times["read_images"] == 2 * BEST


def test_what_is_open_is_named_up_to_an_end(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn")
    left = [f"seed={seed}" for seed in range(1, 200)]
    runs.add_to_plan(tmp_path, [], {name: {"model": "cnn"} for name in left})
    (section,) = (one for one in Report(read_sweep(tmp_path)).sections() if one.title[:4] == "Open")
    ((_, (reason, count, which)),) = section.rows
    assert (reason.text, count.text) == ("not begun", "199")
    names = which.text.split("\n")
    assert {*names[:-1]} < {*left}
    assert (len(names), names[-1]) == (MANY + 1, f"... and {199 - MANY} more")


def test_predictions_are_kept_of_few_runs_and_read_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_cell(tmp_path, "cnn", seed=seed) for seed in range(3)]
    for folder in folders[1:]:
        found = runs.read_predictions(folder)
        bound = torch.full_like(found["x"], 0.1)
        runs.write_predictions(folder, {**found, "bound_x": bound, "bound_y": bound})
    size = sum(column.nbytes for column in runs.read_predictions(folders[1]).values())
    monkeypatch.setattr("pixel_spotter.reporting.table._KEPT_BYTES", 2 * size - 1)
    pixel, first, second = read_sweep(tmp_path).runs["predictions"]
    assert [one.columns is not None for one in (pixel, first, second)] == [False, True, False]
    for kept, folder in zip((pixel, first, second), folders, strict=True):
        expected: Columns = runs.read_predictions(folder)
        assert [*kept] == [*expected]
        assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_the_worst_of_many_runs_are_found_in_few_files(
    tmp_path: Path, read: list[tuple[str, str]]
) -> None:
    """Some have the largest error of all, at the same place, and others the next, elsewhere."""
    cells, every = [], []
    for k in range(40):
        error = 9.0 if k % 4 == 0 else 1.0 + k / 10
        place = (3, 4) if k % 4 == 0 else (k % 16, k // 3)
        own = columns([[place[0] + error, place[1]], [0.1, 0.0]], [place, (0, 0)])
        runs.write_images(tmp_path / str(k), runs.WORST, own, images_of(own))
        cells.append(cell("cnn", seed=k, predictions=own, folder=tmp_path / str(k)))
        every.append((error, place))
    (group,) = group_runs(table(*cells))
    worst = predictions.worst_of(group)
    largest = {place: error for error, place in sorted(every)}
    expected = sorted(largest.items(), key=lambda pair: -pair[1])[: predictions.WORST]
    found = [((*miss.xy_true.int().tolist(),), miss.error) for miss in worst]
    assert [place for place, _ in found] == [place for place, _ in expected]
    assert [error for _, error in found] == pytest.approx([error for _, error in expected])
    assert len(read) < 20


def test_runs_take_little_memory(tmp_path: Path) -> None:
    more = {f"model.setting_{k}": f"value {k}" for k in range(100)}
    for seed in range(100):
        write_cell(tmp_path, "cnn", seed=seed).rename(tmp_path / str(seed))
        lines = "".join(f"{key}: {value}\n" for key, value in more.items())
        file = tmp_path / str(seed) / runs.CONFIG
        file.write_text(file.read_text() + lines)
    read_sweep(tmp_path)
    gc.collect()
    tracemalloc.start()
    sweep = read_sweep(tmp_path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sweep.runs) == 100
    assert kept / 100 < 6000, "bytes"
