import pytest
import torch

from pixel_spotter.coordinates import pixel_of
from pixel_spotter.models.simcc import SimCCRegressor
from pixel_spotter.simulation.pixels import render_pixels


@pytest.mark.parametrize("xy", [(0, 0), (15, 0), (0, 11), (7, 5), (-0.3, 11.5), (15.5, 4.2)])
def test_the_labels_expect_the_truth_also_in_the_corners(xy: tuple[float, float]) -> None:
    """The least loss is reached by logits whose expectation is the true position."""
    model = SimCCRegressor([12, 16], channels=[2], hidden=[4])
    image = render_pixels(pixel_of(torch.tensor([xy]), (12, 16)), (12, 16))
    truth = {"x_true": torch.tensor([xy[0]]), "y_true": torch.tensor([xy[1]])}
    head = model.head
    torch.nn.init.zeros_(head.linear.weight)
    bins = torch.cat([-(head.x_px - xy[0]).square() / 2, -(head.y_px - xy[1]).square() / 2])
    with torch.no_grad():
        head.linear.bias.copy_(bins)
    loss = model.training_loss(image, truth)
    loss.backward()
    assert model(image).tolist() == [pytest.approx(xy, abs=0.02)]
    assert head.linear.bias.grad is not None
    assert head.linear.bias.grad.abs().max() < 1e-6


@pytest.mark.parametrize("wrong", [{"bins_per_px": 0}, {"sigma_px": 0.0}], ids=str)
def test_arguments_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"model\.{next(iter(wrong))}"):
        SimCCRegressor(16, **wrong)  # type: ignore[arg-type]
