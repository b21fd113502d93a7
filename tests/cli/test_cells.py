import errno
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from conftest import CPU, ONE_BY_ONE, CommandServer, compose, read_json
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from pixel_spotter import runs
from pixel_spotter.cli import grid
from pixel_spotter.cli.cells import Cells, Configs, finished, words_of
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.errors import UserError
from pixel_spotter.train import train
from pixel_spotter.training import callbacks

MASTER = OmegaConf.create({"hydra": {"overrides": {"hydra": []}}})


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What Hydra composes, its arguments."""
    found: list[Any] = []
    load = ConfigLoaderImpl.load_configuration

    def counted(self: Any, *arguments: Any, **others: Any) -> DictConfig:
        found.append(arguments)
        return load(self, *arguments, **others)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield found


def cells_of(*swept: str) -> Cells:
    """List a grid's cells: ``cells_of("model=cnn,svm", "seed=0,1")``."""
    pairs = [[(key, v) for v in values.split(";")] for key, _, values in map(_halves, swept)]
    every = map(dict, itertools.product(*pairs))
    return {",".join(words_of(cell)): cell for cell in every}


def _halves(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def written(cell: dict[str, str]) -> dict[str, Any]:
    """The settings that a cell's folder would have, composed alone."""
    config: Any = OmegaConf.to_container(hydra.compose("train", words_of(cell)))
    return runs.settings_of(config)


@pytest.mark.parametrize(
    "swept",
    [
        ("model=cnn;heatmap", "optim.lr=0.001;1e-3;2", "seed=0;1"),
        ("data.image_size=16;[16,20]", "model=cnn", "model.hidden=[8];[]"),
        ("start_from=null;'a b.ckpt';a/b.ckpt", "early_stopping.patience=3;null"),
        ("data.seed=7;${seed}", "seed=1;2", "trainer.max_time=00:01:00:00;null"),
        ("ablation=cnn;cnn_dropout", "model=cnn", "model.dropout=0.5;0.25"),
        ("+trainer.gradient_clip_val=1;2", "scheduler=cosine;constant"),
        ("optim={lr: 0.5};{lr: 0.25}", "optim.lr=1;2"),
        ("optim.lr=1;2", "optim={lr: 0.5};{lr: 0.25}"),
        ("data=pixel;diverse", "data.num_workers=0;2"),
        ("experiment=learning_curve;blog", "model=cnn;heatmap", "trainer.max_epochs=1;2"),
    ],
)
@pytest.mark.usefixtures("composed")
def test_settings_are_those_of_each_cell_composed_alone(swept: tuple[str, ...]) -> None:
    cells = cells_of(*swept)
    configs = Configs(MASTER, cells)
    for name, cell in cells.items():
        assert configs.settings(name) == written(cell), name


def test_one_config_is_composed_for_all_that_differ_in_values(composed: list[Any]) -> None:
    seeds = ";".join(map(str, range(100)))
    cells = cells_of("model=cnn;heatmap", "optim.lr=0.1;0.01", f"seed={seeds}")
    configs = Configs(MASTER, cells)
    configs.compose_each_kind(cells)
    settings = [configs.settings(name) for name in cells]
    assert len({(one["optim.lr"], one["seed"]) for one in settings if one}) == 200
    assert len(composed) <= 5


@pytest.mark.usefixtures("composed")
def test_what_is_finished_with_just_these_settings(tmp_path: Path) -> None:
    cells = cells_of("model=cnn", "seed=0;1;2;3;4")
    names = [*cells]
    for name, cell in cells.items():
        config = hydra.compose("train", [*words_of(cell), "name=other"])
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / runs.CONFIG).write_text(OmegaConf.to_yaml(config))
        runs.write_metrics(tmp_path / name, {"ended": "max_epochs"})
    runs.write_metrics(tmp_path / names[1], {"ended": "max_time"})
    (tmp_path / names[2] / runs.METRICS).write_text("{")
    file = tmp_path / names[3] / runs.CONFIG
    file.write_text(file.read_text().replace("train_samples: 2500", "train_samples: 250"))
    (tmp_path / names[4] / runs.CONFIG).unlink()
    assert finished(tmp_path, Configs(MASTER, cells), names) == {names[0]}


TINY = [*CPU, "model=argmax", "data.image_size=16"]


