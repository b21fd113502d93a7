import csv
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import (
    CPU,
    ONE_BY_ONE,
    TINY,
    CommandServer,
    Finished,
    compose,
    figures,
    finish,
    read_json,
    start,
)
from joblib import cpu_count
from omegaconf import DictConfig, OmegaConf, open_dict
from PIL import Image
from sweeps import write_cell

from pixel_spotter import runs
from pixel_spotter.cli.grid import AroundGrid, _duration, _refuse_processes, _telling
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text
from pixel_spotter.train import train

GRID = [
    *(word for word in TINY if word != "model.hidden=[16]"),  # a name of at most 200 bytes
    "data.split=uniform,iid,quadrant",
    "data.val_fraction=0.78",
    "data.test_fraction=0.1",
]
"""With so many positions for val, a quadrant held out leaves none for training."""

PLOTS = (
    "report/frontier.png",
    "report/training.png",
    "report/error_uniform.png",
    "report/worst_iid.png",
)


class Grid:
    """A grid of three cells, one of them impossible, run twice."""

    def __init__(self, run_command: CommandServer, cwd: Path) -> None:
        self.run_command = run_command
        self.cwd = cwd
        self.folder = cwd / "outputs/sweeps/three"
        self.first = self.run()
        self.stamps_before = self.stamps()
        self.files = {
            path.name: path.read_bytes() for path in self.folder.glob("[!.]*.*") if path.is_file()
        }

    def run(self) -> Finished:
        asked = ["--multirun", *GRID, "name=three"]
        return self.run_command("train", *asked, cwd=self.cwd, pictures=True)

    def stamps(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.glob("*/metrics.json")}

    def cell(self, split: str) -> Path:
        (folder,) = self.folder.glob(f"*data.split={split},*")
        return folder


