import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CommandServer, Run, compose, save_checkpoint

from pixel_spotter.errors import UserError
from pixel_spotter.export import run
from pixel_spotter.models import exporting
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.exporting import Format
from pixel_spotter.models.loading import load_model


def image(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(count))


def test_a_checkpoint_becomes_an_onnx_file(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    output = "new folder/my, model=1.onnx"
    ended = run_command("export", f"checkpoint={tiny_run.best}", f"output={output}", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert ended.stderr == ""
    said, differences = ended.stdout.splitlines()
    assert said == (
        f"{output}: cnn, for images (batch, 1, height, width) of 16x16 px: 0 is black, 1 is white"
    )
    assert differences.startswith("largest differences from the checkpoint, on 33 images: x ")
    assert float(differences.split()[-1]) < 1e-5
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["my, model=1.onnx"]
    model, _ = load_model(tiny_run.best)
    session = onnxruntime.InferenceSession(tmp_path / output)
    for count in (1, 5):
        x, y = session.run(["x", "y"], {"image": image(count).numpy()})
        expected = model(image(count)).detach().numpy()
        np.testing.assert_allclose(np.stack([x, y], axis=1), expected, atol=1e-4)
        assert x.std() > 0 or count == 1


def test_a_checkpoint_becomes_a_file_of_torch(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.pt2").write_text("an older one")
    ended = run_command("export", f"checkpoint={tiny_run.best}", "output=model.pt2", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.endswith("on 33 images: x 0, y 0\n")
    model, _ = load_model(tiny_run.best)
    got = torch.export.load(tmp_path / "model.pt2").module()(image(3))
    torch.testing.assert_close(got["x"], model(image(3))[:, 0])


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("model.pt", "output=model.pt must end in .onnx or .pt2"),
        ("model", "output=model must end in .onnx or .pt2"),
        (".onnx", "output=.onnx must end in .onnx or .pt2"),
        ("folder.onnx", "output=folder.onnx cannot be replaced by a file, give another name"),
        ("file/new/model.pt2", "file is not a folder that can be written to"),
    ],
)
def test_outputs_that_cannot_be(
    output: str, words: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    ended = run_command("export", f"checkpoint={tiny_run.best}", f"output={output}", cwd=tmp_path)
    assert ended.error().endswith(words)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.onnx", "file"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["output=a.onnx"], "checkpoint is missing: add checkpoint=..."),
        (["checkpoint=no.ckpt"], "output is missing: add output=..."),
        (["checkpoint=no.ckpt", "output=a.onnx"], "there is no file no.ckpt"),
        (
            ["checkpoint=text.ckpt", "output=a.pt2"],
            "text.ckpt was refused: it is no file of weights",
        ),
        (["checkpoint=a", "output=a.onnx", "device=cpu"], "there is no setting device"),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, run_command: CommandServer, tmp_path: Path
) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert words in run_command("export", *arguments, cwd=tmp_path).error()
    assert [path.name for path in tmp_path.iterdir()] == ["text.ckpt"]


def test_models_that_cannot_are_named_before_anything_is_written(
    run_command: CommandServer, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "fit.ckpt", ClosedForm(16, "maximum_likelihood"), 16)
    checkpoint = torch.load(tmp_path / "fit.ckpt")
    torch.save({**checkpoint, "model_name": "maximum_likelihood"}, tmp_path / "fit.ckpt")
    ended = run_command("export", "checkpoint=fit.ckpt", "output=new/fit.onnx", cwd=tmp_path)
    assert ended.error() == (
        "maximum_likelihood cannot be exported to .onnx: what it does next depends on what it has "
        "found, which such a file cannot say"
    )
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["fit.ckpt"]


def test_a_full_disk_leaves_nothing(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    ended = run_command(
        "export", f"checkpoint={tiny_run.best}", "output=model.pt2", cwd=tmp_path, fsize=1000
    )
    assert "model.pt2: File too large" in ended.error()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_onnx_is_an_extra(
    missing: str, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    output = tmp_path / "model.onnx"
    with pytest.raises(UserError, match=r"not installed: pip install 'pixel-spotter\[onnx\]'$"):
        run(compose([f"checkpoint={tiny_run.best}", f"output={output}"], "export"))
    assert [*tmp_path.iterdir()] == []


def test_what_differs_from_the_checkpoint_is_not_written(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read = exporting.FORMATS[".pt2"]

    def swapped(content: bytes) -> exporting.Answer:
        answer = read(content)
        return lambda image: dict(zip("xy", reversed(answer(image).values()), strict=True))

    monkeypatch.setitem(exporting.FORMATS, ".pt2", Format(write, swapped))
    with pytest.raises(UserError, match=r"on images of 16x16 px, its x is .* off the checkpoint's"):
        run(compose([f"checkpoint={tiny_run.best}", f"output={tmp_path / 'a.pt2'}"], "export"))
    assert [*tmp_path.iterdir()] == []
