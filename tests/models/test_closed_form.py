import pytest
import torch

from pixel_spotter import estimators
from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.simulation.pixels import render_pixels


@pytest.mark.parametrize("estimator", estimators.__all__)
@pytest.mark.parametrize("size", [50, [7, 4]])
def test_exact_on_every_clean_image(estimator: str, size: int | list[int]) -> None:
    model = ClosedForm(size, estimator)
    positions = all_positions(model.size)
    assert torch.equal(model(render_pixels(positions, model.size)), positions.float())
    assert model.count_parameters() == 0


def test_it_answers_with_the_estimator_that_was_named() -> None:
    image = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]]])
    assert ClosedForm([2, 3], "argmax")(image).tolist() == [[2, 1]]
    assert ClosedForm([2, 3], "centroid")(image).tolist() == [[1.5, 0.75]]


@pytest.mark.parametrize("estimator", ["median", "torch", "__all__"])
def test_an_estimator_that_is_not_there(estimator: str) -> None:
    with pytest.raises(ValueError, match=r"model\.estimator must be one of argmax, centroid"):
        ClosedForm(16, estimator)
