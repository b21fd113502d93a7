import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from conftest import CPU, CommandServer, compose, figures, read_json

from pixel_spotter.models.svm import SVMRegressor
from pixel_spotter.train import train

SVM = [*CPU, "model=svm", "data.image_size=16", "data.train_samples=100", "model.blur_px=2"]


def test_a_solved_run_is_continued_without_solving_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(SVM)
    first = train(cfg, tmp_path / "run", "svm")
    assert (first["epochs"], first["lr"]) == (1, None)
    assert first["parameters"] > 100
    (tmp_path / "run/metrics.json").unlink()

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("solved again")

    monkeypatch.setattr(SVMRegressor, "solve", refuse)
    assert figures(train(cfg, tmp_path / "run", "svm")) == figures(first)


def test_a_solved_model_through_every_command(run_command: CommandServer, tmp_path: Path) -> None:
    assert run_command("train", *SVM, "name=s", cwd=tmp_path).code == 0
    run = tmp_path / "outputs/runs/s"
    best = f"checkpoint={run / 'checkpoints/best.ckpt'}"
    ended = run_command("evaluate", best, "name=again", "trainer=cpu", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    again = read_json(tmp_path / "outputs/evaluations/again/metrics.json")
    metrics = read_json(run / "metrics.json")
    assert again["test/mean_error_px"] == metrics["test/mean_error_px"]
    assert again["parameters"] == metrics["parameters"]


def test_several_devices_have_nothing_to_share(run_command: CommandServer, tmp_path: Path) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two cores")
    ended = run_command("train", *CPU, "model=argmax", "trainer.devices=2", cwd=tmp_path)
    assert "model=argmax is solved, not trained" in ended.error()
