"""What all data share, held by data of one's own: noise, and truths between the pixels."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Run, compose, figures
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from noisy import EDGES_PX, NoisyPoints
from omegaconf import OmegaConf
from torch import Tensor

from pixel_spotter import runs
from pixel_spotter.coordinates import as_xy, pixel_of
from pixel_spotter.data.base import pieces
from pixel_spotter.evaluate import evaluate
from pixel_spotter.metrics import error_by_position, errors_px, figures_of
from pixel_spotter.models.loading import load_model
from pixel_spotter.train import train
from pixel_spotter.training.callbacks import SeedEachEpoch

SETTINGS = {"_target_": "noisy.NoisyPoints", "image_size": 16, "batch_size": 16, "seed": "${seed}"}


def run_with(folder: Path, **changes: Any) -> Run:
    cfg = compose([*TINY, "model.dropout=0.3", "trainer.max_epochs=3"])
    cfg.data = OmegaConf.create({"train_samples": 80, "num_workers": 0, **SETTINGS, **changes})
    return Run(folder, cfg, train(cfg, folder, "cnn"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run. Not to be written to."""
    return run_with(tmp_path_factory.mktemp("noisy") / "run")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_sample_is_the_same_in_any_batch(split: str) -> None:
    data = NoisyPoints()
    whole = data.batch(split, 1, torch.arange(data.counts[split]))
    for samples in (torch.tensor([29]), torch.arange(30).flip(0), torch.arange(3, 17)):
        part = data.batch(split, 1, samples)
        assert torch.equal(part.samples, samples)
        assert torch.equal(part.image, whole.image[samples])
        for name, column in part.truth.items():
            assert torch.equal(column, whole.truth[name][samples]), name


def test_noise_differs_from_sample_to_sample_and_epoch_to_epoch() -> None:
    data, samples = NoisyPoints(), torch.arange(40)
    first, second = (data.batch("train", epoch, samples).image for epoch in (0, 1))
    corners = torch.cat([first[:, 0, 0, 0], second[:, 0, 0, 0]])
    assert len(corners.unique()) == 80


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_two_devices_see_together_what_one_sees(split: str) -> None:
    def batches(rank: int, world_size: int) -> list[Any]:
        data = NoisyPoints(batch_size=32)
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=rank, world_size=world_size, current_epoch=2
        )
        loader = getattr(data, f"{split}_dataloader")()
        return [data.on_after_batch_transfer(batch, 0) for batch in loader]

    alone, pairs = batches(0, 1), zip(batches(0, 2), batches(1, 2), strict=True)
    for batch, both in zip(alone, pairs, strict=True):
        assert torch.equal(torch.cat([part.samples for part in both]), batch.samples)
        assert torch.equal(torch.cat([part.image for part in both]), batch.image)


def test_predictions_are_of_every_sample_once_with_its_truth_exactly(run: Run) -> None:
    columns = runs.read_predictions(run.folder)
    assert [*columns] == ["sample", "x", "y", "x_true", "y_true", "photons_true"]
    assert columns["sample"].tolist() == [*range(45)]
    truth = NoisyPoints().truth("test", 0, torch.arange(45))
    for name, column in truth.items():
        assert torch.equal(columns[name], column), name
    assert torch.equal(as_xy(columns, "_true")[:4], EDGES_PX)


def test_images_from_all_over_the_test_are_kept_too(run: Run) -> None:
    columns, images = runs.read_images(run.folder, runs.SHOWN)
    assert columns["sample"].tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44]
    assert torch.equal(images, NoisyPoints().batch("test", 0, columns["sample"]).image[:, 0])
    predictions = runs.read_predictions(run.folder)
    assert torch.equal(columns["x"], predictions["x"][columns["sample"]])


def test_the_figures_are_those_of_the_file(run: Run) -> None:
    columns = runs.read_predictions(run.folder)
    for name, value in figures_of(columns).items():
        assert run.metrics[f"test/{name}"] == value, name
    by_position = error_by_position([columns], (16, 16))
    pixels = pixel_of(as_xy(columns, "_true"), (16, 16))
    assert np.isfinite(by_position).sum() == len(torch.unique(pixels, dim=0))
    corner = pixels.tolist().count([15, 15])
    assert corner >= 1
    assert np.isfinite(by_position[15, 15])


def test_the_worst_images_are_kept_as_they_were_with_their_noise(run: Run) -> None:
    columns, images = runs.read_images(run.folder, runs.WORST)
    worst = errors_px(runs.read_predictions(run.folder)).argsort(descending=True)[:8]
    assert columns["sample"].tolist() == worst.tolist()
    assert torch.equal(images, NoisyPoints().batch("test", 0, worst).image[:, 0])
    assert [*columns] == ["sample", "x", "y", "x_true", "y_true", "photons_true"]


def test_workers_change_nothing(run: Run, tmp_path: Path) -> None:
    other = run_with(tmp_path / "run", num_workers=2)
    assert figures(other.metrics) == figures(run.metrics)
    predictions = [(folder / runs.PREDICTIONS).read_text() for folder in (other.folder, run.folder)]
    assert predictions[0] == predictions[1]


