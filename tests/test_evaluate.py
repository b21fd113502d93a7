import math
from pathlib import Path

import pytest
import torch
from conftest import CPU, CommandServer, Run, compose, figures, finish, read_json, start
from PIL import Image

from pixel_spotter import runs
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.evaluate import evaluate
from pixel_spotter.models.loading import load_model
from pixel_spotter.train import train


def evaluated(run: Run, folder: Path, *overrides: str) -> dict[str, float]:
    cfg = compose([*CPU, f"checkpoint={run.best}", *overrides], "evaluate")
    return evaluate(cfg, folder)


@pytest.mark.pictures
def test_the_figures_of_the_run_again(tiny_run: Run, tmp_path: Path) -> None:
    metrics = evaluated(tiny_run, tmp_path / "out")
    assert metrics == read_json(tmp_path / "out/metrics.json")
    expected = {k: v for k, v in figures(tiny_run.metrics).items() if k.startswith("test/")}
    assert {key: metrics[key] for key in expected} == expected
    for key in ("split", "seed", "parameters", "image_size"):
        assert metrics[key] == tiny_run.metrics[key]
    one, other = ((f / "predictions.csv").read_text() for f in (tmp_path / "out", tiny_run.folder))
    assert one == other
    for name in ("error_map", "predictions"):
        with Image.open(tmp_path / f"out/{name}.png") as image:
            image.load()


def written(folder: Path) -> list[tuple[float, float]]:
    """Return the tested positions of ``predictions.csv``, in its order."""
    columns = runs.read_predictions(folder)
    return [*zip(columns["x_true"].tolist(), columns["y_true"].tolist(), strict=True)]


def test_the_batch_size_changes_no_figure(tiny_run: Run, tmp_path: Path) -> None:
    one, other = (
        evaluated(tiny_run, tmp_path / size, f"data.batch_size={size}") for size in ("7", "64")
    )
    for key in (key for key in one if key.startswith("test/")):
        assert one[key] == pytest.approx(other[key], abs=1e-4), key
    for key in ("hit_rate", "within_1px", "count"):
        assert one[f"test/{key}"] == other[f"test/{key}"]


def test_positions_seen_in_training_are_counted(tiny_run: Run, tmp_path: Path) -> None:
    metrics = evaluated(tiny_run, tmp_path, "data.split=quadrant")
    trained = {tuple(xy) for xy in load_model(tiny_run.best)[1].positions.train.tolist()}
    tested = [(x, y) for x in range(8, 16) for y in range(8, 16)]
    seen = sum(xy in trained for xy in tested) / len(tested)
    assert 0.1 < seen < 0.6
    assert metrics["test/seen_in_training"] == pytest.approx(seen)
    assert metrics["test/count"] == 64
    assert {*written(tmp_path)} == {*tested}


def test_figures_recomputed_by_hand(tiny_run: Run, tmp_path: Path) -> None:
    metrics = evaluated(tiny_run, tmp_path, "data.split=border")
    model, _ = load_model(tiny_run.best)
    errors = []
    for x in range(16):
        for y in range(16):
            if x in (0, 15) or y in (0, 15):
                image = torch.zeros(1, 1, 16, 16)
                image[0, 0, y, x] = 1
                with torch.no_grad():
                    ((x_pred, y_pred),) = model(image).tolist()
                errors.append(math.hypot(x_pred - x, y_pred - y))
    assert metrics["test/count"] == len(errors) == 60
    assert metrics["test/mean_error_px"] == pytest.approx(sum(errors) / 60, abs=1e-4)
    assert metrics["test/max_error_px"] == pytest.approx(max(errors), abs=1e-4)


def test_the_seed_and_the_rest_come_from_the_checkpoint(tiny_run: Run, tmp_path: Path) -> None:
    metrics = evaluated(tiny_run, tmp_path, "data.test_fraction=0.5")
    expected = PixelDataModule(image_size=16, test_fraction=0.5, train_samples=64, seed=0)
    assert metrics["test/count"] == len(expected.positions.test) == 128
    assert written(tmp_path) == [(x, y) for x, y in expected.positions.test.tolist()]


