"""How many cells run at once, and where: on machines that are made up, and on this one."""

import math
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import hydra
import joblib
import pytest
import torch
from conftest import TINY, compose, finish, start
from omegaconf import DictConfig, OmegaConf, open_dict

from pixel_spotter.cli import placement
from pixel_spotter.cli.family import trainings
from pixel_spotter.cli.grid import AroundGrid
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.cli.placement import free_memory, place, take_gpu
from pixel_spotter.errors import UserError
from pixel_spotter.train import _is_watched

GIB = 2**30


class Machine:
    """A machine that is made up, and grids that are placed on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.asked = 0
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        self.has(cores=8, memory_gib=math.inf, gpus_gib=[])

    def has(
        self,
        cores: int | None = None,
        memory_gib: float | None = None,
        gpus_gib: Sequence[float] | None = None,
    ) -> None:
        if cores is not None:
            self.patch.setattr(placement, "cpu_count", lambda: cores)
        if memory_gib is not None:
            self.patch.setattr(placement, "free_memory", lambda: memory_gib * GIB)
        if gpus_gib is not None:
            told = " ".join(str(int(free * GIB)) for free in gpus_gib)
            self.patch.setattr(torch.cuda, "device_count", lambda: len(gpus_gib))
            self.patch.setattr(subprocess, "run", lambda *_, **__: self.ask(told))

    def ask(self, told: str) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(stdout=told)

    def place(self, *words: str, n_jobs: int = -1, cells: int = 100) -> tuple[int, tuple[str, ...]]:
        """Return how many cells run at once, and on which GPUs."""
        config = grid(n_jobs)
        gpus = place(config, [compose(words)], lambda enough: min(enough, cells))
        if config.hydra.launcher._target_.endswith("BasicLauncher"):
            return 1, gpus
        return config.hydra.launcher.n_jobs, gpus


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def grid(n_jobs: int = -1) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        words = [f"hydra.launcher.n_jobs={n_jobs}"]
        return hydra.compose("train", words, return_hydra_config=True)


@pytest.mark.parametrize(
    ("cores", "memory_gib", "threads", "cells", "at_once", "told"),
    [
        (8, math.inf, None, 100, 8, "8 cells at once with 1 thread each (8 cores)"),
        (8, math.inf, None, 3, 3, "3 cells at once with 2 threads each (all)"),
        (8, math.inf, "2", 100, 4, "4 cells at once with 2 threads each (8 cores)"),
        (8, math.inf, "16", 100, 1, "one cell after another (8 cores)"),
        (8, 4.6, None, 100, 3, "3 cells at once with 2 threads each (4.6 GiB of memory free)"),
        (8, math.inf, None, 1, 1, "one cell after another (no other can run meanwhile)"),
        (8, 0.1, None, 100, 1, "one cell after another (0.1 GiB of memory free)"),
        (1, math.inf, None, 100, 1, "one cell after another (1 cores)"),
    ],
)
def test_as_many_as_cores_and_memory_hold(
    cores: int,
    memory_gib: float,
    threads: str | None,
    cells: int,
    at_once: int,
    told: str,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine.has(cores, memory_gib)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with caplog.at_level("INFO"):
        assert machine.place(cells=cells) == (at_once, ())
    assert caplog.messages == [told]


@pytest.mark.parametrize(("n_jobs", "at_once"), [(3, 3), (1, 1), (12, 12), (-2, 7), (-99, 1)])
def test_what_the_user_says_wins(n_jobs: int, at_once: int, machine: Machine) -> None:
    machine.has(memory_gib=7)  # enough for 12, if they are small
    if n_jobs < 0:
        machine.has(memory_gib=100)
    assert machine.place(n_jobs=n_jobs) == (at_once, ())


def test_more_than_memory_holds_is_refused(machine: Machine) -> None:
    machine.has(memory_gib=5)
    with pytest.raises(UserError, match=r"n_jobs=11: .* at least 5.5 GiB, 5.0 GiB .*; 3 fit"):
        machine.place(n_jobs=11)
    assert machine.place(n_jobs=11, cells=2) == (2, ()), "no more are run"


def test_no_cells_at_once_are_refused(machine: Machine) -> None:
    with pytest.raises(UserError, match="n_jobs must be at least 1, or -1"):
        machine.place(n_jobs=0)


def test_cells_with_processes_of_their_own(machine: Machine) -> None:
    assert machine.place("data.num_workers=2") == (1, ())
    assert machine.place("data.num_workers=2", n_jobs=1) == (1, ())
    with pytest.raises(UserError, match="cannot have processes of their own"):
        machine.place("data.num_workers=2", n_jobs=2)


def test_other_launchers_are_left_alone(machine: Machine) -> None:
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "a.SlurmLauncher"}}})
    before = config.copy()
    assert place(config, [compose()], lambda enough: enough) == ()
    assert config == before


@pytest.mark.parametrize("where", ["command line", "experiment"])
def test_one_after_another_where_it_is_said(where: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    own = "# @package _global_\ndefaults:\n  - override /hydra/launcher: basic\n"
    (tmp_path / "experiment/own.yaml").write_text(own)
    words = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=own"]
    words = words if where == "experiment" else ["hydra/launcher=basic"]
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = hydra.compose("train", words, return_hydra_config=True)
    assert config.hydra.launcher._target_.endswith("BasicLauncher")


@pytest.mark.parametrize(
    ("gpus_gib", "visible", "words", "placed"),
    [
        ([79, 79], None, [], (8, ("0", "1"))),
        ([79, 79], "5,GPU-7", [], (8, ("5", "GPU-7"))),
        ([4.5, 6], None, [], (4, ("0", "1"))),
        ([0.5, 6], None, [], (3, ("1",))),
        ([0.5, 0.5], None, [], (1, ())),
        ([79, 6], None, ["trainer.devices=[1]"], (3, ())),
        ([79], None, ["trainer=gpu"], (8, ("0",))),
    ],
)
def test_cells_share_the_gpus(
    gpus_gib: list[float],
    visible: str | None,
    words: list[str],
    placed: tuple[int, tuple[str, ...]],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine.has(gpus_gib=gpus_gib)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.place(*words) == placed


def test_gpus_are_not_looked_at_where_none_is_used(machine: Machine) -> None:
    machine.has(gpus_gib=[1])
    assert machine.place("trainer=cpu") == (8, ())
    machine.has(gpus_gib=[])
    assert machine.place() == (8, ())
    assert machine.asked == 0


def test_processes_take_turns_at_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of a grid's, which has what was pickled of the callback."""
    here = AroundGrid()
    here.gpus = ("5", "GPU-7")
    there = pickle.loads(pickle.dumps(here))
    used = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    for name in ("LokyProcess-1", "LokyProcess-2", "LokyProcess-13"):
        monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
        there.on_job_start(DictConfig({}))
        used.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert used == ["GPU-7", "5", "GPU-7"]
    take_gpu(())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-7", "as it was"


