"""Files that are either whole or not there, and that hold nothing but data."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pixel_spotter.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; rename it, whole, if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say whose it is
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values; refuse what is none, or would run code."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} was refused: it is no file of weights, or holds more than plain data, "
            f"which could run code when loaded"
        ) from error
    except Exception as error:  # torch.load answers damage with whatever its parsers raise
        raise UserError(f"{path} is damaged or not a file of PyTorch weights") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no checkpoint")
    return content
