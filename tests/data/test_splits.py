import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixel_spotter.data.splits import SPLITS, seen_fraction, split_positions

Point = tuple[int, int]


class Case(NamedTuple):
    split: str
    size: tuple[int, int]
    val_fraction: float
    test_fraction: float
    train_samples: int
    seed: int


CASES = st.builds(
    Case,
    st.sampled_from([*SPLITS]),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.floats(0.01, 0.7),
    st.floats(0.01, 0.7),
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
)


def points(positions: torch.Tensor) -> list[Point]:
    return [(x, y) for x, y in positions.tolist()]


def held_out(split: str, size: tuple[int, int]) -> set[Point]:
    """The region of a split, written as loops."""
    height, width = size
    region = set()
    for y in range(height):
        for x in range(width):
            lower_right = x > (width - 1) / 2 and y > (height - 1) / 2
            edge = x in (0, width - 1) or y in (0, height - 1)
            if (split == "quadrant" and lower_right) or (split == "border" and edge):
                region.add((x, y))
    return region


@given(CASES)
def test_every_split_of_any_image(case: Case) -> None:
    height, width = case.size
    count = height * width
    val_count = math.ceil(case.val_fraction * count)
    region = held_out(case.split, case.size)
    test_count = len(region) if case.split in ("quadrant", "border") else None
    if test_count is None:
        test_count = math.ceil(case.test_fraction * count)
    train_count = count - val_count - test_count
    if case.split == "iid":
        train_count = case.train_samples
    if train_count < 1 or test_count < 1:
        with pytest.raises(ValueError, match="no position for"):
            split_positions(*case)
        return

    parts = split_positions(*case)
    train, val, test = (points(part) for part in parts)
    assert (len(train), len(val), len(test)) == (train_count, val_count, test_count)
    everything = {(x, y) for y in range(height) for x in range(width)}
    assert {*train, *val, *test} <= everything
    if case.split != "iid":
        assert len({*train, *val, *test}) == len(train) + len(val) + len(test) == count
        assert seen_fraction(parts.test, parts.train) == 0
    if region:
        assert set(test) == region
    again = split_positions(*case)
    assert all(torch.equal(one, other) for one, other in zip(parts, again, strict=True))


def test_quadrant_of_a_small_image_by_hand() -> None:
    parts = split_positions("quadrant", (3, 4), 0.1, 0.2, 1, 0)
    assert sorted(points(parts.test)) == [(2, 2), (3, 2)]
    assert (len(parts.val), len(parts.train)) == (2, 8)


def test_border_of_a_small_image_by_hand() -> None:
    parts = split_positions("border", (3, 4), 0.01, 0.2, 1, 0)
    assert sorted(points(parts.train) + points(parts.val)) == [(1, 1), (2, 1)]
    assert len(parts.test) == 10


def test_the_defaults_share_out_2500_positions() -> None:
    assert [len(part) for part in split_positions("uniform", (50, 50), 0.1, 0.2, 2500, 0)] == [
        1750,
        250,
        500,
    ]
    assert [len(part) for part in split_positions("quadrant", (50, 50), 0.1, 0.2, 2500, 0)] == [
        1625,
        250,
        625,
    ]
    assert [len(part) for part in split_positions("border", (50, 50), 0.1, 0.2, 2500, 0)] == [
        2054,
        250,
        196,
    ]


@pytest.mark.parametrize("split", ["uniform", "quadrant", "border", "iid"])
def test_another_seed_shares_out_otherwise(split: str) -> None:
    one, other = (split_positions(split, (20, 20), 0.1, 0.2, 200, seed) for seed in (0, 1))
    assert set(points(one.val)) != set(points(other.val))


@pytest.mark.parametrize("split", ["uniform", "iid"])
def test_positions_are_not_drawn_in_order(split: str) -> None:
    """A slice of the image instead of a random draw would pass every count above."""
    parts = split_positions(split, (40, 40), 0.2, 0.2, 1000, 3)
    for part in parts:
        for axis in (0, 1):
            mean, spread = part[:, axis].double().mean(), part[:, axis].double().std()
            assert abs(mean - 19.5) < 3
            assert abs(spread - 11.5) < 2


@given(st.integers(0, 1000), st.tuples(st.integers(3, 12), st.integers(3, 12)))
def test_iid_says_how_much_was_seen(seed: int, size: tuple[int, int]) -> None:
    parts = split_positions("iid", size, 0.2, 0.5, 40, seed)
    seen = set(points(parts.train))
    expected = sum(point in seen for point in points(parts.test)) / len(parts.test)
    assert seen_fraction(parts.test, parts.train) == pytest.approx(expected)


def test_iid_parts_are_drawn_independently_with_repetition() -> None:
    parts = split_positions("iid", (50, 50), 0.1, 0.2, 2500, 0)
    assert len(set(points(parts.train))) == pytest.approx(2500 * (1 - 1 / math.e), abs=100)
    assert seen_fraction(parts.test, parts.train) == pytest.approx(1 - 1 / math.e, abs=0.08)


def test_positions_of_a_larger_image_are_not_mistaken_for_others() -> None:
    """Numbered as in an image of 16 px, (20, 3) would be (4, 4)."""
    assert seen_fraction(torch.tensor([[4, 4], [1, 1]]), torch.tensor([[20, 3], [1, 1]])) == 0.5


def test_seen_fraction_by_hand() -> None:
    test = torch.tensor([[0, 1], [1, 0], [2, 2], [2, 2]])
    train = torch.tensor([[1, 0], [2, 2], [0, 0]])
    assert seen_fraction(test, train) == 0.75


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"split": "random"}, "data.split"),
        ({"val_fraction": 0}, "data.val_fraction"),
        ({"val_fraction": 1}, "data.val_fraction"),
        ({"val_fraction": float("nan")}, "data.val_fraction"),
        ({"test_fraction": -0.1}, "data.test_fraction"),
        ({"test_fraction": 0.95}, "no position for train"),
        ({"split": "quadrant", "size": (1, 8)}, "no position for test"),
        ({"split": "border", "size": (2, 8)}, "no position for"),
    ],
)
def test_impossible_splits_are_refused(changes: dict[str, object], names: str) -> None:
    arguments = Case("uniform", (10, 10), 0.1, 0.2, 100, 0)._replace(**changes)
    with pytest.raises(ValueError, match=names):
        split_positions(*arguments)