def test_joblibs_processes_are_numbered() -> None:
    """Which is what they take turns by."""
    asked = "__import__('time').sleep(0.3) or __import__('multiprocessing').current_process().name"
    names = joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(eval)(asked) for _ in range(4))
    numbers = {int(name.removeprefix("LokyProcess-")) % 2 for name in names}
    assert numbers == {0, 1}


def test_what_is_asked_of_gpus_is_python() -> None:
    asked = [sys.executable, "-c", placement._ASK_GPUS]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert len(told.split()) == torch.cuda.device_count()


@pytest.mark.parametrize("kind", ["v2", "v1", "container"])
def test_the_memory_of_a_control_group(kind: str, tmp_path: Path) -> None:
    assert free_memory(tmp_path) == math.inf, "nothing tells it"
    write(tmp_path / "proc/meminfo", "MemTotal: 99 kB\nMemAvailable:   8388608 kB\n")
    assert free_memory(tmp_path) == 8 * GIB
    unlimited, limited = tmp_path / "sys/fs/cgroup/job/step", tmp_path / "sys/fs/cgroup/job"
    names, path = ("max", "current"), "0::/job/step"
    if kind == "v1":
        names, path = ("limit_in_bytes", "usage_in_bytes"), "7:cpu:/x\n4:memory:/job/step\n0::/"
        unlimited = tmp_path / "sys/fs/cgroup/memory/job/step"
        limited = unlimited.parent
    if kind == "container":  # whose group is the topmost that it sees
        path, limited = "0::/somewhere/outside", tmp_path / "sys/fs/cgroup"
    write(tmp_path / "proc/self/cgroup", f"{path}\n")
    write(unlimited / f"memory.{names[0]}", "max\n")
    write(unlimited / f"memory.{names[1]}", f"{GIB}\n")
    assert free_memory(tmp_path) == 8 * GIB
    write(limited / f"memory.{names[0]}", f"{4 * GIB}\n")
    write(limited / f"memory.{names[1]}", f"{3 * GIB}\n")
    assert free_memory(tmp_path) == GIB
    write(limited / "memory.stat", f"anon 7\ninactive_file {GIB // 2}\n")
    assert free_memory(tmp_path) == 1.5 * GIB, "files that are cached make room"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("scheduler", "enough", "count"), [("constant", 9, 3), ("cosine", 9, 5), ("constant", 2, 2)]
)
def test_cells_that_wait_for_one_another_are_one(scheduler: str, enough: int, count: int) -> None:
    few = {"optim.lr": "0.1", "scheduler": scheduler, "trainer.enable_progress_bar": "false"}
    cells = {f"{n}": few | {"trainer.max_epochs": str(n)} for n in (1, 2, 3)}
    cells |= {f"a{n}": few | {"optim.lr": str(n)} for n in (1, 2)}

    def config_of(name: str) -> DictConfig:
        config = compose([f"{key}={value}" for key, value in cells[name].items()])
        with open_dict(config):
            config.hydra = {"needs": "${hydra.what_is_not_there}"}
        return config

    assert trainings(cells, config_of, enough) == count


