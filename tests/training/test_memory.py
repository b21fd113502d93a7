import platform
import resource

import pytest
import torch
from conftest import Run

MIB = 2**20 // resource.getpagesize()


def use_and_free(times: int) -> int:
    """Use 60 MiB so often; return how often the system had to find this process a page for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(60, 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_after_a_training_memory_that_was_freed_is_used_again(tiny_run: Run) -> None:
    use_and_free(10)
    assert use_and_free(5) < 60 * MIB
