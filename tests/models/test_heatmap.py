import math

import pytest
import torch
from conftest import predicted

from pixel_spotter.coordinates import all_positions
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.metrics import figures_of
from pixel_spotter.models.heatmap import HeatmapRegressor, js_divergence
from pixel_spotter.simulation.pixels import render_pixels


def test_js_divergence_of_distributions_known() -> None:
    positions = all_positions((1, 40)).float()
    target = torch.tensor([[20.0, 0.0]])
    same = -(positions[:, 0] - 20).square() / 2
    far = torch.full((40,), -1e9)
    far[0] = 0.0
    maps = torch.stack([same, far]).reshape(2, 1, 1, 40)
    divergence = js_divergence(maps, positions, target.expand(2, 2), sigma_px=1.0)
    assert divergence.tolist() == pytest.approx([0.0, math.log(2)], abs=1e-5)


def test_the_regularizer_is_added_in_its_weight() -> None:
    image = render_pixels(torch.tensor([[3, 4]]), (12, 12))
    truth = {"x_true": torch.tensor([3.0]), "y_true": torch.tensor([4.0])}
    losses = []
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        losses.append(HeatmapRegressor(12, js_weight=weight).training_loss(image, truth).item())
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)
    assert 0 < losses[1] - losses[0] <= math.log(2)


def test_153_parameters() -> None:
    assert HeatmapRegressor(50).count_parameters() == 153


@torch.no_grad()
def test_the_answer_moves_with_the_pixel() -> None:
    """Logits that peak at the pixel give the same offset in the corner as in the middle."""
    torch.manual_seed(0)
    model = HeatmapRegressor([20, 30], channels=[4, 4])
    for parameter in model.parameters():
        parameter.mul_(8.0)
    maps = model.encode(render_pixels(torch.tensor([[10, 10], [0, 0], [29, 19]]), (20, 30)))
    reach = 3
    middle, first, last = (
        maps[k, 0, y + reach - 3 : y + reach + 4, x + reach - 3 : x + reach + 4]
        for k, (x, y) in enumerate([(10, 10), (0, 0), (29, 19)])
    )
    assert middle.shape == first.shape == last.shape == (7, 7)
    torch.testing.assert_close(first, middle)
    torch.testing.assert_close(last, middle)


@pytest.mark.parametrize("split", ["uniform", "quadrant", "border"])
def test_every_position_is_exact_wherever_it_was_trained(split: str) -> None:
    size = (24, 24)
    data = PixelDataModule(image_size=24, split=split, train_samples=1600, batch_size=32)
    torch.manual_seed(0)
    model = HeatmapRegressor(24)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for samples in torch.arange(data.counts["train"]).split(32):
        batch = data.batch("train", 0, samples)
        optimizer.zero_grad()
        model.training_loss(batch.image, batch.truth).backward()
        optimizer.step()
    positions = all_positions(size)
    with torch.no_grad():
        found = model(render_pixels(positions, size))
    figures = figures_of(predicted(found, positions.float()))
    assert figures["hit_rate"] == 1
    assert figures["max_error_px"] < 0.1


@pytest.mark.parametrize(
    "wrong", [{"channels": [0]}, {"js_weight": -1.0}, {"sigma_px": 0.0}], ids=str
)
def test_arguments_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"model\.{next(iter(wrong))}"):
        HeatmapRegressor(10, **wrong)  # type: ignore[arg-type]
