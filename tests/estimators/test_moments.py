import pytest
import torch

from pixel_spotter.coordinates import Size, all_positions, as_xy
from pixel_spotter.estimators import argmax, centre_of_mass
from pixel_spotter.simulation.pixels import render_pixels


def image(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([list(rows)])


@pytest.mark.parametrize("size", [(50, 50), (7, 4)])
@pytest.mark.parametrize("estimator", [argmax, centre_of_mass])
def test_exact_on_every_clean_image(estimator, size: Size) -> None:
    positions = all_positions(size)
    found = estimator(render_pixels(positions, size)[:, 0])
    assert [*found] == ["x", "y"]
    assert torch.equal(as_xy(found), positions.float())


def test_argmax_by_hand() -> None:
    assert as_xy(argmax(image([0.1, 0.2, 0.3], [0.4, 0.9, 0.8]))).tolist() == [[1, 1]]


def test_of_equally_bright_pixels_the_first() -> None:
    assert as_xy(argmax(image([0.0, 0.0, 0.5], [0.5, 0.5, 0.0]))).tolist() == [[2, 0]]


def test_centroid_by_hand() -> None:
    # x: (0 * 1 + 2 * 3) / 4; y: (0 * 1 + 1 * 3) / 4
    assert as_xy(centre_of_mass(image([1.0, 0.0, 0.0], [0.0, 0.0, 3.0]))).tolist() == [[1.5, 0.75]]


def test_a_black_image_has_its_centroid_in_the_centre() -> None:
    both = torch.cat([torch.zeros(1, 2, 3), image([0.0, 0.0, 7.0], [0.0, 0.0, 0.0])])
    assert as_xy(centre_of_mass(both)).tolist() == [[1.0, 0.5], [2.0, 0.0]]
