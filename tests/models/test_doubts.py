"""Answers of models that say nothing of themselves get a flag."""

import numpy as np
import pytest
import torch
from conftest import CPU, compose

from pixel_spotter.coordinates import FLAGS, Columns
from pixel_spotter.data.diverse import DiverseDataModule
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.doubts import familiar_looks, looks, with_flag
from pixel_spotter.models.loading import load_model
from pixel_spotter.train import train


def pixel(background: float = 0, brightness: float = 1, size: int = 20) -> torch.Tensor:
    image = torch.full((1, 1, size, size), float(background))
    image[0, 0, 5, 12] = brightness
    return image


def flag(image: torch.Tensor, familiar: torch.Tensor, x: float = 3) -> str:
    columns = {"x": torch.tensor([x]), "y": torch.tensor([4.0])}
    return FLAGS[int(with_flag(columns, image, familiar)["flag"])]


CLEAN = familiar_looks([PixelDataModule(20)])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (pixel(), ""),
        (pixel(brightness=250 / 255), ""),
        (pixel(size=90), ""),
        (pixel(brightness=60 / 255), "unlike training"),
        (pixel(brightness=16.0), "unlike training"),
        (pixel(background=0.1), "unlike training"),
        (pixel(background=-0.1), "unlike training"),
        (1 - pixel(), "unlike training"),
        (pixel() + 0.1 * torch.rand(1, 1, 20, 20), "unlike training"),
        (torch.zeros(1, 1, 20, 20), "nothing found"),
        (torch.ones(1, 1, 20, 20), "nothing found"),
    ],
)
def test_looks_unlike_those_of_clean_pixels(image: torch.Tensor, expected: str) -> None:
    assert flag(image, CLEAN) == expected


def test_answers_outside_the_frame() -> None:
    for x, expected in ((-0.5, ""), (19.5, ""), (-0.6, "outside"), (19.6, "outside")):
        assert flag(pixel(), CLEAN, x) == expected


def test_what_is_no_answer_is_taken_back() -> None:
    columns: Columns = {name: torch.ones(2) for name in ("x", "y", "objectness")}
    image = torch.cat([pixel(), torch.zeros(1, 1, 20, 20)])
    found = with_flag(columns, image, None)
    for name in columns:
        assert found[name][0] == 1
        assert found[name][1].isnan()


def test_diverse_data_is_familiar_to_those_trained_on_it() -> None:
    data = DiverseDataModule(image_size=20)
    familiar = familiar_looks([data])
    image = data.batch("test", 0, torch.arange(80)).image
    columns = {name: torch.ones(80) for name in ("x", "y")}
    assert (with_flag(columns, image, familiar)["flag"] > 0).float().mean() < 0.03
    assert flag(pixel(background=0.3, brightness=0.9), familiar) == ""
    assert flag(pixel(brightness=0.1), familiar) == "unlike training"
    assert flag(pixel(background=0.8), familiar) == "unlike training"


def test_what_was_trained_on_before_is_familiar_too() -> None:
    both = familiar_looks([PixelDataModule(20), DiverseDataModule(image_size=20)])
    assert flag(pixel(), both) == flag(pixel(background=0.3, brightness=0.9), both) == ""


def test_looks_by_hand() -> None:
    image = torch.arange(101.0)[torch.randperm(101)].view(1, 1, 1, 101)
    assert looks(image).tolist() == [[0, 50, 80, 100]]


def test_a_model_knows_what_it_was_trained_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    words = [*CPU, "model=cnn", "model.channels=[4]", "model.hidden=[8]", "trainer.max_epochs=1"]
    train(compose([*words, "data.image_size=20", "data.train_samples=100"]), folder, "cnn")
    model, _ = load_model(folder / "checkpoints/best.ckpt")
    images = torch.cat([pixel(), pixel(background=0.3)])[:, 0].numpy()
    assert model.predict(images)["flag"].tolist() == [0, FLAGS.index("unlike training")]
    unknown: PointRegressor = CNNRegressor(20, channels=[4], hidden=[8])
    assert unknown.predict(images)["flag"].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_large_whole_numbers_do_not_say_what_is_white(dtype: type) -> None:
    model = CNNRegressor(20, channels=[4], hidden=[8])
    with pytest.raises(ValueError, match="does not say what is white"):
        model.predict(np.ones((1, 20, 20), dtype))
