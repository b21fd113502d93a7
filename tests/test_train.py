import copy
import csv
import json
import math
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    CPU,
    GPU,
    TINY,
    CommandServer,
    Run,
    compose,
    figures,
    finish,
    read_json,
    start,
)
from omegaconf import OmegaConf, open_dict
from pandas.testing import assert_frame_equal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from pixel_spotter import metrics, runs
from pixel_spotter.coordinates import Columns
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.files import read_tensors
from pixel_spotter.metrics import figures_of
from pixel_spotter.models.loading import load_model
from pixel_spotter.train import print_run, train
from pixel_spotter.training.callbacks import AtomicCheckpointIO, SeedEachEpoch

FIGURES = [
    *("mean_error_px", "median_error_px", "p95_error_px", "max_error_px", "mse_px2", "rmse_px"),
    *("hit_rate", "within_1px", "bias_x_px", "bias_y_px", "count"),
]
OTHERS = [
    *("test/seen_in_training", "model", "split", "seed", "epochs", "ended", "lr", "parameters"),
    *("train_seconds", "train_images_per_second", "test_images_per_second"),
    *("device", "precision", "versions"),
]


def run_with(folder: Path, *overrides: str) -> Run:
    cfg = compose([*TINY, *overrides])
    return Run(folder, cfg, train(cfg, folder, "cnn"))


def events(folder: Path) -> list[EventAccumulator]:
    files = sorted(folder.glob("**/events.out.tfevents.*"))
    assert files
    return [EventAccumulator(str(file)).Reload() for file in files]


def scalars(folder: Path, tag: str) -> list[float]:
    return [
        event.value
        for accumulator in events(folder)
        if tag in accumulator.Tags()["scalars"]
        for event in accumulator.Scalars(tag)
    ]


