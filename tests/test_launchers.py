"""Hydra's plugins that the documents name: Optuna's sweeper and submitit's launcher."""

import json
import re
from pathlib import Path

import pytest
import yaml
from conftest import CPU, CommandServer, compose, figures, finish, start
from hydra.errors import MissingConfigException

from pixel_spotter import runs
from pixel_spotter.cli.mistakes import user_message

TINY_CNN = [
    *CPU,
    "trainer.max_epochs=1",
    "data.image_size=16",
    "data.train_samples=32",
    "data.batch_size=16",
    "model.hidden=[8]",
]


def cells(folder: Path) -> dict[str, dict[str, float]]:
    return {
        path.parent.name: runs.read_metrics(path.parent) for path in folder.glob("*/metrics.json")
    }


class TestOptuna:
    TRIALS = 3

    @pytest.fixture(scope="class", autouse=True)
    def installed(self) -> None:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

    def test_it_tries_ten_times_on_the_cnn(self) -> None:
        cfg = compose(["experiment=optuna", "hydra.sweeper.n_jobs=1"])
        assert cfg.model._target_.endswith("CNNRegressor")
        written = yaml.safe_load(
            (Path(__file__).parents[1] / "conf/experiment/optuna.yaml").read_text()
        )
        assert written["hydra"]["sweeper"]["n_trials"] == 10
        assert written["hydra"]["sweeper"]["direction"] == "minimize"
        assert {*written["hydra"]["sweeper"]["params"]} == {"optim.lr", "model.channels"}

    def test_trials_and_the_best_of_them(self, run_command: CommandServer, tmp_path: Path) -> None:
        folder = self.search(run_command, tmp_path)
        found = cells(folder)
        assert len(found) == self.TRIALS
        assert len({metrics["lr"] for metrics in found.values()}) == self.TRIALS
        result = yaml.safe_load((folder / "optimization_results.yaml").read_text())
        best = min(found.values(), key=lambda metrics: metrics["val/mean_error_px"])
        assert result["best_value"] == best["val/mean_error_px"]
        assert result["best_params"]["optim.lr"] == best["lr"]

    @pytest.mark.slow
    def test_the_same_command_continues(self, run_command: CommandServer, tmp_path: Path) -> None:
        folder = self.search(run_command, tmp_path)
        found = cells(folder)
        gone = next(iter(found))
        (folder / gone / "metrics.json").unlink()
        self.search(run_command, tmp_path)
        assert [figures(cells(folder)[name]) for name in found] == [*map(figures, found.values())]

    def search(self, run_command: CommandServer, where: Path) -> Path:
        few = f"hydra.sweeper.n_trials={self.TRIALS}"
        ended = run_command("train", "experiment=optuna", few, *TINY_CNN, cwd=where)
        assert ended.code == 0, ended.stderr
        assert f"{self.TRIALS} cells finished, none open" in ended.stdout
        told = re.findall(r" (\d+ done.*)", ended.stdout)
        assert len(told) == self.TRIALS
        assert told[-1] == f"{self.TRIALS} done"
        return where / "outputs/sweeps/optuna"

    def test_a_failed_trial_is_the_worst(self, run_command: CommandServer, tmp_path: Path) -> None:
        """Four poolings are too many for 8 px."""
        words = [*TINY_CNN, "data.image_size=8", "hydra.sweeper.n_trials=3"]
        space = "hydra.sweeper.params={model.channels: 'choice([4],[4,4,4,4])'}"
        ended = run_command("train", "experiment=optuna", space, *words, cwd=tmp_path)
        folder = tmp_path / "outputs/sweeps/optuna"
        assert "need an image of at least 16 px" in ended.stdout + ended.stderr
        assert [*folder.glob("*/failure.txt")]
        result = yaml.safe_load((folder / "optimization_results.yaml").read_text())
        assert result["best_params"]["model.channels"] == "[4]"


@pytest.mark.parametrize("plugin", ["sweeper/optuna", "launcher/submitit_slurm"])
def test_an_extra_that_is_not_installed(plugin: str) -> None:
    error = MissingConfigException(
        f"In 'hydra/config': Could not find 'hydra/{plugin}'\n\nAvailable"
    )
    extra = plugin.partition("/")[2].partition("_")[0]
    message = user_message(error)
    assert message == f"{extra} is not installed: pip install 'pixel-spotter[{extra}]'"
    other = MissingConfigException("In 'train': Could not find 'model/optuna'")
    assert user_message(other) == "In 'train': Could not find 'model/optuna'"


@pytest.mark.slow  # submitit starts a process for each cell, and polls them by seconds
def test_submitit(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    grid = ["--multirun", "name=jobs", "hydra/launcher=submitit_local", "model=argmax", "seed=0,1"]
    ended = finish(start("train", *grid, *CPU, "data.image_size=16", cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    folder = tmp_path / "outputs/sweeps/jobs"
    found = cells(folder)
    assert {metrics["seed"] for metrics in found.values()} == {0, 1}
    assert {*json.loads((folder / "plan.json").read_text())["cells"]} == {*found}
    assert "2 cells finished, none open" in ended.stdout
    assert (folder / "report.html").is_file()
    assert [*(folder / ".submitit").iterdir()]


def test_a_job_without_a_result() -> None:
    errors = pytest.importorskip("submitit.core.utils")
    for kind in (errors.UncompletedJobError, errors.FailedJobError):
        message = user_message(kind("Job 7 has not produced any output\nError stream:\n..."))
        assert message
        assert "the same command continues" in message
