import pytest
import torch

from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.argmax import ArgmaxRegressor
from pixel_spotter.models.centroid import CentroidRegressor
from pixel_spotter.simulation.pixels import render_pixels


@pytest.mark.parametrize("size", [50, [7, 4]])
@pytest.mark.parametrize("kind", [ArgmaxRegressor, CentroidRegressor])
def test_exact_on_every_clean_image(
    kind: type[ArgmaxRegressor | CentroidRegressor], size: int | list[int]
) -> None:
    model = kind(size)
    positions = all_positions(model.size)
    assert torch.equal(model(render_pixels(positions, model.size)), positions.float())
    assert model.count_parameters() == 0


def image(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([[list(rows)]])


def test_argmax_by_hand() -> None:
    model = ArgmaxRegressor([2, 3])
    assert model(image([0.1, 0.2, 0.3], [0.4, 0.9, 0.8])).tolist() == [[1, 1]]
    assert model(image([0.0, 0.0, 0.5], [0.5, 0.5, 0.0])).tolist() == [[2, 0]], "the first of ties"


def test_centroid_by_hand() -> None:
    model = CentroidRegressor([2, 3])
    # x: (0 * 1 + 2 * 3) / 4; y: (0 * 1 + 1 * 3) / 4
    assert model(image([1.0, 0.0, 0.0], [0.0, 0.0, 3.0])).tolist() == [[1.5, 0.75]]


def test_a_black_image_has_its_centroid_in_the_centre() -> None:
    assert CentroidRegressor([2, 3])(torch.zeros(1, 1, 2, 3)).tolist() == [[1.0, 0.5]]