def test_a_finished_cell_is_left_alone_and_one_of_other_settings_named(
    run_command: CommandServer, tmp_path: Path
) -> None:
    words = ["--multirun", ONE_BY_ONE, *TINY, "name=p", "seed=0,1,2"]
    assert run_command("train", *words, cwd=tmp_path).code == 0
    (other,) = (tmp_path / "outputs/sweeps/p").glob("*seed=1*")
    file = other / runs.CONFIG
    file.write_text(file.read_text().replace("train_samples: 2500", "train_samples: 250"))
    again = run_command("train", *words, "trainer.max_time=00:00:01:00", cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert "2 of 3 cells are finished already" in again.stdout
    assert "Launching 1 jobs" in again.stdout
    assert f"{other} holds a run with other settings (data.train_samples is 250" in again.stdout


def test_cells_are_counted_in_little_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of a second in a folder that takes a tenth to look through."""
    clock, looked = [0.0], [0]
    glob = Path.glob

    def slow(self: Path, pattern: str) -> Any:
        clock[0] += 0.05
        looked[0] += 1
        return glob(self, pattern)

    monkeypatch.setattr(grid.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Path, "glob", slow)
    monkeypatch.setattr(grid, "_progress", {})
    names = [f"seed={seed}" for seed in range(200)]
    runs.add_to_plan(tmp_path, [], {name: {} for name in names})
    told = []
    monkeypatch.setattr(grid.log, "info", lambda _, words: told.append(words))

    for name in names:

        def train(folder: Path = tmp_path / name) -> dict[str, Any]:
            clock[0] += 1
            runs.write_metrics(folder, {})
            return {}

        grid.run_cell(tmp_path / name, train)
    assert [words.partition(" ")[0] for words in told] == [f"{k}/200" for k in range(1, 201)]
    assert "about 4 min left" in told[20]
    assert 10 < looked[0] < 50


LONG = [*CPU, "model=cnn", "model.channels=[4]", "model.hidden=[8]", "data.image_size=16"]


def test_a_grid_ends_when_its_time_is_up(run_command: CommandServer, tmp_path: Path) -> None:
    words = [
        "--multirun",
        ONE_BY_ONE,
        *LONG,
        "name=p",
        "trainer.max_epochs=100000",
        "seed=range(100)",
    ]
    ended = run_command("train", *words, "max_time=00:00:00:03", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == (
        "max_time: 100 of 100 cells are left, the same command continues"
    )
    assert "#1" not in ended.stdout, "no other was begun"
    folder = tmp_path / "outputs/sweeps/p"
    (cell,) = (path for path in folder.glob("*seed=*") if path.is_dir())
    assert read_json(cell / runs.METRICS)["ended"] == "max_time"
    assert (folder / "report.html").is_file()


def test_a_grid_that_has_the_time_says_nothing_of_it(
    run_command: CommandServer, tmp_path: Path
) -> None:
    words = ["--multirun", ONE_BY_ONE, *TINY, "name=p", "seed=0,1", "max_time=00:01:00:00"]
    ended = run_command("train", *words, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "max_time:" not in ended.stdout
    assert "2 cells finished, none open" in ended.stdout


def test_a_solved_model_has_all_its_time_in_one_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks.TimeLimit, "ran_out", True)
    assert train(compose(TINY), tmp_path / "run", "argmax")["ended"] == "max_epochs"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("max_time=00:00:01:00", "max_time is for a grid"),
        ("--multirun seed=0,1 max_time=1h", "max_time must be DD:HH:MM:SS"),
        (
            "--multirun seed=0,1 max_time=00:00:01:00 hydra/launcher=submitit_local",
            "max_time is for grids on this machine",
        ),
    ],
)
def test_a_time_that_nothing_would_keep_is_refused(
    words: str, says: str, run_command: CommandServer, tmp_path: Path
) -> None:
    if "submitit" in words:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    ended = run_command("train", *TINY, *words.split(), cwd=tmp_path)
    assert says in ended.error()
    assert not [*tmp_path.glob("outputs/*/*")]


@pytest.mark.parametrize(
    "swept",
    ["max_time=00:01:00:00,00:02:00:00", "experiment=blog,spots", "start_from=a/b.ckpt,a_b.ckpt"],
)
def test_cells_that_would_share_a_folder_are_refused(
    swept: str, run_command: CommandServer, tmp_path: Path
) -> None:
    ended = run_command("train", "--multirun", *TINY, "seed=0,1,1", swept, cwd=tmp_path)
    key = swept.partition("=")[0]
    assert f"cells that differ in {key} alone would have the same folder" in ended.error()
    assert not [*tmp_path.glob("outputs/*/*")]


def test_a_folder_that_is_deleted_meanwhile_fails_its_cell(
    run_command: CommandServer, tmp_path: Path
) -> None:
    """TensorBoard's writer raises one error again and again, which then comes from itself."""
    words = ["--multirun", ONE_BY_ONE, *LONG, "name=p", "trainer.max_epochs=3000,1"]
    folder = tmp_path / "outputs/sweeps/p"
    begun = run_command.begin("train", *words, cwd=tmp_path)
    begun.wait_for(lambda: [*folder.glob("*/checkpoints/last.ckpt")] != [])
    (cell,) = folder.glob("*/")
    shutil.rmtree(cell, ignore_errors=True)
    ended = begun.finish()
    assert ended.error() == "1 cells failed"
    assert "1 of 2 cells finished, 1 failed" in ended.stdout
    assert "No such file or directory" in runs.failures(folder)[cell.name]


def test_a_full_disk_ends_the_grid_and_fails_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> dict[str, Any]:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "best.ckpt")
        except OSError as error:
            raise RuntimeError("could not save") from error

    monkeypatch.setattr(grid, "_progress", {})
    with pytest.raises(UserError) as caught:
        grid.run_cell(tmp_path / "seed=0", train)
    told = "best.ckpt: No space left on device: make room, the same command continues"
    assert str(caught.value) == told
    assert [*tmp_path.iterdir()] == []
