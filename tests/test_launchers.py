"""Hydra's plugins that the documents name: Optuna's sweeper and submitit's launcher."""

import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
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

    def test_several_commands_share_a_study(self, tmp_path: Path) -> None:
        optuna = pytest.importorskip("optuna")
        storage = f"sqlite:///{tmp_path}/shared.db"
        optuna.create_study(study_name="shared", storage=storage)
        shared = [f"hydra.sweeper.storage={storage}", "hydra.sweeper.study_name=shared"]
        command = ["train", "experiment=optuna", "hydra.sweeper.n_trials=2", *shared, *TINY_CNN]
        several = [
            start(*command, f"hydra.sweeper.sampler.seed={seed}", cwd=tmp_path) for seed in (0, 1)
        ]
        for process in several:
            ended = finish(process)
            assert ended.code == 0, ended.stderr
        study = optuna.load_study(study_name="shared", storage=storage)
        found = cells(tmp_path / "outputs/sweeps/optuna")
        values = sorted(metrics["val/mean_error_px"] for metrics in found.values())
        assert sorted(trial.value for trial in study.trials) == values
        assert len(values) == 4

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["n_trials=0"], "hydra.sweeper.n_trials must be at least 1"),
            (["direction=up"], "hydra.sweeper.direction must be minimize"),
            (["storage=shared.db", "study_name=s"], "hydra.sweeper.storage is no address"),
            (["storage=sqlite:///no/s.db", "study_name=s"], "unable to open database file"),
        ],
    )
    def test_what_cannot_be_searched_is_told(
        self, words: list[str], says: str, run_command: CommandServer, tmp_path: Path
    ) -> None:
        asked = [f"hydra.sweeper.{word}" for word in words]
        ended = run_command("train", "experiment=optuna", *asked, *TINY_CNN, cwd=tmp_path)
        assert says in ended.error()

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


@pytest.mark.parametrize("plugin", ["sweeper/optuna", "launcher/submitit_slurm", "launcher/ray"])
def test_an_extra_that_is_not_installed(plugin: str) -> None:
    error = MissingConfigException(
        f"In 'hydra/config': Could not find 'hydra/{plugin}'\n\nAvailable"
    )
    extra = plugin.partition("/")[2].partition("_")[0]
    message = user_message(error)
    assert message == f"{extra} is not installed: pip install 'pixel-spotter[{extra}]'"
    other = MissingConfigException("In 'train': Could not find 'model/optuna'")
    assert user_message(other) == "In 'train': Could not find 'model/optuna'"


SUBMITIT = ["--multirun", "name=jobs", "hydra/launcher=submitit_local"]


