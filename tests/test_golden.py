"""What version 0.1 wrote and found, this version reads and finds again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, compose

from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.loading import load_model
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import train

FOLDER = Path(__file__).with_name("golden")
GOLDEN: dict[str, Any] = json.loads((FOLDER / "version_0_1.json").read_text())

SHORT = [
    *CPU,
    "trainer.max_epochs=2",
    "data.image_size=16",
    "data.train_samples=64",
    "data.batch_size=16",
]
SMALL = "model.channels=[4,8]"
RUNS = {
    "argmax": [],
    "centroid": [],
    "heatmap": [],
    "coordconv": [],
    "simcc": [SMALL, "model.hidden=[16]"],
    "yolo": [SMALL],
    "svm": ["model.blur_px=2.0"],
    "cnn": [SMALL, "model.hidden=[16]", "optim.lr=0.01"],
    "resnet18_scratch": ["trainer.max_epochs=1"],
    "ensemble": ["model.members=2", "model.member.channels=[4,8]", "model.member.hidden=[16]"],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_checkpoint_of_0_1_answers_as_it_did(name: str) -> None:
    model, data = load_model(FOLDER / f"{name}.ckpt")
    images = render_pixels(all_positions((16, 16))[::7], (16, 16))
    with torch.inference_mode():
        columns = model.estimate(images)
    assert {*columns} - {"flag"} == {*GOLDEN[name]["columns"]}  # closed forms had no flags
    for column, values in GOLDEN[name]["columns"].items():
        np.testing.assert_allclose(columns[column], values, atol=2e-4, err_msg=column)
    assert dict(data.hparams) == GOLDEN[name]["data"]


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_finds_what_it_found_in_0_1(name: str, tmp_path: Path) -> None:
    cfg = compose([*SHORT, f"model={name}", *RUNS[name]])
    metrics = train(cfg, tmp_path / "run", name)
    # A ResNet's training makes a hundredth of a pixel of other processors' rounding.
    near = {"rel": 5e-3, "abs": 0.02} if "resnet" in name else {"rel": 1e-3, "abs": 1e-4}
    for key, value in GOLDEN[name]["metrics"].items():
        if isinstance(value, float):
            assert metrics[key] == pytest.approx(value, **near), key
        else:
            assert metrics[key] == value, key
