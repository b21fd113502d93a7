import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pixel_spotter.randomness import BLOCK, derive_seed, for_samples, generator

NAMES = (3, "train", 5, "noise")


def normal(count: int, rng: torch.Generator) -> Tensor:
    return torch.randn(count, 2, generator=rng)


WHOLE = for_samples(torch.arange(512), normal, *NAMES)


def test_a_batch_of_256_equals_four_of_64() -> None:
    parts = [for_samples(part, normal, *NAMES) for part in torch.arange(256).split(64)]
    assert torch.equal(for_samples(torch.arange(256), normal, *NAMES), torch.cat(parts))


@given(st.lists(st.integers(0, 511), min_size=1, max_size=80))
def test_any_samples_in_any_order_have_their_own_draws(samples: list[int]) -> None:
    """Batches that cut through blocks, shuffled ones, ones with a sample twice."""
    chosen = torch.tensor(samples)
    assert torch.equal(for_samples(chosen, normal, *NAMES), WHOLE[chosen])


def test_every_sample_has_draws_of_its_own() -> None:
    assert len(WHOLE.unique(dim=0)) == len(WHOLE)


@pytest.mark.parametrize(
    "names",
    [
        (4, "train", 5, "noise"),
        (3, "val", 5, "noise"),
        (3, "train", 6, "noise"),
        (3, "train", 5, "position"),
    ],
)
def test_other_names_other_draws(names: tuple[int | str, ...]) -> None:
    other = for_samples(torch.arange(512), normal, *names)
    assert not (other == WHOLE).any()


def test_the_draws_are_what_was_asked_for() -> None:
    """512 x 2 standard normal numbers: within four standard errors, blocks unrelated."""
    assert WHOLE.mean().abs() < 4 / 1024**0.5
    assert (WHOLE.var() - 1).abs() < 4 * (2 / 1024) ** 0.5
    blocks = WHOLE.view(-1, BLOCK * 2)
    related = torch.corrcoef(blocks).fill_diagonal_(0).abs().max()
    assert related < 5 / (BLOCK * 2) ** 0.5


def test_no_samples_no_draws_and_other_shapes() -> None:
    one = for_samples(torch.tensor([40]), lambda n, rng: torch.rand(n, generator=rng), *NAMES)
    assert one.shape == (1,)
    images = for_samples(
        torch.tensor([40, 41]), lambda n, rng: torch.rand(n, 3, 4, 5, generator=rng), *NAMES
    )
    assert images.shape == (2, 3, 4, 5)
    assert for_samples(torch.arange(0), normal, *NAMES).shape == (0, 2)


def test_the_global_stream_is_neither_used_nor_moved() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert torch.equal(for_samples(torch.arange(512), normal, *NAMES), WHOLE)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seeds_follow_from_their_names_alone() -> None:
    """Written down: another version or machine must not draw other samples."""
    assert derive_seed(0, "train", 3) == 5684830522523107084
    assert len({derive_seed(1, 23), derive_seed(12, 3), derive_seed("1", 23), derive_seed(1)}) == 4
    assert all(0 <= derive_seed(n) < 2**63 for n in range(1000))
    one, other = (torch.rand(3, generator=generator(0, name)) for name in ("a", "b"))
    assert not torch.equal(one, other)
