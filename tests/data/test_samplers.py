from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from pixel_spotter.data.samplers import batches, shuffled


@given(
    count=st.integers(0, 120),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
)
def test_two_devices_batches_are_one_devices_larger_batch(
    count: int, batch_size: int, world_size: int
) -> None:
    """In content and in order, also the last batch; each sample exactly once."""
    whole = batches(count, batch_size * world_size)
    parts = [batches(count, batch_size, rank, world_size) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        mine = [part[number] for part in parts if number < len(part)]
        assert torch.equal(torch.cat(mine), batch)
    assert torch.cat([*whole, torch.empty(0).long()]).tolist() == [*range(count)]
    assert max(map(len, parts)) == len(whole)


@given(
    count=st.integers(0, 120),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    equal=st.booleans(),
)
def test_every_device_knows_its_batches(
    count: int, batch_size: int, world_size: int, equal: bool
) -> None:
    lengths = []
    for rank in range(world_size):
        part = batches(count, batch_size, rank, world_size, equal)
        assert all(0 < len(batch) <= batch_size for batch in part) or len(part) == 1
        assert part or equal, "one without samples still goes through the same"
        lengths.append([len(batch) for batch in part])
    if equal:
        assert all(one == lengths[0] for one in lengths)
        assert sum(map(sum, lengths)) == count - count % world_size


def test_three_devices_share_a_sample() -> None:
    assert [[b.tolist() for b in batches(1, 2, rank, 3)] for rank in range(3)] == [
        [[0]],
        [[]],
        [[]],
    ]
    assert [batches(1, 2, rank, 3, equal=True) for rank in range(3)] == [[], [], []]


def test_three_devices_share_11_samples() -> None:
    parts = [[b.tolist() for b in batches(11, 2, rank, 3)] for rank in range(3)]
    assert parts == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10]]]
    parts = [[b.tolist() for b in batches(11, 2, rank, 3, equal=True)] for rank in range(3)]
    assert parts == [[[0, 1], [6]], [[2, 3], [7]], [[4, 5], [8]]]


@given(count=st.integers(1, 40), samples=st.integers(1, 200), seed=st.integers(0, 99))
def test_every_position_comes_before_any_comes_again(count: int, samples: int, seed: int) -> None:
    drawn = shuffled(count, samples, seed, epoch=0)
    assert len(drawn) == samples
    for start in range(0, samples, count):
        one_round = drawn[start : start + count].tolist()
        assert len(set(one_round)) == len(one_round)
    times = Counter(drawn.tolist())
    assert {times[index] for index in range(count)} <= {samples // count, -(-samples // count)}


def test_epochs_and_seeds_differ_and_repeat() -> None:
    draws = [shuffled(90, 100, seed, epoch) for seed in (3, 4) for epoch in (0, 1)]
    assert torch.equal(draws[0], shuffled(90, 100, 3, 0))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert draws[0][:90].tolist() != [*range(90)]
