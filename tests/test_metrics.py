import numpy as np
import pytest
import torch
from conftest import predicted
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from torchvision.ops import box_convert, box_iou

from pixel_spotter import metrics
from pixel_spotter.metrics import FIGURES, error_by_position, errors_px, figures_of
from pixel_spotter.models.collected import Predictions

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


def figures(xy_px: torch.Tensor, true_px: torch.Tensor, **more: torch.Tensor) -> dict[str, float]:
    return figures_of(predicted(xy_px, true_px, **more))


def test_errors_are_distances() -> None:
    assert errors_px(predicted(PRED, TRUE)).tolist() == [5, 0.25, 1, 0]


@pytest.mark.parametrize("key", BY_HAND)
def test_each_figure_by_hand(key: str) -> None:
    assert figures(PRED, TRUE)[key] == pytest.approx(BY_HAND[key])


def test_there_are_no_other_figures() -> None:
    assert [*figures(PRED, TRUE)] == [*BY_HAND]
    others = {"box_iou", "member_rmse_px", "spread_error_correlation"}
    others |= {"bound_px", "efficiency", "coverage_68", "coverage_95", "found", "flagged"}
    others |= {"bias_phase_px"}
    assert {figure.name for figure in FIGURES} == {*BY_HAND} | others


def test_perfect_predictions() -> None:
    f = figures(TRUE, TRUE)
    assert f["hit_rate"] == f["within_1px"] == 1
    assert f["max_error_px"] == f["rmse_px"] == f["bias_x_px"] == 0


@pytest.mark.parametrize(
    ("offset", "hit"), [((0.49, -0.49), 1), ((0.51, 0), 0), ((0, -0.51), 0), ((0.49, 0.51), 0)]
)
def test_a_hit_rounds_to_the_true_pixel(offset: tuple[float, float], hit: int) -> None:
    true = torch.tensor([[20.0, 31.0]])
    assert figures(true + torch.tensor([offset]), true)["hit_rate"] == hit


@pytest.mark.parametrize(
    ("true", "pred", "hit"),
    [
        ((-0.3, 4.4), (0.4, 3.6), 1),  # both in (0, 4), 1.06 px apart
        ((-0.3, 4.4), (-0.3, 4.6), 0),  # 0.2 px apart, the pixels' border between them
        ((15.5, 0.0), (15.49, 0.0), 0),  # 15.5 is the left edge of pixel 16, beyond the image
        ((15.4, 0.0), (15.49, 0.0), 1),
    ],
)
def test_a_hit_of_a_sub_pixel_truth_lies_in_its_pixel(
    true: tuple[float, float], pred: tuple[float, float], hit: int
) -> None:
    assert figures(torch.tensor([pred]), torch.tensor([true]))["hit_rate"] == hit


@given(st.integers(0, 2**31), st.integers(1, 60))
def test_figures_hang_together(seed: int, count: int) -> None:
    random = torch.Generator().manual_seed(seed)
    true = torch.randint(0, 50, (count, 2), generator=random).float()
    pred = true + 2 * torch.randn(count, 2, generator=random)
    f = figures(pred, true)
    assert f["median_error_px"] <= f["p95_error_px"] <= f["max_error_px"]
    assert f["mean_error_px"] <= 2**0.5 * f["rmse_px"] + 1e-9
    assert f["hit_rate"] <= f["within_1px"] + 1e-9
    order = torch.randperm(count, generator=random)
    assert figures(pred[order], true[order]) == pytest.approx(f)
    swapped = figures(pred.flip(1), true.flip(1))
    assert (swapped["bias_x_px"], swapped["bias_y_px"]) == (f["bias_y_px"], f["bias_x_px"])


def test_half_precision_inputs_do_not_round_the_figures() -> None:
    true = torch.full((3000, 2), 40.0)
    pred = true + 0.25
    assert figures(pred.bfloat16(), true.bfloat16())["bias_x_px"] == 0.25


def box(xy_px: torch.Tensor, sides_px: torch.Tensor, true_px: torch.Tensor) -> dict[str, float]:
    return figures(xy_px, true_px, box_width_px=sides_px[:, 0], box_height_px=sides_px[:, 1])


def test_iou_of_boxes_by_hand() -> None:
    true = torch.tensor([[5.0, 5.0], [8.0, 8.0]])
    sides = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    assert box(true, sides, true)["box_iou"] == pytest.approx((1 + 1 / 2) / 2)
    # half a pixel off on both axes: a quarter shared of 2 - 1/4
    assert box(true[:1] + 0.5, sides[:1], true[:1])["box_iou"] == pytest.approx(1 / 7)
    assert box(true + 3, sides, true)["box_iou"] == 0