def test_settings_that_contradict_each_other(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no position for train"):
        evaluated(tiny_run, tmp_path / "out", "data.test_fraction=0.95")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("checkpoint", ["best.ckpt", "my best, ever=1.ckpt"])
def test_the_command(
    checkpoint: str, tiny_run: Run, run_command: CommandServer, tmp_path: Path
) -> None:
    (tmp_path / checkpoint).write_bytes(tiny_run.best.read_bytes())
    arguments = [f"checkpoint={checkpoint}", *CPU, "name=mine", "data.split=quadrant"]
    ended = run_command("evaluate", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    metrics = read_json(tmp_path / "outputs/evaluations/mine/metrics.json")
    assert f"{metrics['test/mean_error_px']:.3f} px" in ended.stdout
    assert f"{metrics['test/seen_in_training']:.0%} of them seen in training" in ended.stdout
    assert metrics["checkpoint"] == checkpoint
    assert metrics["model"] == tiny_run.metrics["model"] == "cnn", "one name everywhere"
    assert not [*tmp_path.rglob("epochs.csv")]


def test_a_folder_with_another_process_is_left_as_it_is(
    tiny_run: Run, run_command: CommandServer, tmp_path: Path
) -> None:
    folder, asked = tmp_path / "outputs/evaluations/mine", [f"checkpoint={tiny_run.best}", *CPU]
    with runs.owned(folder):
        ended = run_command("evaluate", *asked, "name=mine", "data.seed=1", cwd=tmp_path)
        assert "another process is at work in" in ended.error()
        assert not (folder / ".hydra").exists()
    ended = run_command("evaluate", *asked, "name=mine", "data.seed=2", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert runs.read_yaml(folder / runs.CONFIG, dict)["data"]["seed"] == 2
    ended = run_command("evaluate", *asked, "name=mine", "data.seed=3", cwd=tmp_path)
    assert "data.seed is 2 there and 3 here" in ended.error()
    assert (
        runs.read_yaml(folder / runs.CONFIG, dict)["data"]["seed"]
        == runs.read_metrics(folder)["seed"]
        == 2
    )
    assert run_command("evaluate", *asked, "name=mine", "data.seed=2", cwd=tmp_path).code == 0
    assert {path.name for path in (folder / ".hydra").iterdir()} == {
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    }


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tiny_run: Run, tmp_path: Path) -> None:
    two = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=7", "name=two"]
    ended = finish(start("evaluate", f"checkpoint={tiny_run.best}", *CPU, *two, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("mean error") == 1
    folder = tmp_path / "outputs/evaluations/two"
    metrics = read_json(folder / "metrics.json")
    for key, value in figures(tiny_run.metrics).items():
        if key.startswith("test/"):
            assert metrics[key] == pytest.approx(value, abs=1e-5), key
    assert written(folder) == written(tiny_run.folder)


def test_spots_of_another_kind_and_size(tmp_path: Path) -> None:
    """A spotter is measured where it was not trained; a model of one size is not."""
    tiny = ["data.train_samples=64", "data.val_samples=32", "data.test_samples=32"]
    cfg = compose(
        [*CPU, "experiment=spotter", "model.widths=[8]", *tiny, "trainer.max_epochs=1"], "train"
    )
    run = Run(tmp_path / "run", cfg, train(cfg, tmp_path / "run", "spotter"))
    larger = ["data.image_size=24", "data.margin_px=2", "data.photons=[2000,3000]"]
    alone = ["data.neighbour_probability=0", "data.cut_probability=0", "data.test_samples=40"]
    metrics = evaluated(run, tmp_path / "out", *larger, *alone)
    assert metrics["test/count"] == 40
    assert metrics["image_size"] == [24, 24]
    columns = runs.read_predictions(tmp_path / "out")
    assert 2000 <= columns["photons_true"].min() < columns["photons_true"].max() <= 3000
    assert 1.5 <= columns["x_true"].min() < columns["x_true"].max() <= 21.5
    assert columns["x_true"].max() > 15, "beyond the images that it was trained on"
    for wrong, problem in (
        (["data.split=border"], "data.split: this checkpoint's data has image_size"),
        (["data.photons=abc"], "data.photons must be"),
        (
            ["data.image_size=9", "data.margin_px=2"],
            "model.window=13 px is larger than images of 9x9 px",
        ),
    ):
        with pytest.raises(UserError, match=problem):
            evaluated(run, tmp_path / "wrong", *wrong)


def test_a_model_of_one_size_is_not_measured_at_another(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes images of 16x16 px, not of 20x20 px"):
        evaluated(tiny_run, tmp_path / "out", "data.image_size=20")
