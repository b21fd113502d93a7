from collections import Counter
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from conftest import TINY, compose
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_spotter.cli.mistakes import instantiate
from pixel_spotter.coordinates import as_xy
from pixel_spotter.data.base import Batch
from pixel_spotter.data.pixels import PixelDataModule, shuffled
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import make


def module(**changes: Any) -> PixelDataModule:
    arguments = {"image_size": 12, "train_samples": 100, "batch_size": 16, "seed": 3}
    return PixelDataModule(**(arguments | changes))


def everything(data: PixelDataModule, split: str, number: int = 0) -> torch.Tensor:
    """Return the positions that a loader's batches become in an epoch, in order."""
    loader = getattr(data, f"{split}_dataloader")()
    parts = [data.truth(split, number, batch["samples"]) for batch in loader]
    return torch.cat([as_xy(part, "_true") for part in parts]).long()


def epoch(data: PixelDataModule, number: int) -> torch.Tensor:
    return everything(data, "train", number)


@pytest.mark.parametrize("batch_size", [1, 7, 99, 100, 1000])
def test_batch_size_does_not_change_the_samples(batch_size: int) -> None:
    for number in (0, 3):
        assert torch.equal(epoch(module(batch_size=batch_size), number), epoch(module(), number))


def test_workers_do_not_change_the_samples() -> None:
    for split in ("train", "test"):
        assert torch.equal(everything(module(num_workers=2), split), everything(module(), split))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_sample_is_the_same_in_any_batch(split: str) -> None:
    """Alone, in another order, and whatever was asked for in between."""
    data = module()
    numbers = torch.arange(data.counts[split])
    whole = data.batch(split, 2, numbers)
    some = torch.tensor([9, 0, 4])
    data.batch("train", 1, numbers[:5])
    part = data.batch(split, 2, some)
    assert torch.equal(part.samples, some)
    assert torch.equal(part.image, whole.image[some])
    assert torch.equal(as_xy(part.truth, "_true"), as_xy(whole.truth, "_true")[some])


@pytest.mark.parametrize("split", ["uniform", "quadrant", "border", "iid"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_val_and_test_positions_come_once_over_all_devices(split: str, world_size: int) -> None:
    data = module(split=split)
    for part in ("val", "test"):
        visited = []
        for rank in range(world_size):
            data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)  # type: ignore[assignment]
            visited += everything(data, part).tolist()
        data.trainer = None
        assert sorted(visited) == sorted(getattr(data.positions, part).tolist())


def test_devices_train_on_the_pieces_of_one_devices_batches() -> None:
    """Of the last batch, which is of one sample, the second has none of its own."""
    data = module(batch_size=20, train_samples=101)
    whole = [batch["samples"] for batch in data.train_dataloader()]
    parts = []
    for rank in (0, 1):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        parts.append([*data.train_dataloader()])
    assert parts[1][-1]["weight"] == 0
    for batch, *pieces in zip(whole[:-1], *parts, strict=False):
        assert torch.equal(torch.cat([piece["samples"] for piece in pieces]), batch)
        assert [piece["weight"] for piece in pieces] == [1, 1]
    assert torch.equal(parts[0][-1]["samples"], whole[-1])


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


def test_the_samples_that_a_model_is_solved_on_are_there_in_short_epochs() -> None:
    short, long = module(train_samples=100, epoch_samples=10), module(train_samples=100)
    numbers = torch.arange(100)
    one, other = (as_xy(data.truth("train", 0, numbers), "_true") for data in (short, long))
    assert torch.equal(one, other)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    assert torch.equal(epoch(module(), 1), epoch(module(), 1))
    assert not torch.equal(epoch(module(), 0), epoch(module(), 1))
    assert not torch.equal(epoch(module(), 0), epoch(module(seed=4), 0))


def test_samples_neither_follow_nor_move_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = epoch(module(), 2)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert torch.equal(epoch(module(), 2), before)
    module(split="iid")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_trainer_sees_the_draw_of_each_epoch_as_images_and_positions() -> None:
    class Recorder(L.Callback):
        seen: list[list[Batch]]

        def __init__(self) -> None:
            self.seen = []

        def on_train_epoch_start(self, *_: Any) -> None:
            self.seen.append([])

        def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, index: int) -> None:
            self.seen[-1].append(batch)

    cfg = compose([*TINY, "data.image_size=[12,16]", "data.batch_size=24", "data.train_samples=60"])
    data, model = make(cfg, "cnn")
    recorder = Recorder()
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

    fresh = instantiate(cfg.data, "data")
    for number in range(3):
        batches = recorder.seen[number]
        assert [len(batch.samples) for batch in batches] == [24, 24, 12]
        assert torch.cat([batch.samples for batch in batches]).tolist() == [*range(60)]
        truths = [as_xy(batch.truth, "_true") for batch in batches]
        for batch, xy in zip(batches, truths, strict=True):
            assert batch.image.shape == (len(xy), 1, 12, 16)
            assert batch.image.dtype == xy.dtype == torch.float32
            assert torch.equal(batch.image, render_pixels(xy.long(), (12, 16)))
        assert torch.equal(torch.cat(truths).long(), epoch(fresh, number))


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
        ("seed", -1),
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
    assert uniform.seen_in_training([]) == 0


@settings(max_examples=10)
@given(batch_size=st.integers(1, 200))
def test_loaders_know_their_length(batch_size: int) -> None:
    data = module(batch_size=batch_size)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert len(list(loader)) == len(loader)


@given(count=st.integers(1, 40), samples=st.integers(1, 200), seed=st.integers(0, 99))
def test_every_position_comes_before_any_comes_again(count: int, samples: int, seed: int) -> None:
    drawn = shuffled(count, samples, seed, epoch=0)
    assert len(drawn) == samples
    for start in range(0, samples, count):
        one_round = drawn[start : start + count].tolist()
        assert len(set(one_round)) == len(one_round)
    times = Counter(drawn.tolist())
    assert {times[index] for index in range(count)} <= {samples // count, -(-samples // count)}


def test_draws_of_epochs_and_seeds_differ_and_repeat() -> None:
    draws = [shuffled(90, 100, seed, epoch) for seed in (3, 4) for epoch in (0, 1)]
    assert torch.equal(draws[0], shuffled(90, 100, 3, 0))
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert draws[0][:90].tolist() != [*range(90)]
