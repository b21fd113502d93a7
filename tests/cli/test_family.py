"""Cells that differ in nothing but their epochs: one training, and each as if it were alone."""

import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ONE_BY_ONE, ROOT, TINY, CommandServer, compose, figures, read_json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixel_spotter import runs
from pixel_spotter.cli.family import siblings, turn
from pixel_spotter.cli.grid import run_cell
from pixel_spotter.cli.trainer import claim
from pixel_spotter.files import read_tensors
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.train import train
from pixel_spotter.training import prefixes
from pixel_spotter.training.callbacks import SeedEachEpoch

CONSTANT = [
    *(word for word in TINY if not word.startswith("trainer.max_epochs")),
    "scheduler=constant",
    "model.dropout=0.5",
    "early_stopping.patience=50",
]


def asked(epochs: int) -> list[str]:
    return [*CONSTANT, f"trainer.max_epochs={epochs}"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Runs of one to four epochs that share nothing."""
    folder = tmp_path_factory.mktemp("alone")
    for epochs in (1, 2, 3, 4):
        train(compose(asked(epochs)), folder / str(epochs), "cnn")
    return lambda epochs: folder / str(epochs)


def assert_same(cell: Path, alone: Path) -> None:
    """Everything but times: figures, predictions, epochs, weights, what is logged, which files."""
    one, other = (read_json(run / "metrics.json") for run in (cell, alone))
    assert figures(one) == figures(other)
    assert {*one} == {*other}
    assert one["ended"] == other["ended"]
    assert (cell / runs.PREDICTIONS).read_bytes() == (alone / runs.PREDICTIONS).read_bytes()
    assert epochs_of(cell) == epochs_of(alone)
    for name in (runs.BEST, runs.LAST):
        theirs, ours = (read_tensors(run / name) for run in (alone, cell))
        assert theirs["epoch"] == ours["epoch"]
        for key, weights in theirs["state_dict"].items():
            assert torch.equal(weights, ours["state_dict"][key]), key
    assert logged(cell) == logged(alone)
    checkpoints = {path.name for path in (cell / "checkpoints").iterdir()}
    assert checkpoints == {"best.ckpt", "last.ckpt"}


def epochs_of(run: Path) -> list[list[str]]:
    """The table as it is written, to the last digit, but the seconds, which are last."""
    return [line.split(",")[:-1] for line in (run / runs.EPOCHS).read_text().splitlines()]


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(run.glob("events.out.tfevents.*")):
        accumulator = EventAccumulator(str(file)).Reload()
        for tag in accumulator.Tags()["scalars"]:
            events = accumulator.Scalars(tag)
            found.setdefault(tag, []).extend((event.step, event.value) for event in events)
    return found


def cells(folder: Path) -> dict[int, Path]:
    """The cells of a grid by their epochs."""
    found = [path.parent for path in folder.glob("*/metrics.json")]
    configs = [runs.read_yaml(cell / runs.CONFIG, dict) for cell in found]
    return {cfg["trainer"]["max_epochs"]: cell for cfg, cell in zip(configs, found, strict=True)}


def trained(folder: Path) -> int:
    """How many epochs all cells of a grid have trained, by their logs."""
    logs = [file.read_text() for file in folder.glob("*/train.log")]
    return sum(len(re.findall(r"epochs\]\[INFO\] - epoch \d+ of", text)) for text in logs)


def train_grid(
    run_command: CommandServer, cwd: Path, epochs: str, *more: str, **options: Any
) -> tuple[Path, str]:
    grid = ["--multirun", *CONSTANT, f"trainer.max_epochs={epochs}", "name=g", *more]
    ended = run_command("train", *grid, cwd=cwd, **options)
    assert ended.code == 0, ended.stderr
    return cwd / "outputs/sweeps/g", ended.stdout


@pytest.mark.parametrize("order", ["1,2,3", "3,2,1", "2,3,1"])
def test_cells_are_one_training_and_each_as_if_alone(
    order: str, alone: Callable[[int], Path], run_command: CommandServer, tmp_path: Path
) -> None:
    folder, told = train_grid(run_command, tmp_path, order)
    assert "3 cells finished, none open" in told
    assert trained(folder) == 3
    for epochs, cell in cells(folder).items():
        assert_same(cell, alone(epochs))
        seconds = runs.read_epochs(cell)["seconds"].sum()
        assert runs.read_metrics(cell)["train_seconds"] >= seconds > 0, "of all its epochs"
        assert f"trainer.max_epochs={epochs}\n" in (cell / runs.OVERRIDES).read_text()


def test_a_later_command_goes_on_from_an_earlier_ones(
    alone: Callable[[int], Path], run_command: CommandServer, tmp_path: Path
) -> None:
    train_grid(run_command, tmp_path, "2")
    folder, _ = train_grid(run_command, tmp_path, "3,4", "trainer.enable_progress_bar=true")
    assert trained(folder) == 4
    assert_same(cells(folder)[4], alone(4))


def test_a_schedule_that_depends_on_the_epochs_is_not_shared(
    run_command: CommandServer, tmp_path: Path
) -> None:
    folder, _ = train_grid(run_command, tmp_path, "1,2", "scheduler=cosine", ONE_BY_ONE)
    assert trained(folder) == 3
    train(compose([*asked(2), "scheduler=cosine"]), tmp_path / "alone", "cnn")
    assert_same(cells(folder)[2], tmp_path / "alone")


@pytest.mark.parametrize("order", ["1,2,3", "3,1,2"])
def test_two_commands_side_by_side(
    order: str, alone: Callable[[int], Path], run_command: CommandServer, tmp_path: Path
) -> None:
    grid = ["--multirun", *CONSTANT, f"trainer.max_epochs={order}", "name=g"]
    begun = [run_command.begin("train", *grid, cwd=tmp_path) for _ in range(2)]
    ended = [one.finish() for one in begun]
    assert [one.code for one in ended] == [0, 0], ended[-1].stderr
    folder = tmp_path / "outputs/sweeps/g"
    assert sorted(cells(folder)) == [1, 2, 3]
    assert "3 cells finished, none open" in (folder / "report.md").read_text()
    assert trained(folder) == 3
    for epochs, cell in cells(folder).items():
        assert_same(cell, alone(epochs))


@pytest.mark.slow  # each of joblib's processes imports everything
def test_cells_side_by_side_wait_for_one_another(
    alone: Callable[[int], Path], run_command: CommandServer, tmp_path: Path
) -> None:
    folder, _ = train_grid(run_command, tmp_path, "3,1", "hydra.launcher.n_jobs=2")
    assert trained(folder) == 3
    for epochs, cell in cells(folder).items():
        assert_same(cell, alone(epochs))


def test_a_killed_grid_goes_on(run_command: CommandServer, tmp_path: Path) -> None:
    """The longer cell first, killed when it has kept what the shorter one is to take."""
    slow = ["data.batch_size=1", "name=g"]
    grid = ["--multirun", *CONSTANT, *slow, "trainer.max_epochs=5,2"]
    folder = tmp_path / "outputs/sweeps/g"
    begun = run_command.begin("train", *grid, cwd=tmp_path)
    begun.wait_for(lambda: [*folder.glob("*/checkpoints/after_2/last.ckpt")] != [])
    begun.kill()
    assert begun.finish().code == -signal.SIGKILL
    assert not cells(folder)
    assert run_command("train", *grid, cwd=tmp_path).code == 0
    assert trained(folder) <= 5 + 1, "the one in which it was killed"
    for epochs, cell in cells(folder).items():
        train(compose([*asked(epochs), slow[0]]), tmp_path / str(epochs), "cnn")
        assert figures(read_json(cell / "metrics.json")) == figures(
            read_json(tmp_path / f"{epochs}/metrics.json")
        )


class Grid:
    """A grid whose cells are trained here, one at a time, as asked."""

    def __init__(self, folder: Path, *epochs: int) -> None:
        self.folder = folder
        self.trained: list[int] = []
        plan = {self.cell(n).name: {"model": "cnn", "trainer.max_epochs": str(n)} for n in epochs}
        runs.add_to_plan(folder, ["model=cnn"], plan)

    def cell(self, epochs: int) -> Path:
        return self.folder / f"max_epochs={epochs}"

    def train(self, epochs: int, *more: str) -> Path:
        train(compose([*asked(epochs), *more]), self.cell(epochs), "cnn")
        return self.cell(epochs)


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grid]:
    grid, seed = Grid(tmp_path / "grid", 2, 4), SeedEachEpoch.on_train_epoch_start

    def count(self: Any, trainer: Any, model: Any) -> None:
        grid.trained.append(trainer.current_epoch)
        seed(self, trainer, model)

    monkeypatch.setattr(SeedEachEpoch, "on_train_epoch_start", count)
    return grid


class PowerCutError(Exception):
    pass


MOMENTS = [
    *((4, "copyfile", k) for k in (1, 2)),  # the longer one keeps its best, its last
    *((2, "copyfile", k) for k in (1, 2)),  # the shorter one takes the last, the best
    (2, "write_epochs", 1),
    (2, "log_metrics", 2),
    (2, "measure", 1),
]


@pytest.mark.parametrize(("epochs", "call", "count"), MOMENTS)
def test_a_crash_while_it_is_shared_changes_nothing(
    epochs: int,
    call: str,
    count: int,
    grid: Grid,
    alone: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if epochs == 2:
        grid.train(4)
    owner: Any = {
        "copyfile": shutil,
        "write_epochs": runs,
        "log_metrics": prefixes.EpochLogger,
        "measure": sys.modules["pixel_spotter.train"],  # whose name is its function's as well
    }[call]
    original, calls = getattr(owner, call), []

    def cut(*args: Any, **kwargs: Any) -> Any:
        calls.append(call)
        if len(calls) == count:
            raise PowerCutError
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, cut)
        with pytest.raises(PowerCutError):
            grid.train(epochs)
    for again in (4, 2):
        grid.train(again)
    for again in (4, 2):
        assert_same_but_logged_again(grid.cell(again), alone(again))
    assert sorted({*grid.trained}) == [0, 1, 2, 3]
    assert len(grid.trained) <= 5, "but the epoch that was cut"


def assert_same_but_logged_again(cell: Path, alone: Path) -> None:
    one, other = (logged(run) for run in (cell, alone))
    assert {tag: {*events} for tag, events in one.items()} == {
        tag: {*events} for tag, events in other.items()
    }
    for file in cell.glob("events.*"):
        file.unlink()
    for file in alone.glob("events.*"):
        shutil.copy(file, cell)
    assert_same(cell, alone)


def flip(file: Path) -> None:
    """Change one bit of the weights."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a bit of the last": lambda cell: flip(cell / runs.LAST),
    "a bit of the best": lambda cell: flip(cell / runs.BEST),
    "half of it": lambda cell: (cell / runs.LAST).write_bytes(b"PK" * 1000),
    "no best": lambda cell: (cell / runs.BEST).unlink(),
    "no table": lambda cell: (cell / runs.EPOCHS).unlink(),
    "a table of one epoch": lambda cell: runs.write_epochs(cell, [{"epoch": 0, "seconds": 1}]),
    "a damaged table": lambda cell: (cell / runs.EPOCHS).write_bytes(b'"'),
    "a damaged config": lambda cell: (cell / runs.CONFIG).write_text("{"),
    "no config": lambda cell: (cell / runs.CONFIG).unlink(),
    "other settings": lambda cell: (cell / runs.CONFIG).write_text(
        (cell / runs.CONFIG).read_text().replace("dropout: 0.5", "dropout: 0.4")
    ),
    "another version": lambda cell: change(cell / runs.LAST, "where_it_ran", {"threads": 1}),
    "a later best": lambda cell: change(cell / runs.BEST, "epoch", 2),
    "no epoch": lambda cell: change(cell / runs.LAST, "epoch", -1),
}