@pytest.fixture(scope="module")
def grid(run_command: CommandServer, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(run_command, tmp_path_factory.mktemp("grid"))


def test_one_folder_a_cell_named_after_its_overrides(grid: Grid) -> None:
    cells = [path for path in grid.folder.iterdir() if path.is_dir() and path.name != "report"]
    assert len(cells) == 3
    for cell in cells:
        assert "optim.lr=0.01" in cell.name
        assert "name=" not in cell.name
        assert "enable_progress_bar" not in cell.name
    assert OmegaConf.load(grid.cell("iid") / ".hydra/config.yaml").data.split == "iid"


def test_its_cells_are_placed_by_themselves(grid: Grid) -> None:
    at_once = min(3, cpu_count())
    several = f"{at_once} cells at once with 1 thread each"
    assert (several if at_once > 1 else "one cell after another") in grid.first.stdout


def test_a_failed_cell_ends_the_grid_in_an_error(grid: Grid) -> None:
    assert grid.first.code != 0
    assert "Traceback" not in grid.first.stderr
    assert grid.first.error() == "1 cells failed"
    reason = "the quadrant split of 16x16 px leaves no position for train"
    assert grid.first.stdout.count(reason) == 1, "told once"
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
        row = f"| 1. cnn | {metrics['test/mean_error_px']:.3f} |"
        assert row in text.split(f"## Ranking: {split}\n")[1].split("##")[0]
        assert f"{metrics['parameters']:,}" in page
    for written in (text, page, grid.first.stdout):
        assert "2 of 3 cells finished, 1 failed" in written
        assert "leaves no position for train" in written
        assert grid.cell("quadrant").name in written.replace("\\", "")  # of Markdown
        assert "no test position was seen in training" in written or written is grid.first.stdout
    for plot in PLOTS:
        assert f"]({plot})" in text


def test_seen_and_unseen_are_told_apart(grid: Grid) -> None:
    seen = read_json(grid.cell("iid") / "metrics.json")["test/seen_in_training"]
    assert 0 < seen < 1
    assert read_json(grid.cell("uniform") / "metrics.json")["test/seen_in_training"] == 0
    text = (grid.folder / "report.md").read_text()
    iid, uniform = (text.split(f"## Ranking: {name}\n")[1] for name in ("iid", "uniform"))
    assert f"{seen:.0%} of test positions were seen in training" in iid.partition("\n#")[0]
    assert "no test position was seen in training" in uniform.partition("\n#")[0]


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
    ended = run_command("train", "experiment=blog", ONE_BY_ONE, *CPU, *narrow, *small, cwd=tmp_path)
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
    ended = run_command(
        "train", "--multirun", *TINY, *many, ONE_BY_ONE, "seed=0,1", "name=x", cwd=tmp_path
    )
    assert ended.code == 0, ended.stderr
    assert len([*(tmp_path / "outputs/sweeps/x").glob("*/metrics.json")]) == 2


HYDRA = {
    "launcher": {"_target_": "BasicLauncher"},
    "sweeper": {"_target_": "another.Sweeper"},
    "overrides": {"task": []},
}


def grid_in(folder: Path) -> tuple[AroundGrid, DictConfig]:
    """A grid that has started in a folder."""
    config = compose(["model=argmax"])
    with open_dict(config):
        config.hydra = {**HYDRA, "sweep": {"dir": str(folder)}}
    grid = AroundGrid()
    grid.on_multirun_start(config)
    return grid, config


def end(folder: Path) -> str:
    """End a grid in a folder, and return the error in which it ended."""
    grid, config = grid_in(folder)
    grid.before = {}
    with pytest.raises(SystemExit) as ended:
        grid.on_multirun_end(config)
    return str(ended.value)


def test_failures_of_earlier_commands_are_shown_and_not_this_ones(tmp_path: Path) -> None:
    stale = write_cell(tmp_path, "resnet18", failure="no weights") / "failure.txt"
    write_cell(tmp_path, "cnn")
    grid, config = grid_in(tmp_path)
    grid.on_multirun_end(config)
    assert "no weights" in (tmp_path / "report.md").read_text()
    grid, config = grid_in(tmp_path)
    write_text(stale, "no weights")
    os.utime(stale, (0, 0))  # as of a clock that was put back
    with pytest.raises(SystemExit, match="error: 1 cells failed"):
        grid.on_multirun_end(config)


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


def test_cells_side_by_side_share_the_threads(run_command: CommandServer, tmp_path: Path) -> None:
    cells = ["model=argmax", "data.split=border", "seed=0,1"]
    two = ["hydra.launcher.n_jobs=2", "data.image_size=16", "trainer=cpu"]
    asked = ["experiment=compare", *cells, *two]
    ended = run_command("train", *asked, cwd=tmp_path, without=["OMP_NUM_THREADS"])
    assert ended.code == 0, ended.stderr
    folder = tmp_path / "outputs/sweeps/compare"
    metrics = [read_json(path) for path in folder.glob("*/metrics.json")]
    assert sorted(cell["seed"] for cell in metrics) == [0, 1]
    assert "2/2 done" in ended.stdout
    assert {cell["threads"] for cell in metrics} == {max(1, (os.cpu_count() or 1) // 2)}
    assert "Warning" not in ended.stderr


QUICK = ["trainer=cpu", "trainer.enable_progress_bar=false", "data.image_size=16"]


def cells(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/metrics.json")}


def test_a_narrower_command_forgets_no_cell(run_command: CommandServer, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/sweeps/p"
    grid = ["--multirun", *QUICK, ONE_BY_ONE, "name=p", "model=argmax,centroid"]
    assert run_command("train", *grid, "seed=0,1", cwd=tmp_path).code == 0
    assert len(cells(folder)) == 4
    for cell in folder.glob("*seed=1*"):
        shutil.rmtree(cell)
    ended = run_command("train", *grid, "seed=0", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "2 of 4 cells finished, 2 open" in ended.stdout
    plan = read_json(folder / "plan.json")
    assert len(plan["cells"]) == 4
    assert [command[-1] for command in plan["commands"]] == ["seed=0,1", "seed=0"]


def test_a_glob_of_choices_is_trained_and_reported(
    run_command: CommandServer, tmp_path: Path
) -> None:
    grid = ["--multirun", *QUICK, ONE_BY_ONE, "name=p", "model=glob(arg*)"]
    ended = run_command("train", *grid, "seed=0,1", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "2 cells finished, none open" in ended.stdout
    assert len(cells(tmp_path / "outputs/sweeps/p")) == 2


def test_progress_is_told_after_each_cell(run_command: CommandServer, tmp_path: Path) -> None:
    grid = ["--multirun", *QUICK, ONE_BY_ONE, "name=p", "model=argmax", "seed=0,1,2"]
    ended = run_command("train", *grid, cwd=tmp_path)
    told = re.findall(r"(\d/3 done.*)", ended.stdout)
    assert len(told) == 3
    assert re.fullmatch(r"1/3 done, about \d+ s left", told[0])
    assert told[2] == "3/3 done"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.0, "59 s"), (61, "2 min"), (3600, "1 h 0 min"), (6000, "1 h 40 min")],
)
def test_times_as_people_say_them(seconds: float, words: str) -> None:
    assert _duration(seconds) == words


def test_missing_weights_are_known_before_the_grid_starts(
    run_command: CommandServer, tmp_path: Path
) -> None:
    grid = ["--multirun", *QUICK, ONE_BY_ONE, "name=p", "model=resnet18,argmax", "seed=0,1"]
    ended = run_command("train", *grid, cwd=tmp_path)
    assert ended.error() == "2 cells failed"
    before, _, after = ended.stdout.partition("Launching")
    assert "2 of 4 cells cannot run: pretrained weights" in before
    assert after.count("pretrained weights IMAGENET1K_V1 are neither") == 1, "told once"
    assert "2/4 done, 2 failed" in after
    assert len([*(tmp_path / "outputs/sweeps/p").glob("*/failure.txt")]) == 2


def test_a_grid_without_any_weights_does_not_start(
    run_command: CommandServer, tmp_path: Path
) -> None:
    ended = run_command("train", "--multirun", *QUICK, "name=p", "model=resnet18", cwd=tmp_path)
    assert "pretrained weights IMAGENET1K_V1" in ended.error()
    assert "Launching" not in ended.stdout
    assert not (tmp_path / "outputs/sweeps/p").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("data.num_workers=2", "cannot have processes of their own"),
        ("data.num_workers=0,2", "cells that differ in data.num_workers alone"),
        ("trainer.devices=2", "one device"),
        ("hydra.sweeper.max_batch_size=-1", "hydra.sweeper.max_batch_size must be at least 1"),
    ],
)
def test_processes_of_cells_are_refused_before_the_grid(
    setting: str, says: str, run_command: CommandServer, tmp_path: Path
) -> None:
    grid = [
        "--multirun",
        *QUICK,
        "name=p",
        "model=argmax",
        "hydra.launcher.n_jobs=2",
        "seed=0,1",
        setting,
    ]
    ended = run_command("train", *grid, cwd=tmp_path)
    assert says in ended.error()
    assert not (tmp_path / "outputs/sweeps/p").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("optim.lr=0.001,abc", "optim.lr must be float"),
        ("model=cnn,heatmap optim.lr=abc,0.001", "optim.lr must be float"),
        ("data.split=uniform,unifrom", "data.split must be one of"),
        ("+lr=0.1,0.2", "did you mean optim.lr?"),
        ("seed=0,1,-1", "seed must be a whole number"),
        ("trainer.precision=32-true,16-true", "would round coordinates"),
        ("+optim.foo=1,2", "no setting optim.foo"),
        ("+lr=0.1 hydra/sweeper=optuna", "did you mean optim.lr?"),
    ],
)
def test_values_that_no_cell_can_have_are_refused_before_the_grid(
    settings: str, says: str, run_command: CommandServer, tmp_path: Path
) -> None:
    if "optuna" in settings:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    ended = run_command("train", "--multirun", *QUICK, *settings.split(), cwd=tmp_path)
    assert says in ended.error()
    assert not (tmp_path / "outputs").exists()


