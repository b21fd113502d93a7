"""Arrays that settings name: what was measured for each pixel, or each sample of one."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_map(file: str | Tensor, key: str) -> Tensor:
    """Return a map (H, W), float32, of finite numbers that are not negative.

    Args:
        file: a ``.npy`` file, or the map itself.
        key: the setting that names it, for messages.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(file, Tensor):
        found, file = file.numpy(), "the array"
    else:
        try:
            found = np.load(Path(file).expanduser(), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{key}: {file} is no .npy file that can be read ({error})") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.size == 0:
        raise ValueError(f"{key}: {file} must hold an array (H, W) that is not empty")
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"{key}: {file} must hold finite numbers, none of them negative")
    return torch.from_numpy(found.astype(np.float32))
