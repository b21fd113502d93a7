import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixel_spotter.coordinates import (
    all_positions,
    as_columns,
    as_size,
    as_xy,
    from_index,
    pixel_of,
    sides_px,
    to_px,
    to_unit,
)

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


def test_positions_of_a_3x2_image_row_by_row() -> None:
    expected = [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    positions = all_positions((2, 3))
    assert positions.tolist() == expected
    assert positions.dtype == torch.int64


@pytest.mark.parametrize(
    ("xy_px", "unit"),
    [
        ((0, 0), (-2 / 3, -1 / 2)),
        ((1, 0.5), (0, 0)),
        ((2, 1), (2 / 3, 1 / 2)),
        ((-0.5, -0.5), (-1, -1)),
        ((2.5, 1.5), (1, 1)),
        ((0, 1), (-2 / 3, 1 / 2)),
    ],
)
def test_unit_coordinates_of_a_3x2_image(
    xy_px: tuple[float, float], unit: tuple[float, float]
) -> None:
    px_tensor, unit_tensor = (torch.tensor([v], dtype=torch.float64) for v in (xy_px, unit))
    torch.testing.assert_close(to_unit(px_tensor, (2, 3)), unit_tensor)
    torch.testing.assert_close(to_px(unit_tensor, (2, 3)), px_tensor)


def test_gradient_is_half_the_side() -> None:
    unit = torch.tensor([[0.3, -0.7], [0.1, 0.2]], requires_grad=True)
    to_px(unit, (2, 3)).sum().backward()
    assert unit.grad is not None
    assert unit.grad.tolist() == [[1.5, 1.0], [1.5, 1.0]]


@given(SIZES, st.lists(st.tuples(*[st.floats(-400, 400)] * 2), min_size=1, max_size=5))
def test_round_trip(size: tuple[int, int], points: list[tuple[float, float]]) -> None:
    xy_px = torch.tensor(points, dtype=torch.float64)
    torch.testing.assert_close(to_px(to_unit(xy_px, size), size), xy_px, atol=1e-9, rtol=0)


@given(SIZES)
def test_edges_are_at_plus_and_minus_one(size: tuple[int, int]) -> None:
    height, width = size
    edges = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    expected = [[-0.5, -0.5], [width - 0.5, height - 0.5]]
    assert to_px(edges, size).tolist() == expected
    assert to_unit(torch.tensor(expected), size).tolist() == edges.tolist()


@given(SIZES)
def test_pixel_centres_lie_evenly_and_symmetrically(size: tuple[int, int]) -> None:
    height, width = size
    unit = to_unit(all_positions(size).double(), size).view(height, width, 2)
    torch.testing.assert_close(unit, -unit.flip(0, 1), atol=1e-12, rtol=0)
    if width > 1:
        torch.testing.assert_close(
            unit[:, 1:, 0] - unit[:, :-1, 0],
            torch.full((height, width - 1), 2 / width, dtype=torch.float64),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    xy = torch.zeros(1, 2, dtype=dtype)
    assert to_px(xy, (4, 5)).dtype == to_unit(xy, (4, 5)).dtype == dtype


@pytest.mark.parametrize(
    ("image_size", "size"), [(50, (50, 50)), ([32, 48], (32, 48)), ((1, 2), (1, 2))]
)
def test_as_size(image_size: int | list[int], size: tuple[int, int]) -> None:
    assert as_size(image_size) == size


@pytest.mark.parametrize(
    "image_size", [0, -3, [1, 2, 3], [5], [], [0, 4], [4, 2.5], True, "ab", 50.5, None]
)
def test_what_is_no_size(image_size: object) -> None:
    with pytest.raises(ValueError, match="image_size"):
        as_size(image_size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("xy_px", "pixel"),
    [
        ((0.49, 0.51), (0, 1)),
        ((-0.3, 1.4), (0, 1)),
        ((-0.5, 0.5), (0, 1)),
        ((2.49, 1.49), (2, 1)),
        # outside, and on the far edges: the nearest pixel
        ((-0.51, -7.0), (0, 0)),
        ((2.5, 1.5), (2, 1)),
        ((99.0, 0.0), (2, 0)),
    ],
)
def test_the_pixel_of_a_point_in_a_3x2_image(
    xy_px: tuple[float, float], pixel: tuple[int, int]
) -> None:
    found = pixel_of(torch.tensor([xy_px]), (2, 3))
    assert found.dtype == torch.int64
    assert found.tolist() == [[*pixel]]


def test_the_pixel_of_a_point_in_no_image_in_particular() -> None:
    points = torch.tensor([[-0.51, 15.5], [-0.5, 15.49]])
    assert pixel_of(points).tolist() == [[-1, 16], [0, 15]]


def test_columns_and_coordinates() -> None:
    xy = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    columns = as_columns(xy)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "x": [1, 3],
        "y": [2, 4],
    }
    assert torch.equal(as_xy(columns), xy)
    assert as_xy({"x_true": xy[:, 1], "y_true": xy[:, 0]}, "_true").tolist() == [[2, 1], [4, 3]]


def test_index_and_sides_of_a_3x2_image() -> None:
    assert from_index(torch.tensor([0, 2, 3, 5]), (2, 3)).tolist() == [
        [0, 0], [2, 0], [0, 1], [2, 1]
    ]  # fmt: skip
    assert sides_px((2, 3), torch.zeros(1)).tolist() == [3, 2]