def test_few_cells_tell_of_all_values() -> None:
    cells = {
        f"{model}{lr}{seed}": {"model": model, "optim.lr": lr, "seed": str(seed)}
        for model in ("cnn", "heatmap")
        for lr in ("0.1", "0.01", "abc")
        for seed in range(100)
    }
    told = [cells[name] for name in _telling(cells)]
    assert {cell["model"] for cell in told} == {"cnn", "heatmap"}
    assert {cell["optim.lr"] for cell in told} == {"0.1", "0.01", "abc"}
    assert {"0", "99"} <= {cell["seed"] for cell in told}
    assert len(told) <= 4


def test_processes_of_cells_that_an_experiment_asks_for(
    run_command: CommandServer, tmp_path: Path
) -> None:
    for file, content in {
        "experiment/workers": "data: {num_workers: 2}",
        "ablation/workers": "data: {num_workers: 2}",
        "ablation/none": "data: {num_workers: 0}",
    }.items():
        write_text(tmp_path / f"own/{file}.yaml", f"# @package _global_\n{content}\n")
    own = [
        *QUICK,
        "name=p",
        "model=argmax",
        "seed=0,1",
        f"hydra.searchpath=[file://{tmp_path}/own]",
    ]
    for workers in ("experiment=workers", "ablation=none,workers"):
        grid = ["--multirun", *own, "hydra.launcher.n_jobs=2", workers]
        ended = run_command("train", *grid, cwd=tmp_path)
        assert "cannot have processes of their own" in ended.error()
    assert not (tmp_path / "outputs/sweeps/p").exists()


