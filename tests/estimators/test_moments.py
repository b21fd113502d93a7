import pytest
import torch

from pixel_spotter.coordinates import FLAGS, Size, all_positions, as_xy
from pixel_spotter.estimators import argmax, centre_of_mass
from pixel_spotter.simulation.pixels import render_pixels


def image(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([list(rows)])


@pytest.mark.parametrize("size", [(50, 50), (7, 4)])
@pytest.mark.parametrize("estimator", [argmax, centre_of_mass])
def test_exact_on_every_clean_image(estimator, size: Size) -> None:
    positions = all_positions(size)
    found = estimator(render_pixels(positions, size)[:, 0])
    assert [*found] == ["x", "y", "flag"]
    assert not found["flag"].any()
    assert torch.equal(as_xy(found), positions.float())


def test_argmax_by_hand() -> None:
    assert as_xy(argmax(image([0.1, 0.2, 0.3], [0.4, 0.9, 0.8]))).tolist() == [[1, 1]]


def test_of_equally_bright_pixels_the_first() -> None:
    assert as_xy(argmax(image([0.0, 0.0, 0.5], [0.5, 0.5, 0.0]))).tolist() == [[2, 0]]


def test_centroid_by_hand() -> None:
    # x: (0 * 1 + 2 * 3) / 4; y: (0 * 1 + 1 * 3) / 4
    assert as_xy(centre_of_mass(image([1.0, 0.0, 0.0], [0.0, 0.0, 3.0]))).tolist() == [[1.5, 0.75]]


@pytest.mark.parametrize("estimator", [argmax, centre_of_mass])
def test_images_without_a_difference_have_no_answer(estimator) -> None:
    nothing = torch.full((1, 2, 3), torch.nan)
    partly = image([torch.nan, 0.0, 7.0], [0.0, 0.0, 0.0])
    found = estimator(torch.cat([torch.zeros(1, 2, 3), nothing, nothing * 0 + 3, partly]))
    assert [FLAGS[int(flag)] for flag in found["flag"]] == ["nothing found"] * 3 + [""]
    assert as_xy(found)[:3].isnan().all()
    assert as_xy(found)[3].tolist() == [2.0, 0.0]
