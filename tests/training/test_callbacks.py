import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, Run, compose
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns, as_xy
from pixel_spotter.files import read_tensors
from pixel_spotter.metrics import figures_of
from pixel_spotter.models.loading import load_model
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import train
from pixel_spotter.training.callbacks import SeedEachEpoch, Stopwatch


def drawn(seed: int, epoch: int, rank: int = 0) -> float:
    trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    SeedEachEpoch(seed).on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    return torch.rand(()).item()


def test_an_epochs_randomness_follows_from_seed_epoch_and_device() -> None:
    cases = list(itertools.product((0, 1), (0, 1, 2), (0, 1)))
    first = [drawn(*case) for case in cases]
    torch.rand(17)
    assert [drawn(*case) for case in cases] == first
    assert len({*first}) == len(first)


def test_best_is_the_best_epoch_and_last_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([5.0, 3.0, 4.0, 6.0, 3.0, 3.0])  # four epochs, validation, test

    def scripted(columns: Columns) -> dict[str, float]:
        return figures_of(columns) | {"mean_error_px": next(errors)}

    monkeypatch.setattr("pixel_spotter.models.base.figures_of", scripted)
    metrics = train(compose([*TINY, "trainer.max_epochs=4"]), tmp_path, "cnn")
    assert metrics["epochs"] == 4
    assert read_tensors(tmp_path / "checkpoints/best.ckpt")["epoch"] == 1
    assert read_tensors(tmp_path / "checkpoints/last.ckpt")["epoch"] == 3

    columns = runs.read_predictions(tmp_path)
    xy_pred = as_xy(columns)
    images = render_pixels(as_xy(columns, "_true").long(), (16, 16))
    with torch.no_grad():
        best, last = (
            load_model(tmp_path / f"checkpoints/{name}.ckpt")[0](images)
            for name in ("best", "last")
        )
    torch.testing.assert_close(xy_pred, best, atol=1e-4, rtol=0)
    assert (xy_pred - last).abs().max() > 0.01, "the figures must be of the best, not the last"


def test_epochs_are_on_the_dashboards_axis(tiny_run: Run) -> None:
    steps = {}
    for file in tiny_run.folder.glob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(file)).Reload()
        for tag in accumulator.Tags()["scalars"]:
            steps.setdefault(tag, []).extend(e.step for e in accumulator.Scalars(tag))
    for tag in ("train/loss", "lr", "val/mean_error_px"):
        assert steps[tag] == [0, 1], tag


def test_speed_is_that_of_answers_once_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    watch, clock_s = Stopwatch(), iter([0.0, 9.0, 100.0, 101.0, 200.0, 200.5])
    monkeypatch.setattr("pixel_spotter.training.callbacks.time.perf_counter", lambda: next(clock_s))
    for k, count in enumerate((512, 512, 88)):
        watch.on_test_batch_start(trainer)
        watch.on_test_batch_end(trainer, trainer, None, SimpleNamespace(samples=torch.zeros(count)))
        if k == 0:
            assert watch.images_per_second == pytest.approx(512 / 9)
    assert watch.images_per_second == pytest.approx(600 / 1.5)
