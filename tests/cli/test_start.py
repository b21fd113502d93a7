from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, CommandServer, Run, finish, read_json, start
from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from pixel_spotter.cli.start import CONF_DIR, pick_device, user_message
from pixel_spotter.errors import UserError

MISTAKES = [
    ("train", "model=transformer", "model/transformer"),
    ("train", "colour=red", "colour"),
    ("train", "data.colour=red", "colour"),
    ("train", "model.depth=3", "depth"),
    ("train", "+model.depth=3", "depth"),
    ("train", "model", "model"),
    ("train", "model.channels=[4,", "[4,"),
    ("train", "optim.lr=-1", "learning rate"),
    ("train", "optim.lr=fast", "optim"),
    ("train", "optim.lr=null", "optim"),
    ("train", "optim.lr=nan", "learning rate"),
    ("train", "data.test_fraction=0.95", "no position for train"),
    ("train", "data.val_fraction=2", "data.val_fraction"),
    ("train", "data.val_fraction=many", "data"),
    ("train", "data.image_size=2", "data.image_size"),
    ("train", "data.image_size=[16,16,3]", "image_size"),
    ("train", "data.image_size=16.5", "image_size"),
    ("train", "data.image_size=null", "image_size"),
    ("train", "data.split=random", "data.split"),
    ("train", "data.batch_size=0", "data.batch_size"),
    ("train", "data.num_workers=-1", "data.num_workers"),
    ("train", "model.channels=8", "model"),
    ("train", "model.channels=[4.5]", "channels"),
    ("train", "model.hidden=[wide]", "model"),
    ("train", "model.dropout=1.5", "model.dropout"),
    ("train", "model.dropout=high", "model"),
    ("train", "seed=abc", "seed"),
    ("train", "seed=-1", "seed"),
    ("train", "seed=null", "seed"),
    ("train", "trainer.max_epochs=0", "trainer.max_epochs"),
    ("train", "trainer.max_epochs=2.5", "trainer.max_epochs"),
    ("train", "trainer.precision=bf16-true", "bf16-mixed"),
    ("train", "trainer.precision=7", "precision"),
    ("train", "trainer.precision=64-true", "precision"),
    ("train", "trainer.accelerator=abacus", "abacus"),
    ("train", "trainer.devices=0", "devices"),
    ("train", "early_stopping.patience=long", "patience"),
    ("train", "scheduler.T_max=0", "scheduler"),
    ("train", "model=resnet18_scratch model.channels=null ~model.hidden", "channels"),
    ("evaluate", "", "checkpoint is missing"),
    ("evaluate", "checkpoint=missing.ckpt", "there is no file missing.ckpt"),
    ("evaluate", "checkpoint=.", "there is no file ."),
    ("evaluate", "checkpoint=BEST data.split=random", "data.split"),
    ("evaluate", "checkpoint=BEST data.val_fraction=3", "data.val_fraction"),
    ("evaluate", "checkpoint=BEST data.batch_size=0", "data.batch_size"),
    ("evaluate", "checkpoint=BEST data.image_size=20", "image_size"),
    ("predict", "", "missing"),
    ("predict", "checkpoint=missing.ckpt images=image.png", "there is no file missing.ckpt"),
]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")


def arguments(command: str, mistake: str, run: Run) -> list[str]:
    given = [str(word).replace("BEST", str(run.best)) for word in mistake.split()]
    if command == "train":
        chosen = {word.partition("=")[0] for word in given}
        tiny = [word for word in TINY if word.partition("=")[0] not in chosen]
        if "model" in chosen:
            tiny = [word for word in tiny if not word.startswith("model.")]
        given = [*tiny, *given]
    return given


@pytest.mark.parametrize(("command", "mistake", "says"), MISTAKES)
def test_a_mistake_ends_in_one_line(
    command: str, mistake: str, says: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(tmp_path / "image.png")
    ended = run_command(command, *arguments(command, mistake, tiny_run), cwd=tmp_path)
    message = ended.error()
    assert says in message
    assert len(message) < 600
    assert not list(tmp_path.rglob("metrics.json"))


@NO_GPU
@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("train", "trainer=gpu"),
        ("evaluate", "checkpoint=BEST trainer=gpu"),
        ("predict", "checkpoint=BEST images=image.png device=cuda"),
    ],
)
def test_a_gpu_that_is_not_there(
    command: str, mistake: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save(tmp_path / "image.png")
    ended = run_command(command, *arguments(command, mistake, tiny_run), cwd=tmp_path)
    message = ended.error().lower()
    assert "gpu" in message or "cuda" in message


def test_a_mistake_as_its_user_meets_it(tmp_path: Path) -> None:
    """In a process of its own: the server above must not be what makes the line."""
    ended = finish(start("train", *TINY, "optim.lr=-1", cwd=tmp_path))
    assert ended.error() == "optim or scheduler: Invalid learning rate: -1"
    assert ended.code == 1


def test_a_run_as_its_user_meets_it(run_command: CommandServer, tmp_path: Path) -> None:
    ended = run_command("train", *TINY, "name=mine", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    folder = tmp_path / "outputs/runs/mine"
    metrics = read_json(folder / "metrics.json")
    assert f"{metrics['test/mean_error_px']:.3f} px" in ended.stdout
    assert "none of them seen in training" in ended.stdout
    assert str(folder / "checkpoints/best.ckpt") in ended.stdout
    assert "Warning" not in ended.stderr, ended.stderr
    for name in ("config", "hydra", "overrides"):
        assert (folder / f".hydra/{name}.yaml").is_file()
    assert (folder / "train.log").stat().st_size > 0

    stamp = (folder / "metrics.json").stat().st_mtime_ns
    again = run_command("train", *TINY, "name=mine", cwd=tmp_path)
    assert again.code == 0, again.stderr
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp

    config = (folder / ".hydra/config.yaml").read_bytes()
    other = run_command("train", *TINY, "name=mine", "model.dropout=0.25", cwd=tmp_path)
    assert "model.dropout" in other.error()
    assert (folder / ".hydra/config.yaml").read_bytes() == config


def test_a_mistake_leaves_a_folder_that_its_correction_can_use(
    run_command: CommandServer, tmp_path: Path
) -> None:
    run_command("train", *TINY, "name=mine", "optim.lr=-1", cwd=tmp_path).error()
    corrected = run_command("train", *TINY, "name=mine", cwd=tmp_path)
    assert corrected.code == 0, corrected.stderr


def test_nothing_writable(run_command: CommandServer, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    ended = run_command("train", *TINY, cwd=tmp_path)
    assert "outputs" in ended.error()


def test_what_its_user_can_put_right() -> None:
    assert user_message(UserError("one\n  two")) == "one two"
    assert user_message(FileNotFoundError(2, "No such file", "x.csv")) == "x.csv: No such file"
    assert "strange" in str(user_message(OSError("strange")))
    assert "out of memory" in str(user_message(torch.OutOfMemoryError("CUDA")))
    assert user_message(HydraException("no such choice")) == "no such choice"
    missing = MissingMandatoryValue("Missing mandatory value: images")
    assert user_message(missing) is not None


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), AssertionError(), TypeError()])
def test_what_is_a_bug(error: Exception) -> None:
    assert user_message(error) is None


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="device=toaster"):
        pick_device("toaster")


def test_the_configs_are_found() -> None:
    assert (CONF_DIR / "train.yaml").is_file()
