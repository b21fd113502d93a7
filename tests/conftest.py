"""What the tests share: tiny configs, a tiny trained run, and commands that start fast."""

import copy
import functools
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
import pytest
import torch
from hypothesis import settings
from omegaconf import DictConfig, OmegaConf
from torchvision.models import resnet18

from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.coordinates import Columns, as_columns
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.models.base import PointRegressor, class_name
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.train import train

ROOT = Path(__file__).parents[1]

settings.register_profile("tests", deadline=None, max_examples=40, database=None)
settings.load_profile("tests")

CPU = ["trainer=cpu", "trainer.enable_progress_bar=false", "trainer.precision=32-true"]
"""The same on every processor: `training/test_precision.py` has what chooses by it."""
TINY = [
    *CPU,
    "model=cnn",
    "trainer.max_epochs=2",
    "data.image_size=16",
    "data.train_samples=64",
    "data.batch_size=16",
    "model.channels=[4,8]",
    "model.hidden=[16]",
    "optim.lr=0.01",
]
"""A run of half a second."""

ONE_BY_ONE = "hydra/launcher=basic"
"""Of a grid: the processes for cells side by side would take seconds to start."""

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def compose(overrides: Sequence[str] = (), command: str = "train") -> DictConfig:
    """Compose a command's config as its command line would."""
    return copy.deepcopy(_compose(tuple(overrides), command))