@pytest.mark.parametrize("devices", ["1", "[0]", "[3]", "2", "auto", "-1", "[0,1]"])
def test_one_device_whatever_its_number(devices: str) -> None:
    cfg = compose([f"trainer.devices={devices}"])
    if devices in ("1", "[0]", "[3]"):
        _refuse_processes(cfg, "joblib")
    else:
        with pytest.raises(UserError, match="one device"):
            _refuse_processes(cfg, "joblib")


def test_a_cell_that_another_process_has_is_left_to_it(
    run_command: CommandServer, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs/sweeps/p"
    grid = ["--multirun", *QUICK, ONE_BY_ONE, "name=p", "model=argmax", "seed=0,1"]
    theirs = folder / f"{','.join(sorted([*QUICK[::2], 'model=argmax', 'seed=0']))}"
    with runs.owned(theirs):
        ended = run_command("train", *grid, cwd=tmp_path)
        assert ended.code == 0, ended.stderr
        assert "left to the process that has it" in ended.stdout
    assert not (theirs / "failure.txt").exists()
    assert len(cells(folder)) == 1


@pytest.mark.slow
def test_a_grid_whose_process_is_killed_ends_in_one_line_and_a_report(tmp_path: Path) -> None:
    small = [*QUICK, "model=cnn", "model.channels=[4]", "trainer.max_epochs=1,100000"]
    two = ["hydra.launcher.n_jobs=2", "name=p"]
    process = start("train", "--multirun", *small, *two, cwd=tmp_path)
    folder = tmp_path / "outputs/sweeps/p"
    while process.poll() is None:
        long = [*folder.glob("*max_epochs=100000*/epochs.csv")]
        if long and cells(folder):
            break
        time.sleep(0.1)
    (owner,) = (
        pid
        for pid in children(process.pid)
        if any("max_epochs=100000" in link for link in open_files(pid))
    )
    os.kill(owner, signal.SIGKILL)
    ended = finish(process)
    assert "the same command continues" in ended.error()
    assert "1 of 2 cells finished" in ended.stdout
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_a_grid_that_is_asked_to_end_leaves_no_process_behind(tmp_path: Path) -> None:
    small = [*QUICK, "model=cnn", "model.channels=[4]", "trainer.max_epochs=100000", "seed=0,1"]
    two = ["hydra.launcher.n_jobs=2", "name=p"]
    process = start("train", "--multirun", *small, *two, cwd=tmp_path)
    while process.poll() is None and len([*tmp_path.glob("outputs/*/p/*/epochs.csv")]) < 2:
        time.sleep(0.1)
    left = children(process.pid)
    process.terminate()
    try:
        ended = finish(process, timeout_s=30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert ended.code == 130
    assert ended.stderr.splitlines()[-1] == "interrupted: the same command continues"
    assert len(left) >= 2, "whose output is the command's: it has ended"


def children(pid: int) -> list[int]:
    """List all processes that a process has started, and theirs."""
    found = []
    for folder in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (folder / "children").read_text().split()):
            found += [child, *children(child)]
    return found


def open_files(pid: int) -> list[str]:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [os.readlink(link) for link in links if link.is_symlink()]  # noqa: PTH115
