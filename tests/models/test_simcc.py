import pytest
import torch

from pixel_spotter.models.simcc import AxisBins, SimCCRegressor
from pixel_spotter.simulation.pixels import render_pixels


def test_bins_by_hand() -> None:
    head = AxisBins(1, (2, 3), bins_per_px=2)
    assert head.x_px.tolist() == [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25]
    assert head.y_px.tolist() == [-0.25, 0.25, 0.75, 1.25]
    wider = AxisBins(1, (2, 3), bins_per_px=1, margin_px=2)
    assert wider.x_px.tolist() == [-2, -1, 0, 1, 2, 3, 4]


def test_equal_logits_expect_the_centre() -> None:
    head = AxisBins(4, (5, 9), bins_per_px=3, margin_px=3)
    torch.nn.init.zeros_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    assert head(torch.rand(1, 4)).tolist() == [pytest.approx([4, 2])]


@pytest.mark.parametrize("xy", [(0, 0), (15, 0), (0, 11), (7, 5)])
def test_the_labels_expect_the_truth_also_in_the_corners(xy: tuple[int, int]) -> None:
    """The least loss is reached by logits whose expectation is the true position."""
    model = SimCCRegressor([12, 16], channels=[2], hidden=[4])
    image, truth = render_pixels(torch.tensor([xy]), (12, 16)), torch.tensor([xy]).float()
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
