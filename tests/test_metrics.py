import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixel_spotter.metrics import Predictions, errors_px, point_metrics

TRUE = torch.tensor([[0.0, 0.0], [10.0, 5.0], [3.0, 3.0], [7.0, 2.0]])
PRED = TRUE + torch.tensor([[3.0, 4.0], [0.25, 0.0], [0.0, -1.0], [0.0, 0.0]])

# errors 5, 0.25, 1, 0; squared differences 9 + 16 + 0.0625 + 1 over 8 coordinates
BY_HAND = {
    "mean_error_px": 1.5625,
    "median_error_px": 0.625,
    "p95_error_px": 1 + 0.85 * 4,
    "max_error_px": 5.0,
    "mse_px2": 3.2578125,
    "rmse_px": 3.2578125**0.5,
    "hit_rate": 0.5,
    "within_1px": 0.75,
    "bias_x_px": 0.8125,
    "bias_y_px": 0.75,
    "count": 4,
}


def test_errors_are_distances() -> None:
    assert errors_px(PRED, TRUE).tolist() == [5, 0.25, 1, 0]


@pytest.mark.parametrize("key", BY_HAND)
def test_each_figure_by_hand(key: str) -> None:
    assert point_metrics(PRED, TRUE)[key] == pytest.approx(BY_HAND[key])


def test_there_are_no_other_figures() -> None:
    assert point_metrics(PRED, TRUE).keys() == BY_HAND.keys()


def test_perfect_predictions() -> None:
    figures = point_metrics(TRUE, TRUE)
    assert figures["hit_rate"] == figures["within_1px"] == 1
    assert figures["max_error_px"] == figures["rmse_px"] == figures["bias_x_px"] == 0


@pytest.mark.parametrize(
    ("offset", "hit"), [((0.49, -0.49), 1), ((0.51, 0), 0), ((0, -0.51), 0), ((0.49, 0.51), 0)]
)
def test_a_hit_rounds_to_the_true_pixel(offset: tuple[float, float], hit: int) -> None:
    true = torch.tensor([[20.0, 31.0]])
    assert point_metrics(true + torch.tensor([offset]), true)["hit_rate"] == hit


@given(st.integers(0, 2**31), st.integers(1, 60))
def test_figures_hang_together(seed: int, count: int) -> None:
    random = torch.Generator().manual_seed(seed)
    true = torch.randint(0, 50, (count, 2), generator=random).float()
    pred = true + 2 * torch.randn(count, 2, generator=random)
    f = point_metrics(pred, true)
    assert f["median_error_px"] <= f["p95_error_px"] <= f["max_error_px"]
    assert f["mean_error_px"] <= 2**0.5 * f["rmse_px"] + 1e-9
    assert f["hit_rate"] <= f["within_1px"] + 1e-9
    order = torch.randperm(count, generator=random)
    assert point_metrics(pred[order], true[order]) == pytest.approx(f)
    swapped = point_metrics(pred.flip(1), true.flip(1))
    assert (swapped["bias_x_px"], swapped["bias_y_px"]) == (f["bias_y_px"], f["bias_x_px"])


def test_half_precision_inputs_do_not_round_the_figures() -> None:
    true = torch.full((3000, 2), 40.0)
    pred = true + 0.25
    assert point_metrics(pred.bfloat16(), true.bfloat16())["bias_x_px"] == 0.25


def test_predictions_collect_batches_in_order() -> None:
    collected = Predictions()
    extra = torch.arange(len(PRED)).float().unsqueeze(1)
    collected.update(PRED[:3].requires_grad_(), TRUE[:3], extra[:3])
    collected.update(PRED[3:], TRUE[3:], extra[3:])
    xy_pred, xy_true, collected_extra = collected.compute()
    assert torch.equal(collected_extra, extra)
    assert torch.equal(xy_pred, PRED)
    assert torch.equal(xy_true, TRUE)
    assert not xy_pred.requires_grad

    collected.reset()
    collected.update(PRED[:1], TRUE[:1], extra[:1])
    assert collected.compute()[0].tolist() == [[3, 4]]
