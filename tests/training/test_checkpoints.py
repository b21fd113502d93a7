import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, CommandServer, Run, compose

from pixel_spotter.cli.mistakes import user_message
from pixel_spotter.errors import UserError
from pixel_spotter.files import read_tensors
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.loading import load_model, read_weights
from pixel_spotter.models.resnet import ResNet18Regressor
from pixel_spotter.train import train
from pixel_spotter.training.callbacks import AtomicCheckpointIO


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "code-has-run"


@pytest.fixture(params=["zip", "legacy", "pickle"])
def malicious(request: pytest.FixtureRequest, tmp_path: Path, marker: Path, tiny_run: Run) -> Path:
    """A checkpoint with everything in place, and code among it."""
    content = torch.load(tiny_run.best, weights_only=True) | {"extra": Evil(marker)}
    path = tmp_path / "malicious.ckpt"
    if request.param == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Evil(marker)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def test_the_malicious_checkpoint_is_one(malicious: Path, marker: Path) -> None:
    """Or else the tests below would pass for any reader."""
    with malicious.open("rb") as file:
        if malicious.stat().st_size < 1000:
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "reader",
    [
        read_tensors,
        read_weights,
        load_model,
        AtomicCheckpointIO().load_checkpoint,
        lambda path: AtomicCheckpointIO().load_checkpoint(path, weights_only=False),
        lambda path: ResNet18Regressor(32, weights=str(path)),
    ],
    ids=["read_tensors", "read_weights", "load_model", "trainer", "trainer_unsafe", "weights"],
)
def test_code_in_a_checkpoint_is_refused(
    reader: Callable[[Path], Any], malicious: Path, marker: Path
) -> None:
    with pytest.raises(UserError, match=r"malicious\.ckpt was refused"):
        reader(malicious)
    assert not marker.exists()


def test_code_in_a_checkpoint_to_resume_from_is_refused(
    malicious: Path, marker: Path, tmp_path: Path, tiny_run: Run
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    (folder / "metrics.json").unlink()
    shutil.copy(malicious, folder / "checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt was refused"):
        train(tiny_run.cfg, folder, "cnn")
    assert not marker.exists()
    assert not (folder / "metrics.json").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_code_in_a_checkpoint_is_refused_by_the_commands(
    command: str, malicious: Path, marker: Path, run_command: CommandServer, tmp_path: Path
) -> None:
    (tmp_path / "image.png").write_bytes(b"")
    images = ["images=image.png"] if command == "predict" else []
    ended = run_command(command, f"checkpoint={malicious}", *images, cwd=tmp_path)
    assert "malicious.ckpt was refused" in ended.error()
    assert not marker.exists()


def truncated(path: Path, content: dict[str, Any]) -> None:
    torch.save(content, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path: Path, content: dict[str, Any]) -> None:
    path.touch()


def text(path: Path, content: dict[str, Any]) -> None:
    path.write_text("model,lr\ncnn,0.001\n")


def missing(path: Path, content: dict[str, Any]) -> None:
    pass


def folder(path: Path, content: dict[str, Any]) -> None:
    path.mkdir()


def tensor(path: Path, content: dict[str, Any]) -> None:
    torch.save(torch.zeros(3), path)


def state_dict(path: Path, content: dict[str, Any]) -> None:
    torch.save(content["state_dict"], path)


def other_lightning(path: Path, content: dict[str, Any]) -> None:
    content.pop("model_class")
    torch.save(content, path)


def other_weights(path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"state_dict": {"encoder": torch.zeros(3)}}, path)


def other_shapes(path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["channels"] = [4, 9]
    torch.save(content, path)


def unknown_argument(path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["depth"] = 3
    torch.save(content, path)


def no_arguments(path: Path, content: dict[str, Any]) -> None:
    del content["hyper_parameters"]
    torch.save(content, path)


def impossible_data(path: Path, content: dict[str, Any]) -> None:
    content["datamodule_hyper_parameters"]["val_fraction"] = 7
    torch.save(content, path)


def nonsense_arguments(path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"hyper_parameters": [1, 2]}, path)


def nonsense_data(path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"datamodule_hyper_parameters": "none"}, path)


def nonsense_weights(path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"state_dict": 3}, path)


def nonsense_class(path: Path, content: dict[str, Any]) -> None:
    torch.save(content | {"model_class": ["cnn"]}, path)


DAMAGES = [
    truncated,
    empty,
    text,
    missing,
    folder,
    tensor,
    state_dict,
    other_lightning,
    other_weights,
    other_shapes,
    unknown_argument,
    no_arguments,
    impossible_data,
    nonsense_arguments,
    nonsense_data,
    nonsense_weights,
    nonsense_class,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_no_usable_checkpoint(
    damage: Callable[[Path, dict[str, Any]], None], tiny_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    damage(path, torch.load(tiny_run.best, weights_only=True))
    with pytest.raises(UserError, match=r"bad\.ckpt") as caught:
        load_model(path)
    message = user_message(caught.value)
    assert message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name",
    [
        "os.path.join",
        "os.system",
        "pixel_spotter.models.heads.LinearHead",
        "pixel_spotter.files.read_tensors",
        "pixel_spotter.models.cnn.nn",
        "pixel_spotter.models.cnn.nn.Linear",
        "pixel_spotter.models.resnet.resnet18",
        "pixel_spotter.models.missing.Model",
        "pixel_spotter.models.cnn.Missing",
        "pixel_spotter.models.cnn.",
        "pixel_spotter.models..cnn",
        "pixel_spotter.data.pixels.PixelDataModule",
        "pixel_spotter.models_of_mine.Model",
        "pixel_spotter.models",
        "CNNRegressor",
        "",
    ],
)
def test_only_models_of_pixel_spotter_are_instantiated(
    name: str, tiny_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "renamed.ckpt"
    torch.save(torch.load(tiny_run.best, weights_only=True) | {"model_class": name}, path)
    with pytest.raises(UserError, match=r"renamed\.ckpt"):
        load_model(path)


def test_what_a_run_leaves_behind_loads(tiny_run: Run) -> None:
    for path in (tiny_run.best, tiny_run.last):
        model, data = load_model(path)
        assert type(model) is CNNRegressor
        assert not model.training
        assert model.size == data.size == (16, 16)
        assert data.train_samples == 64


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def disk_full(self: Path, data: Any) -> int:
        with self.open("wb") as file:
            file.write(bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(OSError, match="No space left"):
            AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert read_tensors(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_ends_a_run_in_one_line(run_command: CommandServer, tmp_path: Path) -> None:
    limit = 60_000
    wide = ["model.hidden=[256]", "name=full", "trainer.max_epochs=3"]
    ended = run_command("train", *TINY, *wide, cwd=tmp_path, fsize=limit)
    assert "File too large" in ended.error()
    folder = tmp_path / "outputs/runs/full"
    assert not (folder / "metrics.json").exists()
    for path in (folder / "checkpoints").iterdir():
        load_model(path)

    resumed = run_command("train", *TINY, *wide, cwd=tmp_path)
    assert resumed.code == 0, resumed.stderr
    assert (folder / "checkpoints/best.ckpt").stat().st_size > limit, "the limit was never met"


def test_resuming_from_a_truncated_checkpoint_says_which(tmp_path: Path, tiny_run: Run) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    (folder / "metrics.json").unlink()
    last = folder / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
        train(compose(TINY), folder, "cnn")