def test_no_progress_bars_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert _is_watched(cfg)
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    assert not _is_watched(cfg)


DEADLY = """
import os, signal
from pathlib import Path
from pixel_spotter.models.cnn import CNNRegressor
class Deadly(CNNRegressor):
    def __init__(self, image_size, channels):
        super().__init__(image_size, channels=channels, hidden=[8])
        self.save_hyperparameters()
        if Path("deadly").exists():
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow  # each of joblib's processes imports everything
def test_a_cell_that_takes_its_process_along(tmp_path: Path) -> None:
    """As the kernel does where memory is short: the same command has the others, then all."""
    write(tmp_path / "mine.py", DEADLY)
    model = "_target_: mine.Deadly\nimage_size: ${data.image_size}\nchannels: [4]\n"
    write(tmp_path / "own/model/deadly.yaml", model)
    write(tmp_path / "deadly", "")
    small = [word for word in TINY if not word.startswith("model")]
    words = ["--multirun", "--config-dir", "own", "name=p", "model=argmax,cnn,centroid,deadly"]
    asked = [*words, "trust=[mine]", "hydra.launcher.n_jobs=2", *small]
    small = [word for word in asked if not word.startswith(("optim", "trainer.max_epochs"))]
    ended = finish(start("train", *small, cwd=tmp_path))
    assert "the same command continues; hydra.launcher.n_jobs=1 takes less" in ended.error()
    (tmp_path / "deadly").unlink()
    ended = finish(start("train", *small, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    assert "4 cells finished, none open" in ended.stdout