def change(file: Path, key: str, value: Any) -> None:
    torch.save({**read_tensors(file), key: value}, file)


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_or_of_another_run_is_not_taken(
    damage: str, grid: Grid, alone: Callable[[int], Path]
) -> None:
    shorter = grid.train(2)
    DAMAGE[damage](shorter)
    assert_same(grid.train(4), alone(4))
    assert grid.trained == [0, 1, 0, 1, 2, 3]


def test_damaged_figures_of_another_are_not_this_ones_failure(
    grid: Grid, alone: Callable[[int], Path]
) -> None:
    longer = grid.train(4)
    (longer / runs.METRICS).write_text('{"ended":')
    assert_same(grid.train(2), alone(2))
    assert grid.trained == [0, 1, 2, 3]


def test_what_is_kept_and_damaged_is_not_taken(grid: Grid, alone: Callable[[int], Path]) -> None:
    longer = grid.train(4)
    flip(longer / "checkpoints/after_2/last.ckpt")
    assert_same(grid.train(2), alone(2))
    assert grid.trained == [0, 1, 2, 3, 0, 1]
    assert_same(longer, alone(4))


def test_what_was_kept_by_a_run_with_other_settings_is_not_taken(
    grid: Grid, alone: Callable[[int], Path]
) -> None:
    longer = grid.train(4, "optim.lr=0.1")
    assert prefixes.kept_after(2, longer).is_dir()
    for file in (runs.METRICS, runs.LAST):
        (longer / file).unlink()  # to begin anew
    claim(longer, compose(asked(4)))
    assert_same(grid.train(2), alone(2))


