"""Answers of models that say nothing of themselves get a flag."""

import math

import numpy as np
import pytest
import torch
from conftest import CPU, compose

from pixel_spotter.coordinates import FLAGS, Columns
from pixel_spotter.data.diverse import DiverseDataModule
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.doubts import familiar_looks, looks, noise, score, with_flag
from pixel_spotter.models.loading import load_model
from pixel_spotter.simulation.psf import GaussianPSF, light
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


def score_at(x: float, y: float, image: torch.Tensor) -> float:
    return score({"x": torch.tensor([x]), "y": torch.tensor([y])}, image).item()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 255.0, 65535.0])
@pytest.mark.parametrize("background", [0.0, 0.25])
def test_a_clean_pixel_stands_out_of_its_frame(scale: float, background: float) -> None:
    image = scale * pixel(background, 1)
    assert score_at(12.2, 4.9, image) == pytest.approx(20, rel=0.01)
    assert abs(score_at(3, 5, image)) < 0.1, "a wrong answer"


def test_where_there_is_no_difference_or_no_answer_nothing_stands_out() -> None:
    for value in (0.0, 0.1, 1.0, 1e6):
        assert score_at(12, 5, torch.full((1, 1, 20, 20), value)) == 0
    assert score_at(math.nan, math.nan, pixel()) == 0
    assert score_at(12, 5, torch.full((1, 1, 20, 20), torch.nan)) == 0


@pytest.mark.parametrize("size", [15, 50])
@pytest.mark.parametrize("level", [0.0, 100.0])
def test_spots_stand_out_as_their_light_says(size: int, level: float) -> None:
    random, count, photons, sd = torch.Generator().manual_seed(0), 400, 300.0, 3.0
    xy = torch.full((count, 2), size // 2) + torch.rand(count, 2, generator=random) - 0.5
    spots = torch.cat([xy, torch.full((count, 1), photons)], dim=1)[:, None]
    flat = torch.full((count,), level)
    image = light(GaussianPSF(), spots, flat, torch.full((count,), 1.2), (size, size))
    image = image + sd * torch.randn(image.shape, generator=random)
    found = score({"x": xy[:, 0], "y": xy[:, 1]}, image[:, None])
    # The pixel's own area widens a spot by a variance of 1/12 px².
    wide = 1.2**2 + 1 / 12
    expected = photons * 1.2 / (math.sqrt(math.pi) * (1.2**2 + wide)) / sd
    assert found.mean().item() == pytest.approx(expected, rel=0.1 if size == 15 else 0.02)
    beside = score({"x": xy[:, 0] * 0 + 1, "y": xy[:, 1] * 0 + 1}, image[:, None])
    assert beside.mean().item() == pytest.approx(0.4, abs=0.3), "the larger of two of noise"


def test_gaps_and_answers_outside_leave_scores_as_they_are() -> None:
    theta = torch.tensor([[[12.2, 8.9, 1000.0]]])
    image = light(GaussianPSF(), theta, torch.ones(1), torch.full((1,), 1.5), (20, 24))[:, None]
    image += 2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    cut = image[..., :10, :]
    image[..., 10:, :] = torch.nan
    assert score_at(12, 9, image) > 50
    assert score_at(12, 9, image) == pytest.approx(score_at(12, 9, cut), rel=1e-4)
    for x in (-7.0, 40.0):
        assert abs(score_at(x, 5, image)) < 5


def test_noise_leaves_out_what_is_none_but_not_the_few_that_differ() -> None:
    random = torch.Generator().manual_seed(0)
    image = 1000 + 2 * torch.randn(1, 50, 50, generator=random)
    image[:, 7] += 500
    mean, deviation = noise(image)
    assert mean.item() == pytest.approx(1000, abs=0.2)
    assert deviation.item() == pytest.approx(2, rel=0.05)
    few = torch.poisson(torch.full((1, 200, 200), 0.02), generator=random)
    assert noise(few)[1].item() == pytest.approx(math.sqrt(0.02), rel=0.1)


@pytest.mark.parametrize("estimator", ["argmax", "maximum_likelihood"])
def test_answers_that_are_none_have_no_score(estimator: str) -> None:
    """Of models that flag by themselves as well."""
    theta = torch.tensor([[[12.2, 4.9, 500.0]]])
    spot = light(GaussianPSF(), theta, torch.ones(1), torch.ones(1), (20, 20))[:, None]
    images = torch.cat([spot, torch.zeros_like(spot)])[:, 0].numpy()
    found = ClosedForm(20, estimator).predict(images)
    assert found["score"][0] > 10
    assert found["score"][1] == 0
    assert np.isnan(found["x"][1])
