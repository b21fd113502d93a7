import math

import pytest
import torch
from torch import nn

from pixel_spotter.coordinates import as_xy
from pixel_spotter.models.heads import AxisBins, BestBox, LinearHead, PoolHead, SoftArgmax


def answer(head: nn.Module, features: torch.Tensor) -> list[list[float]]:
    return as_xy(head(features)).tolist()


def test_head_in_unit_coordinates_and_in_px() -> None:
    for scale_output, expected in ((True, [23.5, 15.5]), (False, [0.0, 0.0])):
        head = LinearHead(3, (32, 48), scale_output)
        nn.init.zeros_(head.linear.weight)
        nn.init.zeros_(head.linear.bias)
        assert answer(head, torch.rand(1, 3)) == [expected]


def test_gradient_of_the_scaled_head_is_half_the_side() -> None:
    head = LinearHead(3, (32, 48), scale_output=True)
    as_xy(head(torch.rand(1, 3))).sum().backward()
    assert head.linear.bias.grad is not None
    assert head.linear.bias.grad.tolist() == [24.0, 16.0]


def test_soft_argmax_by_hand() -> None:
    logits = torch.full((1, 1, 5, 5), -1e9)
    logits[0, 0, 1, 3] = math.log(3.0)  # three quarters at (3, 1)
    logits[0, 0, 4, 0] = 0.0  # a quarter at (0, 4)
    assert answer(SoftArgmax((5, 5)), logits) == [pytest.approx([2.25, 1.75])]
    assert answer(SoftArgmax((3, 3), margin=1), logits) == [pytest.approx([1.25, 0.75])]


def test_of_larger_maps_a_part_around_the_peak_counts() -> None:
    """Or else a background that was never that large would pull the answer to the middle."""
    head = SoftArgmax((3, 3), margin=1)
    logits = torch.zeros(1, 1, 30, 40)
    logits[0, 0, 20, 9] = math.log(76.0)  # among 24 others of the part: 0.76 of its sum
    logits[0, 0, 20, 11] = math.log(26.0)
    logits[0, 0, 20, 14] = math.log(50.0)  # 3 px beyond the part
    assert answer(head, logits) == [pytest.approx([8 + 2 * 25 / 125, 19], abs=1e-4)]
    logits = torch.zeros(1, 1, 30, 40)
    logits[0, 0, 29, 0] = math.log(76.0)  # the part ends where the map does
    assert answer(head, logits) == [
        pytest.approx([-1 + 0.24 * 2 * 25 / 24, 28 - 0.24 * 2 * 25 / 24])
    ]


def test_gradient_of_the_soft_argmax_by_hand() -> None:
    logits = torch.zeros(1, 1, 1, 3, requires_grad=True)
    SoftArgmax((1, 3))(logits)["x"][0].backward()
    # p_i (x_i - E[x]) with p = 1/3, E[x] = 1
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([-1 / 3, 0, 1 / 3])


def test_pooling_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [-1.0, -0.4]], [[0.5, -1.0], [0.0, 0.0]]]])
    # unit u becomes ((u + 1) * 2 - 1) / 2 px
    assert answer(PoolHead(nn.Identity(), (2, 2), "max"), maps) == [pytest.approx([1.5, 1.0])]
    assert answer(PoolHead(nn.Identity(), (2, 2), "mean"), maps) == [pytest.approx([0.4, 0.375])]


def test_cells_of_a_larger_image() -> None:
    head = BestBox((8, 8), stride=4, box_px=1.0)
    cells = torch.zeros(1, 5, 3, 6)
    cells[0, 0, 2, 5] = 1.0
    assert answer(head, cells) == [[21.5, 9.5]]


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
    assert answer(head, torch.rand(1, 4)) == [pytest.approx([4, 2])]


def test_cells_by_hand() -> None:
    head = BestBox((10, 20), stride=8, box_px=1.0)
    assert head.cells == (2, 3)
    assert head.centres.tolist() == [
        [3.5, 3.5], [11.5, 3.5], [19.5, 3.5], [3.5, 11.5], [11.5, 11.5], [19.5, 11.5]
    ]  # fmt: skip
    points = torch.tensor([[0.0, 0.0], [7.4, 0.0], [7.6, 0.0], [19.0, 9.0]])
    assert head.cell_of(points).tolist() == [0, 0, 1, 5]


def test_cells_of_sub_pixel_points_on_the_edges() -> None:
    """15.5 on 16 px belongs to the last pixel, -0.5 to the first."""
    head = BestBox((16, 16), stride=8, box_px=1.0)
    points = torch.tensor([[-0.5, -0.3], [15.5, 15.5], [7.5, 0.0], [7.49, 15.5], [15.5, -0.5]])
    assert head.cell_of(points).tolist() == [0, 3, 1, 2, 1]


def test_the_best_box_by_hand() -> None:
    head = BestBox((16, 16), stride=8, box_px=2.0)
    cells = torch.zeros(1, 5, 2, 2)
    cells[0, 0] = torch.tensor([[-1.0, 2.0], [0.0, 1.0]])
    cells[0, :, 0, 1] = torch.tensor([2.0, 0.25, -0.5, math.log(3), math.log(0.5)])
    found = {name: column.tolist() for name, column in head(cells).items()}
    assert found == {
        "x": [pytest.approx(11.5 + 2)],
        "y": [pytest.approx(3.5 - 4)],
        "box_width_px": [pytest.approx(6)],
        "box_height_px": [pytest.approx(1)],
        "objectness": [pytest.approx(1 / (1 + math.exp(-2)))],
    }
