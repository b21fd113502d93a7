"""NumPy's arrays in files, ``.npy`` and ``.npz``; nothing is unpickled."""

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from pixel_spotter.data.values import (
    EndsEarlyError,
    Opened,
    UnreadableImageError,
    refuse_absurd,
    white_of,
)


def open_npy(path: Path) -> Opened:
    """Open an array (..., H, W), memory-mapped: all before the last two axes are frames."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return open_array(array.shape, array.dtype, partial(nth, array))


def nth(array: Any, frame: int) -> np.ndarray:
    """Return the n-th image of an array, or of what is indexed as one."""
    return np.asarray(array[np.unravel_index(frame, array.shape[:-2])])


def open_array(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    read: Callable[[int], np.ndarray],
    close: Callable[[], object] = lambda: None,
) -> Opened:
    """Open what is an array, once its shape and type are known.

    Args:
        shape: (..., H, W).
        dtype: of its values.
        read: returns the n-th of its images (H, W).
        close: closes the file.

    Raises:
        UnreadableImageError: if it cannot be images of grey values.
    """
    if dtype.kind not in "biuf":
        raise UnreadableImageError(f"holds {dtype}, not real numbers")
    if len(shape) < 2:
        raise UnreadableImageError(f"holds an array of {len(shape)} axes: an image has two")
    if len(shape) > 2 and shape[-1] <= 4 < min(shape[-3:-1]):
        raise UnreadableImageError(
            f"holds an array {shape}, as if of colours: frames are (N, height, width)"
        )
    refuse_absurd(*shape[-2:])
    count = math.prod(map(int, shape[:-2]))
    if count == 0:
        raise UnreadableImageError("holds no image")
    several = sum(side > 1 for side in shape[:-2]) > 1
    notes = (f"holds an array {shape}, whose {count} planes count as frames",) if several else ()
    size = (int(shape[-2]), int(shape[-1]))
    return Opened(count, size, white_of(dtype), dtype.kind == "f", read, close, notes)


def open_npz(path: Path) -> Opened:
    """Open the one array of images of an ``.npz``, read as it is decompressed, frame by frame."""
    archive = zipfile.ZipFile(path)
    try:
        arrays = {}
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    arrays[member] = _npy_header(file)
        images = {member: header for member, header in arrays.items() if len(header[0]) > 1}
        if len(images) != 1:
            names = ", ".join(member.filename.removesuffix(".npy") for member in arrays) or "none"
            raise UnreadableImageError(f"holds no single array of images, but {names}")
        ((member, (shape, fortran, dtype)),) = images.items()
        reader = _Members(archive, member, shape, fortran, dtype)
        return open_array(shape, dtype, reader.read, archive.close)
    except BaseException:
        archive.close()
        raise


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


class _Members:
    """Reads an archive's array from its start to its end; going back starts anew."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        member: zipfile.ZipInfo,
        shape: tuple[int, ...],
        fortran: bool,
        dtype: np.dtype[Any],
    ) -> None:
        self.archive, self.member, self.dtype = archive, member, dtype
        self.size = shape[-2:]
        self.next = 0
        self.file: IO[bytes] | None = None
        if fortran and len(shape) > 2:
            raise UnreadableImageError("holds frames in Fortran's order: save it as .npy")
        self.transposed = fortran

    def read(self, frame: int) -> np.ndarray:
        """Return a frame (H, W)."""
        if self.file is None or frame < self.next:
            self.file, self.next = self.archive.open(self.member), 0
            _npy_header(self.file)
        length = self.size[0] * self.size[1] * self.dtype.itemsize
        while True:
            content = self.file.read(length)
            if len(content) < length:
                raise EndsEarlyError("is missing: the array ends before it")
            self.next += 1
            if self.next > frame:
                break
        image = np.frombuffer(content, self.dtype)
        return image.reshape(self.size[::-1]).T if self.transposed else image.reshape(self.size)
