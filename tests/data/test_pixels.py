from collections import Counter
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from conftest import TINY, compose
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_spotter.cli.start import instantiate
from pixel_spotter.data.pixels import OrderedBatches, PixelDataModule, ShuffledBatches
from pixel_spotter.simulation.pixels import render_pixels


def module(**changes: Any) -> PixelDataModule:
    arguments = {"image_size": 12, "train_samples": 100, "batch_size": 16, "seed": 3}
    return PixelDataModule(**(arguments | changes))


def epoch(data: PixelDataModule, number: int) -> torch.Tensor:
    """Return the positions of a training epoch, in order."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return torch.cat([xy for (xy,) in loader])


def everything(loader: Any) -> torch.Tensor:
    return torch.cat([xy for (xy,) in loader])


@pytest.mark.parametrize("batch_size", [1, 7, 99, 100, 1000])
def test_batch_size_does_not_change_the_samples(batch_size: int) -> None:
    for number in (0, 3):
        assert torch.equal(epoch(module(batch_size=batch_size), number), epoch(module(), number))


def test_workers_do_not_change_the_samples() -> None:
    for number in (0, 1):
        assert torch.equal(epoch(module(num_workers=2), number), epoch(module(), number))
    assert torch.equal(
        everything(module(num_workers=2).test_dataloader()),
        everything(module().test_dataloader()),
    )


@given(
    count=st.integers(1, 50),
    samples=st.integers(1, 120),
    batch_size=st.integers(1, 40),
    world_size=st.integers(1, 4),
    number=st.integers(0, 5),
)
def test_devices_interleave_to_the_whole(
    count: int, samples: int, batch_size: int, world_size: int, number: int
) -> None:
    whole = ShuffledBatches(count, samples, samples, seed=1)
    whole.set_epoch(number)
    drawn = next(iter(whole)) if samples else torch.empty(0)
    each = samples // world_size
    for rank in range(world_size):
        part = ShuffledBatches(count, samples, batch_size, 1, rank, world_size)
        part.set_epoch(number)
        batches = list(part)
        assert len(batches) == len(part)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        mine = torch.cat(batches) if batches else torch.empty(0, dtype=torch.int64)
        assert torch.equal(mine, drawn[rank::world_size][:each])


@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    world_size=st.integers(1, 4),
)
def test_evaluation_visits_every_index_once(count: int, batch_size: int, world_size: int) -> None:
    visited: list[int] = []
    for rank in range(world_size):
        part = OrderedBatches(count, batch_size, rank, world_size)
        batches = list(part)
        assert len(batches) == len(part)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        visited += [index for batch in batches for index in batch.tolist()]
    assert sorted(visited) == list(range(count))


@given(count=st.integers(1, 40), samples=st.integers(1, 200), seed=st.integers(0, 99))
def test_every_position_comes_before_any_comes_again(count: int, samples: int, seed: int) -> None:
    drawn = ShuffledBatches(count, samples, 8, seed).draw()
    assert len(drawn) == samples
    for start in range(0, samples, count):
        one_round = drawn[start : start + count].tolist()
        assert len(set(one_round)) == len(one_round)
    times = Counter(drawn.tolist())
    assert {times[index] for index in range(count)} <= {samples // count, -(-samples // count)}


@pytest.mark.parametrize("split", ["uniform", "quadrant", "border", "iid"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_val_and_test_positions_come_once_over_all_devices(split: str, world_size: int) -> None:
    data = module(split=split)
    for part, loader in (("val", data.val_dataloader), ("test", data.test_dataloader)):
        visited = []
        for rank in range(world_size):
            data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)  # type: ignore[assignment]
            visited += everything(loader()).tolist()
        data.trainer = None
        assert sorted(visited) == sorted(getattr(data.positions, part).tolist())


def test_train_samples_come_from_the_training_positions() -> None:
    data = module(split="border", train_samples=250)
    allowed = {tuple(xy) for xy in data.positions.train.tolist()}
    times = Counter(tuple(xy) for xy in epoch(data, 0).tolist())
    assert times.total() == 250
    assert times.keys() == allowed


def test_few_samples_are_the_same_few_positions_in_every_epoch() -> None:
    few = module(split="border", train_samples=20, epoch_samples=50)
    fixed = {tuple(xy) for xy in few.positions.train.tolist()}
    assert len(fixed) == 20
    for number in (0, 1):
        times = Counter(tuple(xy) for xy in epoch(few, number).tolist())
        assert times.keys() == fixed
        assert times.total() == 50
        assert set(times.values()) == {2, 3}
    all_of_them = module(split="border").positions
    assert fixed < {tuple(xy) for xy in all_of_them.train.tolist()}
    assert torch.equal(few.positions.test, all_of_them.test)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert torch.equal(epoch(module(), 1), epoch(module(), 1))
    assert not torch.equal(epoch(module(), 0), epoch(module(), 1))
    one, other = (ShuffledBatches(90, 100, 8, seed).draw() for seed in (3, 4))
    assert not torch.equal(one, other)


def test_samples_neither_follow_nor_move_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = epoch(module(), 2)
    torch.manual_seed(2)
    assert torch.equal(epoch(module(), 2), before)
    state = torch.random.get_rng_state()
    ShuffledBatches(9, 9, 3, 0).draw()
    module(split="iid")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_trainer_sees_the_draw_of_each_epoch_as_images_and_positions() -> None:
    class Recorder(L.Callback):
        seen: list[list[tuple[torch.Tensor, torch.Tensor]]]

        def __init__(self) -> None:
            self.seen = []

        def on_train_epoch_start(self, *_: Any) -> None:
            self.seen.append([])

        def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, index: int) -> None:
            self.seen[-1].append(batch)

    cfg = compose([*TINY, "data.image_size=[12,16]", "data.batch_size=24", "data.train_samples=60"])
    data, model, recorder = instantiate(cfg.data), instantiate(cfg.model), Recorder()
    L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[recorder],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(model, data)

    fresh = instantiate(cfg.data)
    for number in range(3):
        batches = recorder.seen[number]
        assert [len(xy) for _, xy in batches] == [24, 24, 12]
        for image, xy in batches:
            assert image.shape == (len(xy), 1, 12, 16)
            assert image.dtype == xy.dtype == torch.float32
            assert torch.equal(image, render_pixels(xy.long(), (12, 16)))
        assert torch.equal(torch.cat([xy for _, xy in batches]).long(), epoch(fresh, number))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("image_size", 0),
        ("image_size", [1, 2, 3]),
        ("image_size", 50.5),
        ("split", "random"),
        ("train_samples", 0),
        ("train_samples", 2.5),
        ("train_samples", True),
        ("epoch_samples", 0),
        ("val_fraction", 0.0),
        ("val_fraction", 1.5),
        ("test_fraction", -0.2),
        ("batch_size", 0),
        ("batch_size", "many"),
        ("num_workers", -1),
    ],
)
def test_bad_arguments_are_named(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"data.{argument}"):
        module(**{argument: value})


def test_a_checkpoint_can_rebuild_the_module() -> None:
    data = module(split="iid", image_size=[8, 9])
    again = PixelDataModule(**data.hparams)
    for one, other in zip(data.positions, again.positions, strict=True):
        assert torch.equal(one, other)


def test_seen_in_training_recomputed() -> None:
    data = module(split="iid", image_size=[5, 9])
    train = {tuple(xy) for xy in data.positions.train.tolist()}
    test = [tuple(xy) for xy in data.positions.test.tolist()]
    assert data.seen_in_training([data]) == pytest.approx(
        sum(xy in train for xy in test) / len(test)
    )
    uniform = module(split="uniform")
    assert uniform.seen_in_training([uniform]) == 0
    assert uniform.seen_in_training([uniform, data]) > 0


@settings(max_examples=10)
@given(batch_size=st.integers(1, 200))
def test_loaders_know_their_length(batch_size: int) -> None:
    data = module(batch_size=batch_size)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert len(list(loader)) == len(loader)
