"""Which samples are drawn when, and by which device."""

import torch
from torch import Tensor

from pixel_spotter.randomness import generator


def batches(
    count: int, batch_size: int, rank: int = 0, world_size: int = 1, equal: bool = False
) -> list[Tensor]:
    """Return the sample numbers 0 .. count-1 in order, a batch at a time.

    Of several devices, each takes its piece of what would be one device's larger batch: two with
    batches of 32 see together what one with batches of 64 sees. Noise of consecutive samples
    stays together (see `randomness.for_samples`).

    Args:
        count: how many samples.
        batch_size: samples in a batch, on each device.
        rank: which device this is.
        world_size: of how many.
        equal: whether all devices get the same number of samples in the same number of batches,
            as training together needs; up to ``world_size - 1`` samples are left out then. If
            not, one that would get none gets a batch without samples, to go through the same.
    """
    if equal:
        count -= count % world_size
    shared = torch.split(torch.arange(count), batch_size * world_size) if count else ()
    mine = [one.tensor_split(world_size)[rank] for one in shared]
    return [batch for batch in mine if len(batch)] or ([] if equal else [torch.arange(0)])


def shuffled(count: int, samples: int, seed: int, epoch: int) -> Tensor:
    """Return an epoch's draw of ``samples`` out of ``count`` indices: (samples,), int64.

    Every index comes once before any comes again.
    """
    rng = generator(seed, "train", epoch)
    rounds = -(-samples // count)
    return torch.cat([torch.randperm(count, generator=rng) for _ in range(rounds)])[:samples]
