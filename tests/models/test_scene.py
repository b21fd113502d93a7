import math

import pytest
import torch

from pixel_spotter import bound, estimators
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.scene import SIDE, Scene, ask, record, smallest_covariance, standing

ALONE = Scene(torch.tensor([[11.3, 12.4, 1000.0]]), 10.0, 1.2, 1.5)
TWO = ALONE._replace(spots=torch.tensor([[11.3, 12.4, 1000.0], [14.8, 12.4, 700.0]]))


def test_images_differ_in_their_noise_alone() -> None:
    images = record(TWO, 500, seed=3)
    assert images.shape == (500, SIDE, SIDE)
    assert torch.equal(images, record(TWO, 500, seed=3))
    assert not torch.equal(images, record(TWO, 500, seed=4))
    light = (images - 10).sum(dim=(1, 2)).mean().item()
    assert light == pytest.approx(1700, abs=4 * math.sqrt((1700 + 625 * 12.25) / 500))
    assert images[:, 0, 0].var().item() == pytest.approx(10 + 1.5**2, rel=0.3)


def test_the_bound_is_that_of_the_package() -> None:
    along = bound(1000, 10, 1.2, size=SIDE, xy=[11.3, 12.4], read_noise=1.5)
    (covariance,) = smallest_covariance(ALONE)
    assert covariance.diagonal().sqrt().tolist() == pytest.approx([*map(float, along)], rel=1e-6)
    first, second = smallest_covariance(TWO)
    data = SpotDataModule(SIDE, sigma_px=1.2, neighbour_probability=1, read_noise=1.5)
    (x, y, photons), (x2, y2, photons2) = TWO.spots.tolist()
    truth = {"x": x, "y": y, "photons": photons, "background": 10, "sigma_px": 1.2}
    beside = {"neighbour_x": x2, "neighbour_y": y2, "neighbour_photons": photons2}
    told = {**truth, **beside, "read_noise": 1.5}
    floor = data.floor({f"{name}_true": torch.tensor([value]) for name, value in told.items()})
    expected = [floor["bound_x"].item(), floor["bound_y"].item()]
    assert first.diagonal().sqrt().tolist() == pytest.approx(expected, rel=1e-5)
    assert first[0, 0] > 1.05 * covariance[0, 0], "along the line to the neighbour, less is known"
    assert second[1, 1] > first[1, 1], "and less of the dimmer one"
    same = ALONE._replace(spots=ALONE.spots.repeat(2, 1))
    assert smallest_covariance(same).isnan().all()


def test_everyone_is_asked_and_fits_are_on_the_bound() -> None:
    spotter, _ = load_model("spotter")
    deviation = math.sqrt(smallest_covariance(TWO)[0].trace() / 2)
    answers = ask(record(TWO, 400, 0), TWO, {"spotter": spotter})
    assert [*answers] == [*estimators.__all__, "spotter"]
    over = {name: standing(answer, TWO).rmse / deviation for name, answer in answers.items()}
    assert over["maximum_likelihood_pair"] == pytest.approx(1, abs=0.1)
    assert over["spotter"] == pytest.approx(1, abs=0.2)
    assert over["maximum_likelihood"] > 2, "a single fit lies between the two"
    pair = standing(answers["maximum_likelihood_pair"], TWO)
    assert pair.sd == pytest.approx(deviation, rel=0.2)
    assert math.isnan(standing(answers["phasor"], TWO).sd)


def test_answers_are_held_against_the_closest_spot() -> None:
    answer = {
        "x": torch.tensor([11.4, 14.8, 11.3, math.nan]),
        "y": torch.tensor([12.4, 12.5, 12.6, math.nan]),
        "sd_x": torch.tensor([0.3, 0, 0, 0]),
        "sd_y": torch.tensor([0.4, 0, 0, 0]),
        "flag": torch.tensor([5, 0, 0, 1]),
    }
    found = standing(answer, TWO)
    assert found.of.tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(
        found.away[:3], torch.tensor([[0.1, 0], [0, 0.1], [0, 0.2]]).double(), atol=1e-6, rtol=0
    )
    assert found.rmse == pytest.approx(math.sqrt((0.1**2 + 0.2**2) / 4), abs=1e-6)
    assert found.sd == pytest.approx(math.sqrt((0.3**2 + 0.4**2) / 2), abs=1e-6)
    assert (found.flag, found.others) == (5, 0.25)