@functools.cache  # a composition takes Hydra a third of a second
def _compose(overrides: tuple[str, ...], command: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose(command, list(overrides))


def choices(group: str) -> list[str]:
    """List the choices of a config group."""
    return sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml"))


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Pick what must be the same for the same run: everything but times and machines."""
    return {
        key: value
        for key, value in metrics.items()
        if key.startswith(("val/", "test/")) or key in ("epochs", "parameters", "lr", "seed")
    }


def predicted(xy_px: torch.Tensor, true_px: torch.Tensor, **more: torch.Tensor) -> Columns:
    """Name predictions (N, 2) and truths (N, 2), and what else there is of them."""
    return {**as_columns(xy_px), "x_true": true_px[:, 0], "y_true": true_px[:, 1], **more}


def read_json(path: Path) -> dict[str, Any]:
    """Read strictly valid JSON: Python's reader would let NaN and Infinity pass."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{path} holds {constant}, which is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every test out of the checkout, the user's caches and the network."""

    def no_network(*args: Any, **kwargs: Any) -> NoReturn:
        raise urllib.error.URLError("no network in tests")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))
        # One thread here and in what is started from here: the same figures, to the last bit.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(torch.hub, "urlopen", no_network)
        patch.setattr("urllib.request.urlopen", no_network)
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a tiny run's time, but in shared runs and where it matters."""
    if "pictures" not in request.keywords:
        monkeypatch.setattr("pixel_spotter.training.measure.run_pictures", lambda *_: {})


@pytest.fixture(scope="session")
def fake_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict in torchvision's ResNet18 layout, not trained on anything."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(7)
    torch.save(resnet18().state_dict(), path)
    return path


@dataclass(frozen=True)
class ModelFiles:
    """The files that some models are made of."""

    weights: Path
    folder: Path

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose the config of a run, naming such files where it needs some."""
        cfg = compose(overrides)
        needed = []
        if "model.estimator" in OmegaConf.missing_keys(cfg):
            needed.append("model.estimator=centroid")
        if OmegaConf.select(cfg, "model.weights") is not None:
            needed.append(f"model.weights={self.weights}")
        if OmegaConf.select(cfg, "model.member.weights") is not None:
            needed.append(f"model.member.weights={self.weights}")
        if "model.checkpoints" in OmegaConf.missing_keys(cfg):
            size = OmegaConf.to_container(cfg.data)["image_size"]  # type: ignore[index, call-overload]
            paths = [str(self.folder / f"{size}_{seed}.ckpt") for seed in (0, 1)]
            for path in paths:
                member = CNNRegressor(size, channels=[4], hidden=[8])
                save_checkpoint(Path(path), member, size)
            needed.append(f"model.checkpoints={paths}")
        if "model.checkpoint" in OmegaConf.missing_keys(cfg):
            size = OmegaConf.to_container(cfg.data)["image_size"]  # type: ignore[index, call-overload]
            path = self.folder / f"{size}_0.ckpt"
            save_checkpoint(path, CNNRegressor(size, channels=[4], hidden=[8]), size)
            needed.append(f"model.checkpoint='{path}'")
        return compose([*overrides, *needed]) if needed else cfg


def save_checkpoint(path: Path, model: PointRegressor, image_size: Any, seed: int = 0) -> None:
    """Save a checkpoint as the Trainer would, without having trained."""
    data = PixelDataModule(image_size=image_size, seed=seed)
    torch.save(
        {
            "model_class": class_name(type(model)),
            "data_class": class_name(type(data)),
            "hyper_parameters": dict(model.hparams),
            "state_dict": model.state_dict(),
            "datamodule_hyper_parameters": dict(data.hparams),
        },
        path,
    )


@pytest.fixture(scope="session")
def model_files(fake_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return ModelFiles(fake_weights, tmp_path_factory.mktemp("model_files"))


@dataclass(frozen=True)
class Run:
    """A run folder with what made it."""

    folder: Path
    cfg: DictConfig
    metrics: dict[str, Any]

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints/best.ckpt"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints/last.ckpt"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run. Not to be written to: copy it first."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    cfg = compose(TINY)
    return Run(folder, cfg, train(cfg, folder, "cnn"))


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    def error(self) -> str:
        """Return the one line in which the command ended, having checked that it is one."""
        assert self.code != 0, f"the command succeeded:\n{self.stdout}"
        assert "Traceback" not in self.stdout + self.stderr, self.stderr
        lines = self.stderr.strip().splitlines()
        assert lines, "nothing on stderr"
        assert lines[-1].startswith("error: "), self.stderr
        assert sum(line.startswith("error: ") for line in lines) == 1, self.stderr
        return lines[-1].removeprefix("error: ")


class CommandServer:
    """Runs commands in forks of one process that has imported everything."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.begun = 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("command_server.py"))],
            env=os.environ | {"PYTHONPATH": str(ROOT)},  # and not what is installed
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command: str, *arguments: str, **options: Any) -> Finished:
        """Run ``python -m pixel_spotter.COMMAND ARGUMENTS``; for the options, see `begin`."""
        return self.begin(command, *arguments, **options).finish()

    def begin(
        self,
        command: str,
        *arguments: str,
        cwd: Path | None = None,
        fsize: int | None = None,
        pictures: bool = False,
        without: Sequence[str] = (),
        clock_jumps: bool = False,
    ) -> "Begun":
        """Start a command, in a process group of its own.

        Args:
            command: train, evaluate, predict, locate, demo, export or report.
            arguments: its command line.
            cwd: where to run it.
            fsize: bytes after which no file may grow, as on a full disk.
            pictures: whether tested models are drawn, which takes most of a tiny run's time.
            without: environment variables that it does not get.
            clock_jumps: whether the time of day is another, by up to ten years, whenever asked.
        """
        self.begun += 1
        streams = {name: f"{self.scratch}/{name}{self.begun}" for name in ("stdout", "stderr")}
        for stream in streams.values():
            Path(stream).touch()  # may be read before the command has begun
        job = {
            "command": command,
            "arguments": arguments,
            "cwd": str(cwd or self.scratch),
            "fsize": fsize,
            "pictures": pictures,
            "without": without,
            "clock_jumps": clock_jumps,
            **streams,
        }
        return Begun(self, self.ask(job), *map(Path, streams.values()))

    def ask(self, job: Any) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@dataclass(frozen=True)
class Begun:
    """A command that a server has started; it is to be finished, or killed."""

    server: CommandServer
    pid: int
    stdout: Path
    stderr: Path

    def finish(self) -> Finished:
        code = self.server.ask(self.pid)
        return Finished(code, self.stdout.read_text(), self.stderr.read_text())

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        """Wait until something is so."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, self.stderr.read_text()
            time.sleep(0.01)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.killpg(self.pid, number)


@pytest.fixture(scope="session")
def run_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    server = CommandServer(tmp_path_factory.mktemp("commands"))
    yield server
    assert server.process.stdin
    server.process.stdin.close()
    server.process.wait(timeout=60)


def start(command: str, *arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a command as its user does, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"pixel_spotter.{command}", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 200) -> Finished:
    """Wait for a started command."""
    stdout, stderr = process.communicate(timeout=timeout_s)
    return Finished(process.returncode, stdout, stderr)


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 9)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