@pytest.mark.slow  # submitit starts a process for each cell, and polls them by seconds
def test_submitit(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    grid = [*SUBMITIT, "model=argmax", "seed=0,1", *CPU, "data.image_size=16"]
    ended = finish(start("train", *grid, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    folder = tmp_path / "outputs/sweeps/jobs"
    found = cells(folder)
    assert {metrics["seed"] for metrics in found.values()} == {0, 1}
    assert {*json.loads((folder / "plan.json").read_text())["cells"]} == {*found}
    assert "2 cells finished, none open" in ended.stdout
    assert (folder / "report.html").is_file()
    jobs = {*(folder / ".submitit").iterdir()}
    assert jobs
    again = finish(start("train", *grid, cwd=tmp_path))
    assert again.code == 0, again.stderr
    assert "2 cells finished, none open" in again.stdout
    assert {*(folder / ".submitit").iterdir()} == jobs, "what is finished is no job"


@pytest.mark.slow
def test_a_lost_job_harms_no_other_and_the_same_command_continues(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    small = [word for word in TINY_CNN if "max_epochs" not in word]
    grid = [*SUBMITIT, "model=cnn", *small, "trainer.max_epochs=500", "seed=0,1"]
    process, folder = start("train", *grid, cwd=tmp_path), tmp_path / "outputs/sweeps/jobs"
    while process.poll() is None and not (job := job_of(folder, "seed=0")):
        time.sleep(0.1)
    assert job, finish(process).stderr
    os.kill(job, signal.SIGKILL)
    ended = finish(process)
    assert "the others go on, the same command continues" in ended.error()
    again = finish(start("train", *grid, cwd=tmp_path))  # which leaves the other its job
    assert again.code == 0, again.stderr
    logs = "".join(path.read_text() for path in folder.glob("*/train.log"))
    assert logs.count(" training cnn in ") + logs.count(" continuing cnn in ") == 3
    end = time.monotonic() + 60
    while len(cells(folder)) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert {metrics["epochs"] for metrics in cells(folder).values()} == {500}


def job_of(folder: Path, cell: str) -> int:
    """Return the process that trains a cell and has kept an epoch of it, or 0."""
    for lock in folder.glob(f"*{cell}*/.lock"):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                links = [str(link.readlink()) for link in (process / "fd").iterdir()]
                if str(lock.resolve()) in links and (lock.parent / runs.LAST).is_file():
                    return int(process.name)
    return 0


SLURM = [
    *("--multirun", *CPU, "model=argmax", "seed=0,1", "hydra/launcher=submitit_slurm"),
    *("hydra.launcher.timeout_min=120", "hydra.launcher.cpus_per_task=2"),
    "hydra.launcher.partition=short",
]


def test_slurm_that_is_not_there(run_command: CommandServer, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    if shutil.which("srun"):
        pytest.skip("it is there")
    ended = run_command("train", *SLURM, "name=here", cwd=tmp_path)
    assert "there is no Slurm on this machine" in ended.error()


@pytest.mark.slow  # imports everything
def test_what_slurm_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an sbatch that keeps what it gets and refuses it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    for name, does in (("srun", ""), ("sbatch", f"cp $1 {tmp_path}/asked")):
        (tmp_path / name).write_text(
            f"#!/bin/sh\n{does}\necho '{name}: error: invalid partition' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    ended = finish(start("train", *SLURM, "name=here", cwd=tmp_path))
    assert ended.error() == "Slurm took no jobs: invalid partition"
    asked = (tmp_path / "asked").read_text()
    for word in ("--time=120", "--cpus-per-task=2", "--partition=short", "--array=0-1"):
        assert f"#SBATCH {word}" in asked


def test_max_time_is_refused_where_jobs_have_their_own(
    run_command: CommandServer, tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    grid = [*SUBMITIT, *CPU, "model=argmax", "seed=0,1", "max_time=00:01:00:00"]
    assert "hydra.launcher has one" in run_command("train", *grid, cwd=tmp_path).error()
    assert not (tmp_path / "outputs").exists()


def test_a_job_that_says_what_is_wrong() -> None:
    """As one does on a full disk: its last lines are in what submitit raises."""
    errors = pytest.importorskip("submitit.core.utils")
    said = "Job 7 has not produced any output\nError stream:\nerror: best.ckpt: No space left"
    message = user_message(errors.UncompletedJobError(f"{said}: make room\n\n"))
    assert message == "best.ckpt: No space left: make room"


@pytest.mark.slow  # Ray starts a server, and a process for each cell
def test_ray(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    two = ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "name=rays"]
    grid = ["--multirun", *two, "model=argmax", "seed=0,1", *CPU, "data.image_size=16"]
    ended = finish(start("train", *grid, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    found = cells(tmp_path / "outputs/sweeps/rays")
    assert {metrics["seed"] for metrics in found.values()} == {0, 1}
    assert "2 cells finished, none open" in ended.stdout


def test_a_job_without_a_result() -> None:
    errors = pytest.importorskip("submitit.core.utils")
    for kind in (errors.UncompletedJobError, errors.FailedJobError):
        message = user_message(kind("Job 7 has not produced any output\nError stream:\n..."))
        assert message
        assert "the same command continues" in message
