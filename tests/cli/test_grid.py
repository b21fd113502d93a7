import csv
import os
from pathlib import Path

import pytest
from conftest import CPU, TINY, CommandServer, Finished, compose, figures, finish, read_json, start
from omegaconf import OmegaConf
from PIL import Image
from sweeps import write_cell

from pixel_spotter.cli.grid import CompareGrid
from pixel_spotter.train import train

GRID = [
    *TINY,
    "data.split=uniform,iid,quadrant",
    "data.val_fraction=0.78",
    "data.test_fraction=0.1",
]
"""With so many positions for val, a quadrant held out leaves none for training."""

PLOTS = (
    "report/frontier.png",
    "report/training.png",
    "report/error_uniform.png",
    "report/worst_iid_16x16.png",
)


class Grid:
    """A grid of three cells, one of them impossible, run twice."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.folder = cwd / "outputs/sweeps/three"
        self.first = self.run()
        self.stamps_before = self.stamps()
        self.files = {
            path.name: path.read_bytes() for path in self.folder.glob("*.*") if path.is_file()
        }

    def run(self) -> Finished:
        return finish(start("train", "--multirun", *GRID, "name=three", cwd=self.cwd))

    def stamps(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.glob("*/metrics.json")}

    def cell(self, split: str) -> Path:
        (folder,) = self.folder.glob(f"*data.split={split},*")
        return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("grid"))


def test_one_folder_a_cell_named_after_its_overrides(grid: Grid) -> None:
    cells = [path for path in grid.folder.iterdir() if path.is_dir() and path.name != "report"]
    assert len(cells) == 3
    for cell in cells:
        assert "optim.lr=0.01" in cell.name
        assert "name=" not in cell.name
        assert "enable_progress_bar" not in cell.name
    assert OmegaConf.load(grid.cell("iid") / ".hydra/config.yaml").data.split == "iid"


def test_a_failed_cell_ends_the_grid_in_an_error(grid: Grid) -> None:
    assert grid.first.code != 0
    assert "Traceback" not in grid.first.stderr
    assert "error: 1 cells failed" in grid.first.stderr
    assert "the quadrant split of 16x16 px leaves no position for train" in grid.first.stderr
    assert not (grid.cell("quadrant") / "metrics.json").exists()


def test_the_other_cells_are_finished(grid: Grid) -> None:
    for split in ("uniform", "iid"):
        assert read_json(grid.cell(split) / "metrics.json")["split"] == split


@pytest.mark.parametrize("split", ["uniform", "iid"])
def test_a_cell_equals_the_run_alone(split: str, grid: Grid, tmp_path: Path) -> None:
    overrides = [word for word in GRID if not word.startswith("data.split")]
    alone = train(compose([*overrides, f"data.split={split}"]), tmp_path / "alone", "cnn")
    in_grid = read_json(grid.cell(split) / "metrics.json")
    assert figures(in_grid) == figures(alone)
    assert (in_grid["model"], in_grid["threads"]) == ("cnn", alone["threads"])


def test_the_table_for_machines(grid: Grid) -> None:
    with (grid.folder / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    errors = [float(row["test/mean_error_px"]) for row in rows]
    assert errors == sorted(errors)
    for row in rows:
        metrics = read_json(grid.cell(row["split"]) / "metrics.json")
        assert row["cell"] == grid.cell(row["split"]).name
        for key, value in metrics.items():
            if isinstance(value, float):
                assert float(row[key]) == value, key


def test_the_report_for_people(grid: Grid) -> None:
    text = (grid.folder / "report.md").read_text()
    page = (grid.folder / "report.html").read_text().replace("<wbr>", "")
    for split in ("uniform", "iid"):
        metrics = read_json(grid.cell(split) / "metrics.json")
        row = f"| 1 | cnn | {metrics['test/mean_error_px']:.3f} |"
        assert row in text.split(f"## {split}:")[1].split("##")[0]
        assert f"{metrics['parameters']:,}" in page
    for written in (text, page, grid.first.stdout):
        assert "2 of 3 cells finished, 1 failed" in written
        assert "leaves no position for train" in written
        assert grid.cell("quadrant").name in written
        assert "no test position was seen in training" in written or written is grid.first.stdout
    for plot in PLOTS:
        assert f"]({plot})" in text


def test_seen_and_unseen_are_told_apart(grid: Grid) -> None:
    seen = read_json(grid.cell("iid") / "metrics.json")["test/seen_in_training"]
    assert 0 < seen < 1
    assert read_json(grid.cell("uniform") / "metrics.json")["test/seen_in_training"] == 0
    text = (grid.folder / "report.md").read_text()
    assert f"## iid: {seen:.0%} of test positions were seen in training" in text
    assert "## uniform: no test position was seen in training" in text


@pytest.mark.parametrize("plot", PLOTS)
def test_the_plots_are_pictures(plot: str, grid: Grid) -> None:
    with Image.open(grid.folder / plot) as image:
        image.load()
        assert min(image.size) > 200
        assert len(image.convert("RGB").getcolors(10**6) or []) > 20


def test_run_again_finished_cells_are_skipped(grid: Grid) -> None:
    again = grid.run()
    assert again.code != 0
    assert "1 cells failed" in again.stderr
    assert grid.stamps() == grid.stamps_before
    for name, content in grid.files.items():
        assert (grid.folder / name).read_bytes() == content


def test_a_mistake_in_a_grid_ends_in_one_line(run_command: CommandServer, tmp_path: Path) -> None:
    ended = run_command("train", "--multirun", *TINY, "model=cnn,transformer", cwd=tmp_path)
    assert ended.code != 0
    assert "Traceback" not in ended.stderr + ended.stdout


def test_an_experiment_is_narrowed_on_the_command_line(
    run_command: CommandServer, tmp_path: Path
) -> None:
    narrow = ["model=cnn", "optim.lr=0.01", "trainer.max_epochs=1,2", "model.channels=[4,8]"]
    small = ["data.image_size=16", "data.train_samples=64", "data.batch_size=32"]
    ended = run_command("train", "experiment=blog", *CPU, *narrow, *small, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    folder = tmp_path / "outputs/sweeps/blog"
    cells = [read_json(path) for path in folder.glob("*/metrics.json")]
    assert sorted(cell["epochs"] for cell in cells) == [1, 2]
    assert {cell["split"] for cell in cells} == {"iid"}
    files = {path.name for path in folder.glob("*.*")}
    assert files >= {"comparison.csv", "report.html", "report.md", "report.csv"}
    assert (folder / "report/over_epochs.png").is_file()
    assert "Error against epochs" in (folder / "report.html").read_text()
    assert "of test positions were seen in training" in (folder / "report.md").read_text()


def test_many_overrides_make_no_impossible_folder_name(
    run_command: CommandServer, tmp_path: Path
) -> None:
    many = [
        "data.val_fraction=0.1234567",
        "data.test_fraction=0.1234567",
        "early_stopping.patience=100",
        "early_stopping.min_delta=0.0001",
        "model.dropout=0.123456789",
        "model.scale_output=false",
        "trainer.log_every_n_steps=50",
        "trainer.precision=32-true",
    ]
    ended = run_command("train", "--multirun", *TINY, *many, "seed=0,1", "name=x", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert len([*(tmp_path / "outputs/sweeps/x").glob("*/metrics.json")]) == 2


def end(folder: Path) -> str:
    """End a grid in a folder, and return the error in which it ended."""
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    grid = CompareGrid()
    grid.start_s = 0.0
    with pytest.raises(SystemExit) as ended:
        grid.on_multirun_end(config)
    return str(ended.value)


def test_failures_of_earlier_commands_are_shown_and_not_this_ones(tmp_path: Path) -> None:
    stale = write_cell(tmp_path, "resnet18", failure="no weights") / "failure.txt"
    os.utime(stale, (0, 0))
    write_cell(tmp_path, "cnn")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    grid = CompareGrid()
    grid.on_multirun_start(config)
    grid.on_multirun_end(config)
    assert "no weights" in (tmp_path / "report.md").read_text()
    stale.write_text("no weights")
    assert end(tmp_path).startswith("error: 1 cells failed:")


def test_a_grid_of_failures_ends_in_them(tmp_path: Path) -> None:
    failed = write_cell(tmp_path, "resnet18", failure="no weights")
    error = end(tmp_path)
    assert "no cell is finished" in error
    assert f"1 cells failed:\n  {failed.name}: no weights" in error
    assert not (tmp_path / "report.html").exists()


def test_a_report_that_fails_ends_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell/metrics.json").write_text("{")
    error = end(tmp_path)
    assert error.startswith("error: no report: ")
    assert len(error.splitlines()) == 1


def test_cells_side_by_side_share_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    cells = ["model=argmax", "data.split=border", "seed=0,1,2", "grid_seeds=2"]
    two = ["hydra.launcher.n_jobs=2", "data.image_size=16", "trainer=cpu"]
    ended = finish(start("train", "experiment=compare", *cells, *two, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    folder = tmp_path / "outputs/sweeps/compare"
    metrics = [read_json(path) for path in folder.glob("*/metrics.json")]
    assert sorted(cell["seed"] for cell in metrics) == [0, 1], "grid_seeds=2 leaves out seed 2"
    assert {cell["threads"] for cell in metrics} == {max(1, (os.cpu_count() or 1) // 2)}
    assert "Warning" not in ended.stderr
