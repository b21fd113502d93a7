"""Checkpoints that name classes of the user's own."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, TINY, CommandServer, Run, compose, figures, save_checkpoint
from noisy import NoisyPoints

from pixel_spotter.coordinates import all_positions
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.evaluate import evaluate
from pixel_spotter.models.base import PointRegressor, class_name, describe
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.ensemble import CheckpointEnsemble, EnsembleRegressor
from pixel_spotter.models.loading import load_model, rebuild_model
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import train

MINE = """
from pathlib import Path

from torch import nn

from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.heads import LinearHead

Path(__file__).with_name("imported").touch()


class Mine(PointRegressor):
    def __init__(self, image_size, width=3, optimizer=None, scheduler=None):
        super().__init__(image_size, optimizer, scheduler)
        self.save_hyperparameters(ignore=["optimizer", "scheduler"], logger=False)
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(256, width))
        self.head = LinearHead(width, self.size)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's own, where Python finds it."""
    (tmp_path / "mymodels.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mymodels", None)  # the README's, in the same process
    module = __import__("mymodels")
    yield module
    sys.modules.pop("mymodels", None)


@pytest.fixture
def checkpoint(mine: Any, tmp_path: Path) -> Path:
    """A checkpoint of the user's own model; the module has not been imported since."""
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "mine.ckpt", mine.Mine(16, width=5), 16)
    sys.modules.pop("mymodels")
    (tmp_path / "imported").unlink()
    yield tmp_path / "mine.ckpt"
    sys.modules.setdefault("mymodels", mine)


def test_a_checkpoint_names_what_it_is_of(tiny_run: Run) -> None:
    content = torch.load(tiny_run.best, weights_only=True)
    assert content["model_class"] == "pixel_spotter.models.cnn.CNNRegressor"
    assert content["data_class"] == "pixel_spotter.data.pixels.PixelDataModule"
    assert content["model_name"] == tiny_run.metrics["model"]
    assert content["trained_before"] == []


def test_a_class_outside_the_package_is_refused_and_nothing_imported(
    checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        load_model(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint} was refused: it asks for mymodels.Mine, which is not Pixel Spotter's; if "
        f"you trust it, add trust=mymodels"
    )
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("trust", ["mymodels", ["mymodels"], ("other", "mymodels")])
def test_a_trusted_one_is_loaded(trust: Any, checkpoint: Path) -> None:
    model, _ = load_model(str(checkpoint), trust)
    assert class_name(type(model)) == "mymodels.Mine"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("trust", [["mymodel"], ["mymodels.Mine"], ["my"], [""], ["pixel_spotter"]])
def test_trust_is_in_what_was_named_only(
    trust: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="add trust=mymodels"):
        load_model(checkpoint, trust)
    assert not (tmp_path / "imported").exists()