@given(st.integers(0, 2**31))
def test_iou_of_boxes_is_torchvisions(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    true = 20 * torch.rand(30, 2, generator=random)
    pred = true + torch.randn(30, 2, generator=random)
    sides = 0.1 + 3 * torch.rand(30, 2, generator=random)
    found, pixel = (
        box_convert(torch.cat([centre, side], dim=1).double(), "cxcywh", "xyxy")
        for centre, side in ((pred, sides), (true, torch.ones_like(sides)))
    )
    expected = box_iou(found, pixel).diagonal().mean().item()
    assert box(pred, sides, true)["box_iou"] == pytest.approx(expected, abs=1e-6)


def test_the_members_rmse_by_hand() -> None:
    members = torch.tensor([[[1.0, 2.0], [4.0, 6.0]], [[3.0, 3.0], [3.0, 5.0]]])
    true = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    mean = members.mean(dim=1)
    spread = (members - mean[:, None]).square().sum(-1).mean(1).sqrt()
    f = figures(mean, true, spread_px=spread)
    # squared errors of the members: 0 and 9 + 16; 1 and 1
    assert f["member_rmse_px"] == pytest.approx(((25 + 1 + 1) / 4 / 2) ** 0.5)
    assert f["spread_error_correlation"] == pytest.approx(1.0)


def test_the_spreads_correlation_is_one_of_ranks() -> None:
    true = torch.zeros(5, 2)
    pred = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0], [500.0, 0.0]])
    spread = torch.tensor([0.2, 0.1, 0.3, 0.5, 0.4])
    # ranks 2 1 3 5 4 against 1 2 3 4 5: 1 - 6 (1 + 1 + 0 + 1 + 1) / (5 (25 - 1))
    found = figures(pred, true, spread_px=spread)["spread_error_correlation"]
    assert found == pytest.approx(0.8)
    ranks = np.corrcoef(rankdata(spread), rankdata(pred.norm(dim=1)))[0, 1]
    assert found == pytest.approx(ranks)


@pytest.mark.parametrize("alike", ["spread", "error"])
def test_a_correlation_that_there_is_not_is_left_out(alike: str) -> None:
    spread = torch.ones(4) if alike == "spread" else torch.arange(4.0)
    pred = TRUE + 1 if alike == "error" else PRED
    f = figures(pred, TRUE, spread_px=spread)
    assert "spread_error_correlation" not in f
    assert "member_rmse_px" in f


def test_columns_that_no_figure_needs_change_none() -> None:
    more = {"objectness": torch.rand(4), "box_width_px": torch.ones(4)}
    assert figures(PRED, TRUE, **more) == figures(PRED, TRUE)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("mean_error_px", 0.12345, "0.123"),
        ("mean_error_px", 12.345, "12.35"),
        ("mean_error_px", 0.0001, "<0.001"),
        ("mean_error_px", 0.0, "0"),
        ("hit_rate", 0.98765, "98.8%"),
        ("bias_x_px", -0.0123, "-0.012"),
        ("count", 12345, "12,345"),
    ],
)
def test_how_figures_are_written(name: str, value: float, text: str) -> None:
    (figure,) = (figure for figure in FIGURES if figure.name == name)
    assert figure.write(value) == text


def test_an_interval_is_as_exact_as_its_mean() -> None:
    assert metrics.pixels(0.5, 123.0) == "0.50"
    assert metrics.pixels(0.5, 1.0) == "0.500"


def test_headings_have_units() -> None:
    headings = {figure.name: figure.heading for figure in FIGURES}
    assert headings["mean_error_px"] == "mean error (px)"
    assert headings["mse_px2"] == "mse (px²)"
    assert headings["hit_rate"] == "exact hits"


def test_errors_by_position_by_hand() -> None:
    true = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    pred = true + torch.tensor([[1.0, 0.0], [0.0, 3.0], [3.0, 4.0]])
    found = error_by_position([predicted(pred, true)], (2, 3))
    np.testing.assert_array_equal(found, [[np.nan, np.nan, 2], [5, np.nan, np.nan]])