class TestRunFolder:
    """What one tiny run leaves behind."""

    def test_all_figures_are_there_and_are_json(self, tiny_run: Run) -> None:
        written = read_json(tiny_run.folder / "metrics.json")
        assert written == tiny_run.metrics
        wanted = {f"{split}/{name}" for split in ("val", "test") for name in FIGURES} | {*OTHERS}
        assert wanted <= written.keys()
        for key in wanted:
            assert not isinstance(written[key], float) or math.isfinite(written[key])
        assert {"python", "torch", "lightning", "pixel_spotter"} <= written["versions"].keys()

    def test_they_say_what_ran(self, tiny_run: Run) -> None:
        metrics = tiny_run.metrics
        assert metrics["model"] == "cnn"
        assert metrics["split"] == "uniform"
        assert (metrics["seed"], metrics["epochs"], metrics["lr"]) == (0, 2, 0.01)
        assert metrics["ended"] == "max_epochs"
        assert (metrics["val/count"], metrics["test/count"]) == (26, 52)
        assert metrics["test/seen_in_training"] == 0
        assert metrics["device"] == "cpu"
        assert metrics["precision"] == "32-true"
        convolutions = 10 * 4 + (9 * 4 + 1) * 8
        assert metrics["parameters"] == convolutions + (8 * 4 * 4 + 1) * 16 + 17 * 2
        rate = 2 * 64 / metrics["train_seconds"]
        assert metrics["train_images_per_second"] == pytest.approx(rate, rel=0.02)

    def test_predictions_agree_with_the_figures(self, tiny_run: Run) -> None:
        """To the last digit: nothing was rounded on the way to the file."""
        with (tiny_run.folder / "predictions.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            assert reader.fieldnames == ["sample", "x", "y", "x_true", "y_true"]
            rows = list(reader)
        assert [row["sample"] for row in rows] == [str(k) for k in range(52)]
        columns = {
            name: torch.tensor([float(row[name]) for row in rows]) for name in (*rows[0],)[1:]
        }
        true = torch.stack([columns["x_true"], columns["y_true"]], dim=1)
        assert torch.equal(true, true.round())
        assert len({*map(tuple, true.tolist())}) == len(rows)
        for name, value in figures_of(columns).items():
            assert tiny_run.metrics[f"test/{name}"] == value, name

    def test_the_worst_predictions_are_kept_with_their_images(self, tiny_run: Run) -> None:
        columns, images = runs.read_images(tiny_run.folder, runs.WORST)
        predictions = runs.read_predictions(tiny_run.folder)
        errors = metrics.errors_px(predictions)
        assert columns["sample"].tolist() == errors.argsort(descending=True)[:8].tolist()
        for name, column in columns.items():
            assert torch.equal(column, predictions[name][columns["sample"]]), name
        assert images.shape == (8, 16, 16)
        for image, x, y in zip(images, columns["x_true"], columns["y_true"], strict=True):
            assert image.nonzero().tolist() == [[int(y), int(x)]]

    def test_figures_by_epoch(self, tiny_run: Run) -> None:
        epochs = runs.read_epochs(tiny_run.folder)
        assert epochs["epoch"].tolist() == [0, 1]
        assert epochs["lr"].tolist() == pytest.approx([0.01, 0.005])
        assert (epochs["seconds"] > 0).all()
        best = epochs["val/mean_error_px"].idxmin()
        for name in FIGURES:
            value = tiny_run.metrics[f"val/{name}"]
            assert epochs[f"val/{name}"][best] == pytest.approx(value, rel=1e-6), name
        assert epochs["train/loss"].tolist() == pytest.approx(
            scalars(tiny_run.folder, "train/loss"), rel=1e-6
        )

    def test_the_config_is_the_one_composed(self, tiny_run: Run) -> None:
        written = OmegaConf.load(tiny_run.folder / ".hydra/config.yaml")
        assert OmegaConf.to_container(written) == OmegaConf.to_container(compose(TINY))

    def test_the_figures_are_the_best_checkpoints(self, tiny_run: Run) -> None:
        by_epoch = scalars(tiny_run.folder, "val/mean_error_px")
        assert tiny_run.metrics["val/mean_error_px"] == pytest.approx(min(by_epoch[:2]), rel=1e-6)

    def test_the_dashboard_has_scalars(self, tiny_run: Run) -> None:
        folder = tiny_run.folder
        assert len(scalars(folder, "train/loss")) == 2
        for name in FIGURES:
            assert len(scalars(folder, f"val/{name}")) >= 2, name
        assert scalars(folder, "test/mean_error_px") == [
            pytest.approx(tiny_run.metrics["test/mean_error_px"], rel=1e-6)
        ]

    def test_the_dashboard_has_the_cosine_schedule(self, tiny_run: Run) -> None:
        (tag,) = {
            tag
            for accumulator in events(tiny_run.folder)
            for tag in accumulator.Tags()["scalars"]
            if tag.startswith("lr")
        }
        assert scalars(tiny_run.folder, tag) == pytest.approx([0.01, 0.005])

    def test_the_dashboard_has_pictures(self, tiny_run: Run) -> None:
        tags = {tag for one in events(tiny_run.folder) for tag in one.Tags()["images"]}
        assert {"test/predictions", "test/error_map"} <= tags
        (image,) = [
            one.Images("test/error_map")[0]
            for one in events(tiny_run.folder)
            if "test/error_map" in one.Tags()["images"]
        ]
        assert image.width > 300
        assert image.height > 300

    def test_the_dashboard_has_hparams_with_results(self, tiny_run: Run) -> None:
        contents = {}
        for one in events(tiny_run.folder):
            if "_hparams_/experiment" in one.summary_metadata:
                contents |= one.PluginTagToContent("hparams")
        started = HParamsPluginData.FromString(contents["_hparams_/session_start_info"])
        hparams = started.session_start_info.hparams
        assert hparams["model"].string_value == "cnn"
        assert hparams["lr"].number_value == 0.01
        assert hparams["batch_size"].number_value == 16
        experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
        results = {info.name.tag for info in experiment.metric_infos}
        assert results == {"test/mean_error_px", "test/hit_rate"}
        for tag in results:
            assert scalars(tiny_run.folder, tag)[-1] == pytest.approx(
                tiny_run.metrics["test/" + tag.partition("/")[2]], rel=1e-6
            )

    def test_nothing_else_is_left(self, tiny_run: Run) -> None:
        files = {
            str(path.relative_to(tiny_run.folder))
            for path in tiny_run.folder.rglob("*")
            if path.is_file() and "tfevents" not in path.name
        }
        assert files == {
            ".hydra/config.yaml",
            ".lock",
            "checkpoints/best.ckpt",
            "checkpoints/last.ckpt",
            "epochs.csv",
            "error_map.png",
            "metrics.json",
            "predictions.csv",
            "predictions.png",
            "shown.npz",
            "worst.npz",
        }


def test_the_same_seed_gives_the_same_figures(tiny_run: Run, tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = run_with(tmp_path / "again")
    assert figures(again.metrics) == figures(tiny_run.metrics)
    one, other = ((run.folder / "predictions.csv").read_bytes() for run in (again, tiny_run))
    assert one == other


def test_another_seed_gives_other_figures(tiny_run: Run, tmp_path: Path) -> None:
    other = run_with(tmp_path / "other", "seed=1")
    assert other.metrics["test/mean_error_px"] != tiny_run.metrics["test/mean_error_px"]


def test_workers_change_no_figure(tiny_run: Run, tmp_path: Path) -> None:
    # with dropout, which would notice a loader that draws from the global random stream
    none, two = (
        run_with(tmp_path / workers, "model.dropout=0.3", f"data.num_workers={workers}")
        for workers in ("0", "2")
    )
    assert figures(none.metrics) == figures(two.metrics) != figures(tiny_run.metrics)


def test_the_validations_batch_size_changes_no_figure(tmp_path: Path) -> None:
    """Of samples, models and all: what they are trained with is the same."""

    def trained(batch_size: int) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            loader = PixelDataModule._loader

            def other(self: PixelDataModule, split: str) -> Any:
                self.batch_size = 16 if split == "train" else batch_size
                return loader(self, split)

            patch.setattr(PixelDataModule, "_loader", other)
            return run_with(tmp_path / str(batch_size)).metrics

    one, other = trained(16), trained(5)
    for key, value in figures(one).items():
        assert other[key] == pytest.approx(value, abs=1e-5), key


def test_training_learns(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", "trainer.max_epochs=15", "data.train_samples=256")
    by_epoch = scalars(run.folder, "val/mean_error_px")
    assert run.metrics["test/mean_error_px"] < 1.5 < by_epoch[0]


def test_a_constant_schedule_is_constant(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", "scheduler=constant", "trainer.max_epochs=3")
    tags = {t for one in events(run.folder) for t in one.Tags()["scalars"] if t.startswith("lr")}
    assert scalars(run.folder, tags.pop()) == pytest.approx([0.01] * 3)


@pytest.fixture
def copied_run(tiny_run: Run, tmp_path: Path) -> Run:
    """A finished run that a test may change."""
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    return Run(tmp_path / "run", tiny_run.cfg, tiny_run.metrics)


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """All that is in the files; the lock has nothing in it."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != runs.LOCK
    }


def test_a_finished_run_is_returned_as_it_is(copied_run: Run) -> None:
    before = contents(copied_run.folder)
    assert train(copied_run.cfg, copied_run.folder, "cnn") == copied_run.metrics
    assert contents(copied_run.folder) == before


def test_settings_that_change_no_figure_may_change(copied_run: Run) -> None:
    before = contents(copied_run.folder)
    free = ["name=other", "data.num_workers=1", "trainer.enable_progress_bar=true"]
    free += ["trainer.max_time=00:00:00:01", "logger=csv", "trust=[mine]"]
    cfg = compose([*TINY, *free])
    assert train(cfg, copied_run.folder, "cnn") == copied_run.metrics
    assert contents(copied_run.folder) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_whose_models_config_repeats_the_optimizer_goes_on(
    finished: bool, copied_run: Run
) -> None:
    """As those of 0.1 do."""
    before = copy.deepcopy(copied_run.cfg)
    with open_dict(before):
        before.model.update({"optimizer": "${optim}", "scheduler": "${scheduler}"})
    OmegaConf.save(before, copied_run.folder / runs.CONFIG)
    if not finished:
        (copied_run.folder / "metrics.json").unlink()
    metrics = train(copied_run.cfg, copied_run.folder, "cnn")
    assert figures(metrics) == figures(copied_run.metrics)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optim.lr=0.5", "optim.lr"),
        ("+model.optimizer.lr=0.5", "model.optimizer.lr"),
        ("model.dropout=0.5", "model.dropout"),
        ("seed=4", "seed"),
        ("data.split=iid", "data.split"),
        ("trainer.max_epochs=9", "trainer.max_epochs"),
        ("model.channels=[4,9]", "model.channels"),
    ],
)
def test_a_folder_with_another_run_is_refused(
    finished: bool, override: str, key: str, copied_run: Run
) -> None:
    if not finished:
        (copied_run.folder / "metrics.json").unlink()
    before = contents(copied_run.folder)
    with pytest.raises(UserError, match="another name") as caught:
        train(compose([*TINY, override]), copied_run.folder, "cnn")
    assert key in str(caught.value)
    assert contents(copied_run.folder) == before


def test_damaged_figures_are_told(copied_run: Run) -> None:
    (copied_run.folder / "metrics.json").write_text('{"epochs": 2,')
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        train(copied_run.cfg, copied_run.folder, "cnn")


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff"])
def test_a_damaged_config_is_told(content: bytes, copied_run: Run) -> None:
    (copied_run.folder / runs.CONFIG).write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        train(copied_run.cfg, copied_run.folder, "cnn")


def test_what_a_killed_process_was_writing_goes(copied_run: Run) -> None:
    (copied_run.folder / "metrics.json").unlink()
    half = [copied_run.folder / ".shown.npz.1.tmp.npz"]
    half.append(copied_run.folder / "checkpoints/after_1/.last.ckpt.1.tmp.ckpt")
    for file in half:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    train(copied_run.cfg, copied_run.folder, "cnn")
    assert not any(file.exists() for file in half)


def test_early_stopping_stops(tmp_path: Path) -> None:
    stopping = ["early_stopping.patience=1", "early_stopping.min_delta=1000"]
    run = run_with(tmp_path / "run", *stopping, "trainer.max_epochs=9")
    assert (run.metrics["epochs"], run.metrics["ended"]) == (2, "early_stopping")
    assert len(scalars(run.folder, "train/loss")) == 2

    (run.folder / "metrics.json").unlink()  # as if killed after its last epoch
    again = train(run.cfg, run.folder, "cnn")
    assert figures(again) == figures(run.metrics)
    assert again["ended"] == "early_stopping"
    assert runs.read_epochs(run.folder)["epoch"].tolist() == [0, 1]


def test_a_run_killed_after_training_gives_the_same_figures(copied_run: Run) -> None:
    (copied_run.folder / "metrics.json").unlink()
    again = train(copied_run.cfg, copied_run.folder, "cnn")
    assert figures(again) == figures(copied_run.metrics)
    assert again["train_seconds"] == pytest.approx(copied_run.metrics["train_seconds"], rel=0.5)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_precisions_that_round_coordinates_are_refused(precision: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{precision} would round .* use auto, \w+-mixed"):
        run_with(tmp_path / "run", f"trainer.precision={precision}")
    assert not (tmp_path / "run").exists()


def test_mixed_precision(tiny_run: Run, tmp_path: Path) -> None:
    mixed = run_with(tmp_path / "run", "trainer.precision=bf16-mixed").metrics
    assert mixed["precision"] == "bf16-mixed"
    assert all(math.isfinite(mixed[f"test/{name}"]) for name in FIGURES)
    assert mixed["test/mean_error_px"] != tiny_run.metrics["test/mean_error_px"]
    assert mixed["test/mean_error_px"] == pytest.approx(
        tiny_run.metrics["test/mean_error_px"], rel=0.2
    )


def test_a_diverging_run_leaves_no_figures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="diverged"):
        run_with(tmp_path / "run", "optim.lr=1e30", "scheduler=constant")
    assert not (tmp_path / "run/metrics.json").exists()
    assert not (tmp_path / "run/predictions.csv").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=-1", "seed"),
        ("seed=1.5", "seed"),
        ("seed=4294967296", "seed"),
        ("trainer.max_epochs=0", "trainer.max_epochs"),
        ("trainer.max_epochs=-1", "trainer.max_epochs"),
        ("optim.lr=-1", "learning rate"),
        ("data.train_samples=0", "data.train_samples"),
        ("trainer.max_time=soon", "trainer.max_time must be DD:HH:MM:SS"),
        ("trainer.max_time=60", "trainer.max_time must be DD:HH:MM:SS"),
        ("trainer.max_time=00:00:00:00", "trainer.max_time must be DD:HH:MM:SS"),
        ("trainer.max_time=0", "trainer.max_time must be DD:HH:MM:SS"),
        ("trainer.max_time=9999999999:00:00:00", "trainer.max_time must be DD:HH:MM:SS"),
        ("+trainer.min_epochs=0", "trainer.min_epochs must be a whole number of at least 1"),
        ("trainer.log_every_n_steps=0", "log_every_n_steps must be a whole number of at least 1"),
        ("trainer.num_sanity_val_steps=-5", "num_sanity_val_steps must be a whole number"),
        ("early_stopping.patience=0", "early_stopping.patience must be a whole number of at"),
    ],
)
def test_impossible_settings(override: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run_with(tmp_path / "run", override)
    assert not (tmp_path / "run/metrics.json").exists()


INTERRUPTED = [
    *TINY,
    "trainer.max_epochs=4",
    "model.dropout=0.5",
    "early_stopping.patience=50",
    "data.batch_size=8",
]
"""Everything that an interruption could upset: dropout, a schedule, early stopping, Adam."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    cfg = compose(INTERRUPTED)
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    return Run(folder, cfg, train(cfg, folder, "cnn"))


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("moment", ["epoch 1", "epoch 3", "best", "last", "record"])
def test_a_crash_anywhere_changes_no_figure(
    moment: str, uninterrupted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seed = AtomicCheckpointIO.save_checkpoint, SeedEachEpoch.on_train_epoch_start
    saved = []

    def cut_while_saving(self: Any, content: Any, path: Any, storage_options: Any = None) -> None:
        """After the second best, before its last; or while writing the second last."""
        saved.append(Path(path).stem)
        if moment == "last" and saved.count("last") == 2:
            raise PowerCutError
        save(self, content, path, storage_options)
        if moment == "best" and saved.count("best") == 2:
            raise PowerCutError

    def cut_at_epoch(self: Any, trainer: Any, model: Any) -> None:
        if moment == f"epoch {trainer.current_epoch}":
            raise PowerCutError
        seed(self, trainer, model)

    def cut_at_the_end(*args: Any) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", cut_while_saving)
        patch.setattr(SeedEachEpoch, "on_train_epoch_start", cut_at_epoch)
        if moment == "record":
            patch.setattr("pixel_spotter.train.measure", cut_at_the_end)
        with pytest.raises(PowerCutError):
            train(uninterrupted.cfg, tmp_path / "run", "cnn")
    assert not (tmp_path / "run/metrics.json").exists()
    folder = tmp_path / "run"
    if moment == "best":  # a run folder may also be moved before it is continued
        folder = folder.rename(tmp_path / "moved")
    trained: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            SeedEachEpoch,
            "on_train_epoch_start",
            lambda self, trainer, model: (
                trained.append(trainer.current_epoch),
                seed(self, trainer, model),
            ),
        )
        done = read_tensors(folder / "checkpoints/last.ckpt")["epoch"] + 1
        again = train(uninterrupted.cfg, folder, "cnn")
    assert done >= 1
    assert trained == list(range(done, 4)), "it did not go on from where it was"
    assert figures(again) == figures(uninterrupted.metrics)
    assert_epochs_agree(folder, uninterrupted.folder)


def assert_epochs_agree(folder: Path, uninterrupted: Path) -> None:
    """One row an epoch, with the figures of the run that was never interrupted."""
    one, other = (runs.read_epochs(run).drop(columns="seconds") for run in (folder, uninterrupted))
    assert_frame_equal(one, other)


def test_a_moved_run_goes_on_from_its_best(uninterrupted: Run, tmp_path: Path) -> None:
    """Trained to its end, then moved: its best must not be forgotten, nor looked for there."""
    shutil.copytree(uninterrupted.folder, tmp_path / "moved")
    (tmp_path / "moved/metrics.json").unlink()
    again = train(uninterrupted.cfg, tmp_path / "moved", "cnn")
    assert figures(again) == figures(uninterrupted.metrics)


def test_time_that_is_up_ends_a_run_which_the_same_command_continues(
    uninterrupted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock on which every epoch takes ten seconds."""
    clock, seed = [0.0], SeedEachEpoch.on_train_epoch_start

    def pass_time(self: Any, trainer: Any, model: Any) -> None:
        clock[0] += 10
        seed(self, trainer, model)

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(SeedEachEpoch, "on_train_epoch_start", pass_time)
    limited = compose([*INTERRUPTED, "trainer.max_time=00:00:00:15"])
    folder = tmp_path / "run"
    first = train(limited, folder, "cnn")
    assert (first["ended"], first["epochs"], first["train_seconds"]) == ("max_time", 2, 20)
    assert read_json(folder / "metrics.json") == first
    assert runs.read_epochs(folder)["epoch"].tolist() == [0, 1]

    second = train(limited, folder, "cnn")
    assert second["epochs"] == 4, "each command has the time for itself"
    assert (second["ended"], second["train_seconds"]) == ("max_epochs", 40)
    assert figures(second) == figures(uninterrupted.metrics)
    assert_epochs_agree(folder, uninterrupted.folder)
    assert train(limited, folder, "cnn") == second


def test_a_figure_that_is_added_is_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def within_7px(columns: Columns) -> torch.Tensor:
        return (metrics.errors_px(columns) <= 7).double().mean()

    needed = ("x", "y", "x_true", "y_true")
    added = metrics.Figure("within_7px", "within 7 px", "", metrics.share, needed, within_7px)
    monkeypatch.setattr(metrics, "FIGURES", (added, *metrics.FIGURES))
    run = run_with(tmp_path / "run")
    written = read_json(run.folder / "metrics.json")
    near = metrics.errors_px(runs.read_predictions(run.folder)) <= 7
    assert 0 < written["test/within_7px"] == near.double().mean().item() < 1
    by_epoch = runs.read_epochs(run.folder)["val/within_7px"].tolist()
    assert written["val/within_7px"] in [pytest.approx(value) for value in by_epoch]
    assert scalars(run.folder, "val/within_7px") == pytest.approx(by_epoch)


def test_a_dry_run_puts_a_batch_through_everything_and_keeps_nothing(
    run_command: CommandServer, tmp_path: Path
) -> None:
    ended = run_command("train", *TINY, "trainer.fast_dev_run=true", "name=dry", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "Dry run of cnn" in ended.stdout
    assert [*tmp_path.rglob("*")] == [tmp_path / "outputs", tmp_path / "outputs/runs"]

    ended = run_command("train", *TINY, "name=dry", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    before = contents(tmp_path / "outputs/runs/dry")
    ended = run_command("train", *TINY, "trainer.fast_dev_run=true", "name=dry", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    after = contents(tmp_path / "outputs/runs/dry")
    assert after == before
    with runs.owned(tmp_path / "outputs/runs/dry"):
        ended = run_command("train", *TINY, "trainer.fast_dev_run=true", "name=dry", cwd=tmp_path)
    assert "another process is at work in" in ended.error()


def test_a_dry_run_finds_what_is_wrong(run_command: CommandServer, tmp_path: Path) -> None:
    dry = [*TINY, "trainer.fast_dev_run=true"]
    assert "learning rate" in run_command("train", *dry, "optim.lr=-1", cwd=tmp_path).error()
    solved = run_command("train", *CPU, "model=argmax", "trainer.fast_dev_run=true", cwd=tmp_path)
    assert solved.code == 0, solved.stderr


class TestLoggers:
    def test_csv(self, tmp_path: Path) -> None:
        run = run_with(tmp_path / "run", "logger=csv")
        rows = [*csv.DictReader((run.folder / "metrics.csv").open(newline=""))]
        errors = [row["val/mean_error_px"] for row in rows if row["val/mean_error_px"]]
        by_epoch = runs.read_epochs(run.folder)["val/mean_error_px"].tolist()
        assert [*map(float, errors)] == pytest.approx(by_epoch)
        tested = [row["test/mean_error_px"] for row in rows if row["test/mean_error_px"]]
        assert [*map(float, tested)] == [pytest.approx(run.metrics["test/mean_error_px"])]
        assert not [*run.folder.glob("events.*")]

    def test_wandb(self, tmp_path: Path, tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_MODE", "offline")
        run = run_with(tmp_path / "run", "logger=wandb", "logger.offline=true")
        assert figures(run.metrics) == figures(tiny_run.metrics)
        assert [*run.folder.glob("wandb/offline-run-*")]

    def test_mlflow(self, tmp_path: Path, tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("mlflow")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "outputs").mkdir()
        run = run_with(tmp_path / "run", "logger=mlflow")
        assert figures(run.metrics) == figures(tiny_run.metrics)
        with closing(sqlite3.connect("outputs/mlflow.db")) as database:
            asked = "select value from metrics where key = 'test/mean_error_px'"
            ((value,),) = database.execute(asked).fetchall()
        assert value == pytest.approx(run.metrics["test/mean_error_px"])


def wait_for(condition: Any, process: Any, timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, (
            "it ended before it could be killed: " + process.stderr.read()
        )
        assert time.monotonic() < end
        time.sleep(0.01)


def kill(process: Any) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


SLOW_EPOCHS = [*INTERRUPTED, "data.batch_size=1", "data.train_samples=100", "name=victim"]


def test_a_killed_process_resumes_to_the_same_figures(
    run_command: CommandServer, tmp_path: Path
) -> None:
    asked = [*SLOW_EPOCHS, "data.train_samples=30", "trainer.max_epochs=8"]
    reference = train(compose(asked), tmp_path / "reference", "cnn")
    folder = tmp_path / "outputs/runs/victim"
    last = folder / "checkpoints/last.ckpt"

    begun = run_command.begin("train", *asked, cwd=tmp_path)
    begun.wait_for(last.is_file)
    first = last.stat().st_mtime_ns
    begun.wait_for(lambda: last.stat().st_mtime_ns != first)
    begun.kill()
    assert begun.finish().code == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()
    assert torch.load(last, weights_only=True)["epoch"] >= 1

    ended = run_command("train", *asked, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "continuing" in ended.stdout + (folder / "train.log").read_text()
    assert figures(read_json(folder / "metrics.json")) == figures(reference)
    assert len(scalars(folder, "train/loss")) <= 9, "it did not resume but start again"


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    long = [*SLOW_EPOCHS, "trainer.max_epochs=12"]
    reference = train(compose(long), tmp_path / "reference", "cnn")
    folder = tmp_path / "outputs/runs/victim"
    waits_s = torch.rand(5, generator=torch.Generator().manual_seed(0)) * 2
    kills = 0
    for wait_s in waits_s.tolist():
        process = start("train", *long, cwd=tmp_path)
        logs = len([*folder.glob("events.*")])
        wait_for(lambda before=logs: len([*folder.glob("events.*")]) > before, process)
        time.sleep(wait_s)
        if process.poll() is not None:
            break
        kill(process)
        kills += 1
        leftovers = {path.name for path in folder.rglob("*.ckpt") if path.name[0] != "."}
        assert leftovers <= {"best.ckpt", "last.ckpt"}
        for name in leftovers:
            load_model(folder / "checkpoints" / name)
    assert kills >= 2
    ended = finish(start("train", *long, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    assert figures(read_json(folder / "metrics.json")) == figures(reference)


TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [*TINY, "data.image_size=15", "data.train_samples=57", "data.batch_size=7"],
        [
            *(*CPU, "experiment=spotter", "data.train_samples=601", "data.batch_size=50"),
            *("data.val_samples=51", "data.test_samples=101", "model.widths=[32]"),
        ],
    ],
    ids=["cnn", "spotter"],
)
def test_two_processes_find_what_one_finds(settings: list[str], tmp_path: Path) -> None:
    """The last batches are of one sample: the second process has none of its own."""
    words = [*settings, "trainer.max_epochs=3"]
    cfg = compose(words)
    one = Run(tmp_path / "one", cfg, train(cfg, tmp_path / "one", "one"))
    ended = finish(start("train", *words, *TWO, "name=two", cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    assert "recommended" not in ended.stderr
    assert [path.name for path in (tmp_path / "outputs/runs").iterdir()] == ["two"]
    folder = tmp_path / "outputs/runs/two"
    found = figures(read_json(folder / "metrics.json"))
    assert found == pytest.approx(figures(one.metrics), rel=1e-4, abs=1e-5)
    alone, both = (runs.read_predictions(path) for path in (one.folder, folder))
    assert alone.keys() == both.keys()
    for name, column in alone.items():
        torch.testing.assert_close(both[name], column, rtol=1e-4, atol=1e-4)
    table, other = (runs.read_epochs(path).drop(columns="seconds") for path in (one.folder, folder))
    np.testing.assert_allclose(other, table, rtol=1e-4, atol=1e-5)
    weights = [read_tensors(path / runs.LAST)["state_dict"] for path in (one.folder, folder)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_of_two_processes_one_tests_nothing(tmp_path: Path) -> None:
    one = ["data.split=iid", "data.val_fraction=0.001", "data.test_fraction=0.001"]
    ended = finish(start("train", *TINY, *TWO, "name=two", *one, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    metrics = read_json(tmp_path / "outputs/runs/two/metrics.json")
    assert (metrics["val/count"], metrics["test/count"]) == (1, 1)


@pytest.mark.slow
def test_two_processes_without_a_name_share_a_folder(tmp_path: Path) -> None:
    ended = finish(start("train", *TINY, *TWO, cwd=tmp_path))
    assert ended.code == 0, ended.stderr
    (folder,) = (tmp_path / "outputs/runs").iterdir()
    assert read_json(folder / "metrics.json")["test/count"] == 52


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_on_a_gpu_the_same_seed_gives_the_same_figures(precision: str, tmp_path: Path) -> None:
    settings = ["trainer=gpu", f"trainer.precision={precision}"]
    one, other = (run_with(tmp_path / name, *settings).metrics for name in ("one", "other"))
    assert "cpu" not in one["device"]
    assert figures(one) == figures(other)


def test_figures_of_a_run_that_goes_on_are_gone_until_it_ends(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a run killed on the way would stand there as finished."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    metrics = read_json(folder / "metrics.json")
    (folder / "metrics.json").write_text(json.dumps({**metrics, "ended": "max_time"}))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pixel_spotter.train._train", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run.cfg, folder, "cnn")
    assert not (folder / "metrics.json").exists()


@pytest.mark.parametrize(
    "described",
    [
        {"data_class": "mydata.Mine"},
        {"trained_before": [{"data_class": "mydata.Mine", "hyper_parameters": {}}]},
        {"hyper_parameters": {"member_class": "mydata.Mine"}},
        {"hyper_parameters": {"checkpoint": {"trained_on": [{"data_class": "mydata.Mine"}]}}},
        {"hyper_parameters": {"checkpoints": [{"hyper_parameters": {"model_class": "mydata.M"}}]}},
    ],
)
def test_the_predict_line_trusts_what_the_checkpoint_needs(
    described: dict[str, Any],
    tiny_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_run(tiny_run.folder, tiny_run.metrics)
    assert "trust" not in capsys.readouterr().out
    (tmp_path / "checkpoints").mkdir()
    checkpoint = torch.load(tiny_run.best, weights_only=True) | described
    torch.save(checkpoint, tmp_path / "checkpoints/best.ckpt")
    print_run(tmp_path, tiny_run.metrics)
    assert " trust=[mydata] " in capsys.readouterr().out