def test_a_trusted_module_that_is_not_there(tmp_path: Path, tiny_run: Run) -> None:
    content = torch.load(tiny_run.best, weights_only=True)
    torch.save(content | {"model_class": "nowhere.Mine"}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt needs nowhere\.Mine, which is not there"):
        load_model(tmp_path / "x.ckpt", ["nowhere"])


def test_what_is_trusted_must_still_be_a_model(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name in ("mymodels.LinearHead", "mymodels.Path"):
        torch.save(content | {"model_class": name}, checkpoint)
        with pytest.raises(UserError, match=f"was refused: {name} is no PointRegressor"):
            load_model(checkpoint, ["mymodels"])


def test_data_outside_the_package_need_trust_as_well(tmp_path: Path) -> None:
    path, data = tmp_path / "x.ckpt", NoisyPoints(train_samples=7)
    save_checkpoint(path, CNNRegressor(16, channels=[4], hidden=[8]), 16)
    content = torch.load(path, weights_only=True)
    content |= {
        "data_class": class_name(NoisyPoints),
        "datamodule_hyper_parameters": dict(data.hparams),
        "trained_before": [describe(NoisyPoints(train_samples=5))],
    }
    torch.save(content, path)
    with pytest.raises(UserError, match="add trust=noisy"):
        load_model(path)
    model, found = load_model(path, "noisy")
    assert type(found) is NoisyPoints
    assert [one.train_samples for one in model.training_data(found)] == [5, 7]


def test_an_ensemble_of_trusted_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "cnn.ckpt"
    save_checkpoint(other, CNNRegressor(16, channels=[4], hidden=[8]), 16)
    paths = [str(checkpoint), str(other)]
    with pytest.raises(UserError, match="add trust=mymodels"):
        CheckpointEnsemble(16, paths)
    ensemble = CheckpointEnsemble(16, paths, ["mymodels"])
    save_checkpoint(tmp_path / "both.ckpt", ensemble, 16)
    with pytest.raises(UserError, match="add trust=mymodels"):
        load_model(tmp_path / "both.ckpt")
    check_the_same(ensemble, tmp_path / "both.ckpt")


def test_an_ensemble_whose_members_are_trusted(mine: Any, tmp_path: Path) -> None:
    ensemble = EnsembleRegressor(16, 2, lambda: mine.Mine(16))
    save_checkpoint(tmp_path / "mine.ckpt", ensemble, 16)
    with pytest.raises(UserError, match="add trust=mymodels"):
        load_model(tmp_path / "mine.ckpt")
    check_the_same(ensemble, tmp_path / "mine.ckpt")


def check_the_same(model: PointRegressor, path: Path) -> None:
    again, _ = load_model(path, ["mymodels"])
    image = torch.rand(3, 1, 16, 16)
    assert torch.equal(again(image), model.eval()(image))


def test_rebuilding_refuses_by_itself() -> None:
    with pytest.raises(UserError, match=r"was refused: .* add trust=os\.path"):
        rebuild_model("os.path.join", {}, ())


def test_a_model_of_ones_own_from_training_to_evaluation(mine: Any, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("model")]
    cfg = compose([*words, "model=coordconv"])
    cfg.model = {
        "_target_": "mymodels.Mine",
        "image_size": "${data.image_size}",
        "optimizer": "${optim}",
        "scheduler": "${scheduler}",
    }
    metrics = train(cfg, tmp_path / "run", "mine")
    best = tmp_path / "run/checkpoints/best.ckpt"
    asked = [f"checkpoint={best}", *CPU]
    with pytest.raises(UserError, match="add trust=mymodels"):
        evaluate(compose(asked, "evaluate"), tmp_path / "again")
    again = evaluate(compose([*asked, "trust=[mymodels]"], "evaluate"), tmp_path / "again")
    assert again["model"] == metrics["model"] == "mine"
    for name, value in figures(metrics).items():
        if name.startswith("test/"):
            assert again[name] == value, name


def test_the_commands_take_one_module_without_brackets(
    run_command: CommandServer, checkpoint: Path, tmp_path: Path
) -> None:
    """``mymodels`` is where the command is called; ``python -m`` looks there."""
    asked = ("evaluate", f"checkpoint={checkpoint}", *CPU, "name=e")
    assert "add trust=mymodels" in run_command(*asked, cwd=tmp_path).error()
    ended = run_command(*asked, "trust=mymodels", cwd=tmp_path)
    assert ended.code == 0, ended.stderr


def test_models_that_come_with_the_package_know_what_they_were_made_for() -> None:
    heatmap, data = load_model("heatmap")
    assert data.size == (50, 50)
    for size in ((50, 50), (30, 41)):
        points = all_positions(size)[::17]
        off = heatmap(render_pixels(points, size)) - points
        assert off.abs().max() < 0.01
    spotter, spots = load_model("spotter")
    assert isinstance(spots, SpotDataModule)
    settings = {"image_size": 13, "margin_px": 6, "photons": 3000.0, "sigma_px": [1.2999, 1.3001]}
    image, truth, *_ = SpotDataModule(**settings).batch("test", 0, torch.arange(2000))  # type: ignore[arg-type]
    with torch.no_grad():
        columns = spotter.estimate(image)
    error = torch.stack([columns[name] - truth[f"{name}_true"] for name in "xy"])
    bound = torch.stack([truth[f"bound_{name}"] for name in "xy"])
    assert error.square().mean().sqrt() < 1.05 * bound.square().mean().sqrt()
    deviation = torch.stack([columns["sd_x"], columns["sd_y"]])
    assert (error.abs() < deviation).double().mean() == pytest.approx(0.683, abs=0.04)
    assert (columns["flag"] == 0).double().mean() > 0.98


def test_a_file_of_that_name_comes_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "heatmap", CNNRegressor(16, channels=[4], hidden=[8]), 16)
    assert load_model("heatmap")[0].name == "cnn"
    for name in ("../weights/heatmap", "nothing", ""):
        with pytest.raises(UserError):
            load_model(name)
