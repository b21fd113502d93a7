"""A checkpoint as a model of its own."""

from pathlib import Path

import pytest
import torch
from conftest import CPU, TINY, compose, save_checkpoint

from pixel_spotter.errors import UserError
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.spotter import SpotterRegressor
from pixel_spotter.models.trained import TrainedRegressor
from pixel_spotter.train import train


def test_it_answers_as_its_checkpoint_and_says_that_it_was_not_trained_here(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "cnn.ckpt", CNNRegressor(16, channels=[4], hidden=[8]), 16)
    words = [word for word in TINY if not word.startswith(("model.", "optim."))]
    cfg = compose([*CPU, *words, "model=trained", f"model.checkpoint={tmp_path / 'cnn.ckpt'}"])
    metrics = train(cfg, tmp_path / "run", "trained")
    assert metrics["trained_here"] is False
    assert metrics["parameters"] == load_model(tmp_path / "cnn.ckpt")[0].count_parameters()
    (tmp_path / "cnn.ckpt").rename(tmp_path / "moved.ckpt")
    image = torch.rand(3, 1, 16, 16)
    again, moved = (
        load_model(tmp_path / name)[0](image)
        for name in ("run/checkpoints/best.ckpt", "moved.ckpt")
    )
    assert torch.equal(again, moved)


def test_a_spotter_searches_images_of_other_sizes_as_it_is_told(tmp_path: Path) -> None:
    spotter = SpotterRegressor(15, window=9, widths=[8], margin_px=6)
    save_checkpoint(tmp_path / "spotter.ckpt", spotter, 15)
    image = torch.zeros(1, 1, 40, 30)
    image[0, 0, 3, 3], image[0, 0, 20, 15] = 900.0, 500.0
    found = {
        margin: TrainedRegressor([40, 30], str(tmp_path / "spotter.ckpt"), margin)(image)[0]
        for margin in (0, 10)
    }
    assert (found[0] - 3).abs().max() < 3
    assert (found[10] - torch.tensor([15, 20])).abs().max() < 3


def test_a_model_of_images_of_another_size(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "cnn.ckpt", CNNRegressor(16, channels=[4], hidden=[8]), 16)
    with pytest.raises(UserError, match="takes images of 16x16 px, not of 20x20 px"):
        TrainedRegressor(20, str(tmp_path / "cnn.ckpt"))
