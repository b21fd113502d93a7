"""A precision of training that chooses itself: nobody's figures depend on luck."""

import logging
import shutil
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import TINY, Run, compose, figures

from pixel_spotter.errors import UserError
from pixel_spotter.estimators import maximum_likelihood
from pixel_spotter.evaluate import evaluate
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.spotter import SpotterRegressor
from pixel_spotter.train import dry_run, train

AUTO = "trainer.precision=auto"


def have_units(monkeypatch: pytest.MonkeyPatch, there: bool = True, learns: bool = True) -> None:
    """Say what the processor has, and what the CNN was shown to do."""
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: there)
    monkeypatch.setattr(CNNRegressor, "learns_in_bfloat16", learns)


def run_auto(folder: Path, *overrides: str) -> Run:
    cfg = compose([*TINY, AUTO, *overrides])
    return Run(folder, cfg, train(cfg, folder, "cnn"))


@pytest.mark.parametrize(
    ("units", "learns", "precision", "why"),
    [
        (True, True, "bf16-mixed", "this processor has units for bfloat16"),
        (False, True, "32-true", "this processor has no units for bfloat16"),
        (True, False, "32-true", "cnn was not shown to learn as well in bfloat16"),
    ],
)
def test_what_is_chosen_and_why(
    units: bool,
    learns: bool,
    precision: str,
    why: str,
    tiny_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    have_units(monkeypatch, units, learns)
    metrics = run_auto(tmp_path / "run").metrics
    assert metrics["precision"] == precision
    assert f"precision of training: {precision}, {why}" in caplog.messages
    same = figures(metrics) == figures(tiny_run.metrics)  # which is in float32
    assert same == (precision == "32-true")
    error = tiny_run.metrics["test/mean_error_px"]
    assert metrics["test/mean_error_px"] == pytest.approx(error, rel=0.2)


def test_figures_are_those_of_the_checkpoints_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are in float32, whatever it was trained in."""
    have_units(monkeypatch)
    run = run_auto(tmp_path / "run")
    cfg = compose([f"checkpoint={run.best}", "trainer=cpu"], "evaluate")
    again = evaluate(cfg, tmp_path / "evaluation")
    assert again["precision"] == "32-true"
    for key in (key for key in again if key.startswith("test/") and key != "test/seen_in_training"):
        assert again[key] == run.metrics[key], key


@pytest.mark.parametrize("begun_with", [True, False])
def test_an_interrupted_run_goes_on_in_the_precision_that_it_began_with(
    begun_with: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_units(monkeypatch, begun_with)
    whole = run_auto(tmp_path / "whole")

    def stop(seed: object, trainer: L.Trainer, *_: object) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pixel_spotter.training.callbacks.SeedEachEpoch.on_train_epoch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            train(whole.cfg, tmp_path / "run", "cnn")
    have_units(monkeypatch, not begun_with)
    again = train(whole.cfg, tmp_path / "run", "cnn")
    assert again["precision"] == whole.metrics["precision"]
    assert figures(again) == figures(whole.metrics)


def test_a_run_of_before_goes_on_in_float32(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config says 32-true, which was the default; its checkpoint says nothing."""
    have_units(monkeypatch)
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    for path in (tmp_path / "run/checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint.pop("precision") == "32-true"
        torch.save(checkpoint, path)
    again = run_auto(tmp_path / "run").metrics
    assert again["precision"] == "32-true"
    assert figures(again) == figures(tiny_run.metrics)


def test_a_run_that_chose_is_not_gone_on_with_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_units(monkeypatch)
    run_auto(tmp_path / "run")
    with pytest.raises(UserError, match="precision is auto there and 32-true here"):
        train(compose(TINY), tmp_path / "run", "cnn")


def test_a_precision_that_a_cpu_does_not_have_is_refused(tmp_path: Path) -> None:
    cfg = compose([*TINY, "trainer.precision=16-mixed"])
    for command in (train, dry_run):
        with pytest.raises(UserError, match=r"^trainer\.precision=16-mixed cannot .* on a CPU"):
            command(cfg, tmp_path / "run", "cnn")


@pytest.mark.parametrize("name", ["maximum_likelihood", "spotter"])
def test_fits_and_the_search_for_spots_stay_in_float32(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.poisson(torch.full((64, 1, 24, 24), 900.0), generator)
    if name == "spotter":
        model = SpotterRegressor(24, window=13)
        model.features.requires_grad_(False)

        def found() -> torch.Tensor:
            return model._read(image[:, 0])[0].corner
    else:
        fit = ClosedForm(24, maximum_likelihood.__name__)

        def found() -> torch.Tensor:
            return fit(image)

    full = found()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found().nan_to_num(-1), full.nan_to_num(-1))