def test_a_run_that_stopped_early_is_all_that_a_longer_one_would_be(
    grid: Grid, tmp_path: Path
) -> None:
    stops = ["early_stopping.patience=1", "early_stopping.min_delta=1000"]
    for epochs in (2, 4):
        cell = grid.train(epochs, *stops)
        train(compose([*asked(epochs), *stops]), tmp_path / f"{epochs}", "cnn")
        assert_same(cell, tmp_path / f"{epochs}")
        assert runs.read_metrics(cell)["ended"] == "early_stopping"
    assert len(grid.trained) == 2 + 2 + 2, "of the first, and of both alone"


def test_progress_after_the_stop_makes_no_longer_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To stop after the second epoch, kept going to the third, which is better than the first."""
    sum_up = PointRegressor._sum_up

    def given(self: Any, split: str) -> None:
        sum_up(self, split)
        self.figures["val"]["mean_error_px"] = [3.0, 4.0, 2.0, 1.0][self.current_epoch]

    monkeypatch.setattr(PointRegressor, "_sum_up", given)
    stops = ["early_stopping.patience=1", "+trainer.min_epochs=3"]
    grid = Grid(tmp_path / "grid", 3, 9)
    for epochs in (3, 9):
        train(compose([*asked(epochs), *stops]), tmp_path / f"{epochs}", "cnn")
        assert_same(grid.train(epochs, *stops), tmp_path / f"{epochs}")
        metrics = runs.read_metrics(grid.cell(epochs))
        assert (metrics["epochs"], metrics["ended"]) == (3, "early_stopping")


def test_a_cell_in_its_turn_waits(grid: Grid) -> None:
    with turn(grid.cell(4), siblings(compose(asked(4)), grid.cell(4))):
        thread = threading.Thread(target=grid.train, args=(2,))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        assert not grid.trained
    thread.join()
    assert grid.trained == [0, 1]


class TestSiblings:
    """Which cells share, by their settings."""

    def of(self, folder: Path, *overrides: str, **cell: str) -> dict[int, Path]:
        grid = Grid(folder, 2, 4)
        runs.add_to_plan(folder, [], {"other": {"model": "cnn", **cell}})
        return siblings(compose([*asked(2), *overrides]), grid.cell(2))

    def test_those_with_other_epochs_and_nothing_else(self, tmp_path: Path) -> None:
        assert {*self.of(tmp_path)} == {4}
        more = {"trainer.max_epochs": "8"}
        assert {*self.of(tmp_path, **more, **{"optim.lr": "1"})} == {4}
        assert {*self.of(tmp_path, **more, **{"trainer.enable_progress_bar": "true"})} == {4, 8}

    def test_none_of_a_cell_that_sets_no_epochs_and_is_none_of_theirs(self, tmp_path: Path) -> None:
        plan = {"a": {"seed": "0"}, "b": {"seed": "0", "trainer.max_epochs": "4"}}
        runs.add_to_plan(tmp_path, [], plan)
        assert siblings(compose(asked(4)), tmp_path / "b") == {}
        assert siblings(compose(CONSTANT), tmp_path / "a") == {}

    @pytest.mark.parametrize(
        "override",
        [
            "scheduler=cosine",
            "scheduler.factor=${trainer.max_epochs}",
            "model.dropout=${trainer.max_epochs}",
            "start_from=some.ckpt",
            "trainer.max_time=00:00:01:00",
            "logger=csv",
            "model._target_=mymodels.Own",
            "scheduler._target_=mymodels.schedule",
        ],
    )
    def test_none_where_an_epoch_might_depend_on_their_number(
        self, override: str, tmp_path: Path
    ) -> None:
        assert not self.of(tmp_path, override)

    def test_a_schedule_of_its_own_length_is_shared(self, tmp_path: Path) -> None:
        assert {*self.of(tmp_path, "scheduler=cosine", "scheduler.T_max=5")} == {4}

    def test_a_run_in_no_grid_has_none(self, tmp_path: Path) -> None:
        assert siblings(compose(asked(2)), tmp_path / "run") == {}


def test_a_cell_that_waited_until_the_time_is_up_is_left_and_not_failed(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, until_s = grid.cell(2), [time.monotonic() + 1000]
    monkeypatch.setattr("pixel_spotter.cli.grid._until_s", until_s)

    @contextmanager
    def long_turn(*_: object) -> Iterator[None]:
        until_s[:] = [0.0]
        yield

    runs.write_metrics(cell, {"ended": "max_time"})
    monkeypatch.setattr("pixel_spotter.train.turn", long_turn)
    assert run_cell(cell, lambda: train(compose(asked(2)), cell, "cnn")) is None
    assert not (cell / runs.FAILURE).exists()
    assert runs.read_metrics(cell) == {"ended": "max_time"}, "what it had come to is kept"
    assert grid.trained == []


def test_cells_that_join_later_wait_for_the_same(grid: Grid) -> None:
    """Whatever their names: the lock is of what they share."""
    for epochs in (2, 4):
        others = siblings(compose(asked(epochs)), grid.cell(epochs))
        with turn(grid.cell(epochs), others):
            pass
    before = {*grid.cell(2).parent.glob(".lock.*")}
    runs.add_to_plan(grid.cell(2).parent, [], {"a": {"model": "cnn", "trainer.max_epochs": "8"}})
    with turn(grid.cell(2), siblings(compose(asked(2)), grid.cell(2))):
        assert {*grid.cell(2).parent.glob(".lock.*")} == before


def test_another_processor_is_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    here = runs.where_it_ran(device)
    units = torch.cpu._is_avx512_bf16_supported()
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: not units)
    assert runs.where_it_ran(device) != here
    monkeypatch.undo()
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    assert runs.where_it_ran(device) != here


def test_no_model_and_no_data_look_at_how_long_the_training_is() -> None:
    package = ROOT / "pixel_spotter"
    files = [*(package / "models").glob("*.py"), *(package / "data").glob("*.py")]
    assert len(files) > 20
    for file in files:
        assert not re.search("max_epochs|max_steps|stepping_batches", file.read_text()), file
