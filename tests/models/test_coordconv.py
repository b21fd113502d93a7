import statistics

import pytest
import torch

from pixel_spotter.coordinates import from_index
from pixel_spotter.models.coordconv import AddCoordinates, CoordConvRegressor
from pixel_spotter.simulation.pixels import render_pixels


def test_coordinates_by_hand() -> None:
    channels = AddCoordinates((2, 4))(torch.ones(1, 1, 2, 4))
    assert channels[0, 0].tolist() == [[1] * 4] * 2
    assert channels[0, 1].tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert channels[0, 2].tolist() == [[-0.5] * 4, [0.5] * 4]


def test_invisible_coordinates_are_zero() -> None:
    channels = AddCoordinates((2, 4), visible=False)(torch.ones(1, 1, 2, 4))
    assert channels[0, 1:].abs().sum() == 0
    counts = [CoordConvRegressor(8, coordinates=c).count_parameters() for c in (True, False)]
    assert counts[0] == counts[1]


def test_906_parameters_as_in_the_paper() -> None:
    assert CoordConvRegressor(64).count_parameters() == 906


def maximum(model: CoordConvRegressor, xy: tuple[int, int]) -> list[list[int]]:
    """Return where the two maps of a pixel's image have their maxima."""
    maps = model.head.last(model.encode(render_pixels(torch.tensor([xy]), model.size)))[0]  # type: ignore[operator]
    return [from_index(m.argmax()[None], model.size)[0].tolist() for m in maps.flatten(1)]


@torch.no_grad()
def test_the_pixel_nearly_always_wins_from_the_start() -> None:
    won: dict[str, list[float]] = {"pixel": [], "glorot": []}
    pixels = [(x, y) for x in (0, 8, 16, 23) for y in (0, 8, 16, 23)]
    for init in won:
        for seed in range(20):
            torch.manual_seed(seed)
            model = CoordConvRegressor(24, init=init)
            near = [
                max(abs(place[0] - x), abs(place[1] - y)) <= 2
                for x, y in pixels
                for place in maximum(model, (x, y))
            ]
            won[init].append(sum(near) / len(near))
    assert statistics.mean(won["pixel"]) > 0.85
    assert statistics.mean(won["glorot"]) < 0.5


def test_without_an_activation_it_is_linear_before_the_pooling() -> None:
    model = CoordConvRegressor(8, activation="none")
    a, b = torch.rand(2, 1, 1, 8, 8)
    middle = model.encode((a + b) / 2)
    torch.testing.assert_close(middle, (model.encode(a) + model.encode(b)) / 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"init": "he"},
        {"pointwise": [0]},
        {"channels": [0]},
        {"activation": "sine"},
        {"pooling": "median"},
    ],
    ids=str,
)
def test_arguments_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"model\.{next(iter(wrong))}"):
        CoordConvRegressor(10, **wrong)  # type: ignore[arg-type]