def test_a_restart_changes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = SeedEachEpoch.on_train_epoch_start

    def cut(self: Any, trainer: Any, model: Any) -> None:
        if trainer.current_epoch == 2:
            raise ConnectionResetError
        seed(self, trainer, model)

    with monkeypatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_train_epoch_start", cut)
        with pytest.raises(ConnectionResetError):
            run_with(tmp_path / "run")
    assert (tmp_path / "run" / runs.LAST).is_file()
    assert figures(run_with(tmp_path / "run").metrics) == figures(run.metrics)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_another_batch_size_tests_the_same_samples(
    batch_size: int, run: Run, tmp_path: Path
) -> None:
    chosen = [f"checkpoint={run.best}", "trust=[noisy]", f"data.batch_size={batch_size}"]
    metrics = evaluate(compose([*chosen, "trainer=cpu"], "evaluate"), tmp_path)
    for name, value in run.metrics.items():
        if name.startswith("test/"):
            assert metrics[name] == pytest.approx(value, abs=1e-5), name
    one, other = runs.read_predictions(tmp_path), runs.read_predictions(run.folder)
    for name in ("sample", "x_true", "y_true"):
        assert torch.equal(one[name], other[name])


def test_a_checkpoint_brings_its_data_back(run: Run) -> None:
    _, data = load_model(run.best, trust=["noisy"])
    assert type(data) is NoisyPoints
    assert dict(data.hparams) == dict(NoisyPoints().hparams)


@pytest.mark.pictures
def test_points_between_pixels_reach_pictures_and_report(run: Run, tmp_path: Path) -> None:
    from pixel_spotter.report import write_report

    for name in ("error_map.png", "predictions.png"):
        assert (run.folder / name).stat().st_size > 10_000
    shutil.copytree(run.folder, tmp_path / "grid/model=cnn")
    write_report(tmp_path / "grid")
    assert [*(tmp_path / "grid").glob("report*")]


@given(
    count=st.integers(0, 120),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    trains=st.booleans(),
)
def test_devices_share_one_devices_batches(
    count: int, batch_size: int, world_size: int, trains: bool
) -> None:
    """In content and in order, also the last batch; each sample exactly once."""
    alone = pieces(count, batch_size)
    shares = [pieces(count, batch_size, rank, world_size, trains) for rank in range(world_size)]
    for whole, *parts in zip(alone, *shares, strict=True):
        own = [part.samples for part in parts if part.weight]
        assert torch.cat([*own, torch.arange(0)]).tolist() == whole.samples.tolist()
        if count:
            assert whole.weight == 1
            assert sum(part.weight for part in parts) == pytest.approx(world_size)
        if count and trains:  # one without a loss has a sample of the batch to go through
            assert all(
                len(part.samples) and {*part.samples.tolist()} <= {*whole.samples.tolist()}
                for part in parts
            )
    assert torch.cat([whole.samples for whole in alone]).tolist() == [*range(count)]


def test_three_devices_share_11_samples() -> None:
    parts = [[p.samples.tolist() for p in pieces(11, 5, rank, 3)] for rank in range(3)]
    assert parts == [[[0, 1], [5, 6], [10]], [[2, 3], [7, 8], []], [[4], [9], []]]
    trained = [pieces(11, 5, rank, 3, trains=True)[2] for rank in range(3)]
    assert [(piece.samples.tolist(), piece.weight) for piece in trained] == [
        ([10], 3.0),
        ([10], 0.0),
        ([10], 0.0),
    ]


@pytest.mark.parametrize("model_name", ["cnn", "spotter"])
def test_the_mean_of_devices_gradients_is_that_of_the_whole_batch(model_name: str) -> None:
    """Of 11 samples in batches of 5 three devices have 2, 2 and 1, and of the last 1, 0 and 0."""
    small = ["model.channels=[4]"] if model_name == "cnn" else ["model.widths=[8]", "data=spots"]
    cfg = compose([*TINY[:3], f"model={model_name}", "data.image_size=16", *small])
    torch.manual_seed(0)
    model = instantiate(cfg.model, _convert_="all")
    model.log = lambda *_, **__: None
    data = instantiate(cfg.data, train_samples=11, batch_size=5, _convert_="all")

    def gradients(rank: int, world_size: int) -> list[Tensor]:
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, current_epoch=0)
        found = []
        for number, batch in enumerate(data.train_dataloader()):
            model.zero_grad()
            model.training_step(data.on_after_batch_transfer(batch, 0), number).backward()
            grads = [parameter.grad.flatten() for parameter in model.parameters()]
            found.append(torch.cat(grads))
        return found

    several = torch.stack([torch.stack(gradients(rank, 3)) for rank in range(3)]).mean(dim=0)
    torch.testing.assert_close(several, torch.stack(gradients(0, 1)), rtol=1e-4, atol=1e-6)