def test_errors_of_sub_pixel_truths_are_at_their_pixels() -> None:
    """Also of those on the image's very edge: 15.5 on 16 px, -0.5."""
    true = torch.tensor([[-0.3, 15.5], [15.5, -0.5], [7.6, 3.4], [8.4, 2.6]])
    found = error_by_position([predicted(true + torch.tensor([3.0, 4.0]), true)], (16, 16))
    expected = np.full((16, 16), np.nan)
    expected[15, 0] = expected[0, 15] = expected[3, 8] = 5
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_predictions_collect_batches_in_the_order_of_their_samples() -> None:
    collected = Predictions()
    columns = predicted(PRED, TRUE, spread_px=torch.arange(4.0))
    for rows in ([2, 0], [3, 1]):
        chosen = {name: column[rows] for name, column in columns.items()}
        chosen["x"].requires_grad_()
        collected.update(chosen, torch.tensor(rows))
    found = collected.columns()
    assert [*found] == ["sample", "x", "y", "x_true", "y_true", "spread_px"]
    assert found.pop("sample").tolist() == [0, 1, 2, 3]
    for name, column in columns.items():
        assert torch.equal(found[name], column), name
        assert not found[name].requires_grad

    collected.reset()
    collected.update(predicted(PRED[:1], TRUE[:1]), torch.tensor([0]))
    again = collected.columns()
    assert [*again] == ["sample", "x", "y", "x_true", "y_true"]
    assert (again["sample"].tolist(), again["x"].tolist()) == ([0], [3]), "one is a column as well"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (metrics.plain(-0.0001), "0.000"),
        (metrics.plain(-0.125), "-0.125"),
        (metrics.pixels(0.0), "0"),
        (metrics.pixels(0.0001), "<0.001"),
        (metrics.pixels(0.02, like=20.0), "0.02"),
        (metrics.small(0.5, 0), "<1"),
        (metrics.share(0.9984), "99.8%"),
        (metrics.whole(1234567.0), "1,234,567"),
    ],
)
def test_how_numbers_are_written(written: str, text: str) -> None:
    assert written == text


def test_figures_of_spots() -> None:
    """Errors of 3, 4 and 1 are beyond 1.96 deviations of 0.3 and 0.6, all others within one."""
    more = {"bound_x": torch.full((4,), 0.3), "bound_y": torch.full((4,), 0.4)}
    more |= {"sd_x": torch.full((4,), 0.3), "sd_y": torch.full((4,), 0.6)}
    found = figures(PRED, TRUE, **more)
    assert found["bound_px"] == pytest.approx((0.25 / 2) ** 0.5)
    assert found["efficiency"] == pytest.approx((0.25 / 2) ** 0.5 / BY_HAND["rmse_px"])
    assert found["coverage_68"] == 5 / 8
    assert found["coverage_95"] == 6 / 8
    assert "found" not in found


def test_what_was_not_found_has_no_error() -> None:
    lost = PRED.clone()
    lost[0] = torch.nan
    found = figures(lost, TRUE, flag=torch.tensor([1, 0, 4, 0]))
    assert (found["found"], found["flagged"]) == (0.75, 0.5)
    assert found["count"] == 4
    assert found["max_error_px"] == 1


def test_what_has_no_bound_is_not_held_against_it() -> None:
    bound = torch.tensor([torch.nan, 0.3, 0.3, 0.3])
    error = torch.tensor([[100.0, 0.0], [0.6, 0.0], [0.0, 0.6], [0.6, 0.6]])
    found = figures(TRUE + error, TRUE, bound_x=bound, bound_y=bound)
    assert found["bound_px"] == pytest.approx(0.3)
    assert found["efficiency"] == pytest.approx(0.3 / (4 * 0.36 / 6) ** 0.5)


def between_pixels(count: int = 4000) -> torch.Tensor:
    return 2 + 20 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0)).double()


def test_pixel_locking_is_an_amplitude_over_each_pixel() -> None:
    """Of its own axis, whatever its phase, apart from a constant and from other periods."""
    true = between_pixels()
    angle = 2 * torch.pi * true
    assert figures(true + 0.1 * angle.sin(), true)["bias_phase_px"] == pytest.approx(0.1)
    both = torch.stack([0.3 + 0.06 * angle[:, 0].cos(), 0.08 * (angle[:, 1] + 1).sin()], dim=1)
    found = figures(true + both, true)["bias_phase_px"]
    assert found == pytest.approx(((0.06**2 + 0.08**2) / 2) ** 0.5)
    for other in (angle.flip(1).sin(), (angle / 2).sin(), (2 * angle).cos()):
        assert figures(true + 0.1 * other, true)["bias_phase_px"] < 0.1 * 3 / 4000**0.5


def test_pixel_locking_is_free_of_what_noise_leaves() -> None:
    true, rng = between_pixels(400), torch.Generator().manual_seed(1)
    locked = 0.02 * (2 * torch.pi * true).sin()
    found = []
    for bias in (0 * locked, locked):
        runs = (true + bias + 0.1 * torch.randn(400, 2, generator=rng) for _ in range(200))
        found.append(torch.tensor([figures(run, true)["bias_phase_px"] for run in runs]))
    assert (found[0] == 0).double().mean().item() == pytest.approx(0.594, abs=0.1)  # chi² of 4
    assert found[0].max() < 4 * 0.1 / 400**0.5
    assert found[1].square().mean().sqrt().item() == pytest.approx(0.02, rel=0.03)


def test_whole_pixels_and_a_handful_of_spots_have_no_phase() -> None:
    assert "bias_phase_px" not in figures(TRUE + 0.1, TRUE)
    halves = torch.arange(20.0).view(10, 2) / 2
    assert "bias_phase_px" not in figures(halves + 0.1, halves)
    true = between_pixels(3)
    assert "bias_phase_px" not in figures(true + 0.1, true)
