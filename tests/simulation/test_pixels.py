import pytest
import torch
from conftest import GPU
from hypothesis import given
from hypothesis import strategies as st

from pixel_spotter.coordinates import all_positions
from pixel_spotter.simulation.pixels import render_pixels


def test_two_pixels_in_3x2_images() -> None:
    images = render_pixels(torch.tensor([[2, 1], [1, 0]]), (2, 3))
    assert images.dtype == torch.float32
    assert images.tolist() == [
        [[[0, 0, 0], [0, 0, 1]]],
        [[[0, 1, 0], [0, 0, 0]]],
    ]


@given(st.tuples(st.integers(1, 20), st.integers(1, 20)), st.randoms(use_true_random=False))
def test_one_white_pixel_where_it_should_be(size: tuple[int, int], random) -> None:
    height, width = size
    count = random.randint(1, 8)
    points = [(random.randrange(width), random.randrange(height)) for _ in range(count)]
    images = render_pixels(torch.tensor(points), size)
    assert images.shape == (count, 1, height, width)
    assert (images == 1).sum(dim=(1, 2, 3)).tolist() == [1] * count
    assert images.sum(dim=(1, 2, 3)).tolist() == [1.0] * count
    flat = images.flatten(1).argmax(1)
    assert list(zip((flat % width).tolist(), (flat // width).tolist(), strict=True)) == points


def test_all_positions_render_to_the_identity() -> None:
    images = render_pixels(all_positions((3, 4)), (3, 4))
    assert torch.equal(images.flatten(1), torch.eye(12))


def test_no_positions_no_images() -> None:
    assert render_pixels(torch.empty(0, 2, dtype=torch.int64), (3, 4)).shape == (0, 1, 3, 4)


@pytest.mark.parametrize("xy", [(3, 0), (0, 2), (-1, 0), (0, -1), (2, 2)])
def test_positions_outside_are_refused(xy: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        render_pixels(torch.tensor([(0, 0), xy]), (2, 3))


@pytest.mark.gpu
@GPU
def test_on_the_device_of_the_positions() -> None:
    xy = all_positions((5, 7))
    images = render_pixels(xy.cuda(), (5, 7))
    assert images.device.type == "cuda"
    assert torch.equal(images.cpu(), render_pixels(xy, (5, 7)))
