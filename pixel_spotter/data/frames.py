"""Image files in, frames out: in the file's own numbers, with what the file says of them."""

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from pixel_spotter.data import arrays, extras, pillow
from pixel_spotter.data.tiff import open_tiff
from pixel_spotter.data.values import EndsEarlyError, Opened, UnreadableImageError, told
from pixel_spotter.errors import UserError

__all__ = ["Frames", "UnreadableImageError", "find_images", "open_frames", "skipped_files"]

ENDINGS = {".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk", ".npy", ".npz", ".fits", ".fit", ".fts"}
"""Of files that other readers than Pillow read; and ``.nd2``."""

_BEGINNINGS: dict[bytes, Callable[[Path], Opened]] = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), open_tiff),
    b"\x93NUMPY": arrays.open_npy,
    b"PK\x03\x04": arrays.open_npz,
    b"SIMPLE  =": extras.open_fits,
    b"\xda\xce\xbe\x0a": extras.open_nd2,
    b"\x1f\x8b": extras.open_gzip,
}
"""How files begin, whatever they are called; all others are Pillow's."""


class Frames:
    """The frames of an image file, read one at a time; it holds the file open until closed.

    Numbers are the file's own, as floating point: nothing is divided, and brighter is larger.
    Colours are turned to grey as ITU-R 601 luma, transparent parts count as black, and the
    orientation that the file declares is obeyed. Of the TIFFs in which 0 is white, numbers are
    turned over. Frames are counted from 0, in messages too.

    Args:
        path: of the file.
        opened: what its reader knows of it.
        gaps: whether pixels may have no value: what is not finite is nan then, and not refused.
    """

    black: float = 0.0
    """What is black, in the file's own numbers: no format declares another."""

    def __init__(self, path: Path, opened: Opened, gaps: bool = False) -> None:
        self.path, self.gaps = path, gaps
        self.count, self.size = opened.count, opened.size
        self.floating, self.notes = opened.floating, opened.notes
        self._opened = opened

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each frame; see `read`."""
        return (self.read(frame) for frame in range(self.count))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    @cached_property
    def white(self) -> float | None:
        """What is white, in the file's own numbers; None where nothing says it.

        Whole numbers of up to 16 bits declare it: 255, 65535, 4095 where the file declares 12 bits.
        Floating-point ones do not, but are from 0 to 1 if all are: the file is read once for that.
        """
        if not self.floating:
            return self._opened.white
        failures: list[str] = []
        frames = (counts for _, counts in self.readable(failures))
        return 1.0 if all(counts.min() >= 0 and counts.max() <= 1 for counts in frames) else None

    def read(self, frame: int) -> np.ndarray:
        """Return a frame, by its number from 0: (H, W), float32.

        Raises:
            UnreadableImageError: if it is damaged, of another size than the first, or holds values
                that are not finite; naming the frame, where the file has several.
        """
        try:
            return self._read(frame)
        except UnreadableImageError as error:
            raise type(error)(self._named(frame, frame, str(error))) from error

    def readable(self, failures: list[str]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and the values of each frame that can be read, as `read` does.

        Why others cannot goes into ``failures``: a line for all that follow one another and have
        the same reason.
        """
        first, reason = 0, ""
        for frame in range(self.count):
            try:
                counts, now, ended = self._read(frame), "", False
            except UnreadableImageError as error:
                now, ended = str(error), isinstance(error, EndsEarlyError)
            if reason and now != reason:
                failures.append(self._named(first, frame - 1, reason))
            if now and now != reason:
                first = frame
            reason = now
            if ended:
                break
            if not now:
                yield frame, counts
        if reason:
            failures.append(self._named(first, self.count - 1, reason))

    def _read(self, frame: int) -> np.ndarray:
        with told():
            counts = self._opened.read(frame).astype(np.float32)
            if counts.shape != self.size:
                sizes = "{}x{} px, not {}x{} as the file".format(*counts.shape, *self.size)
                raise UnreadableImageError(f"is {sizes}")
            if not np.isfinite(counts).all():
                if self.gaps:
                    return np.where(np.isfinite(counts), counts, np.float32(np.nan))
                raise UnreadableImageError("holds values that are not finite")
        return counts

    def _named(self, first: int, last: int, reason: str) -> str:
        """Say which frames a reason is of, where there are several."""
        if self.count == 1:
            return reason
        return (
            f"frame {first} {reason}"
            if first == last
            else f"each of frames {first} to {last} {reason}"
        )


def open_frames(path: Path, gaps: bool = False) -> Frames:
    """Open an image file, whatever it is called, without decoding it; see `Frames`.

    TIFF in all its kinds, ``.npy`` and ``.npz`` (frames (H, W), or (..., H, W)), FITS and ND2,
    where astropy and nd2 are installed, and what Pillow decodes by itself: see `pillow.FORMATS`.

    Raises:
        UnreadableImageError: if the file is no image, damaged, or absurdly large.
    """
    with told():
        with path.open("rb") as file:
            start = file.read(16)
        if not start:
            raise UnreadableImageError("is empty, and not an image")
        opener = next((o for b, o in _BEGINNINGS.items() if start.startswith(b)), None)
        if path.suffix.lower() == ".nd2":  # old ones begin as JPEG 2000 files do
            opener = extras.open_nd2
        return Frames(path, (opener or pillow.open_pillow)(path), gaps)


def find_images(images: str) -> list[Path]:
    """List the files that a file name, a folder or a glob pattern stands for, sorted.

    Of a folder, the files whose names end as an image's do. ``**`` goes through folders.
    """
    path = Path(images)
    if path.is_file():
        return [path]
    found = (file for file in path.iterdir() if _is_image(file)) if path.is_dir() else None
    files = sorted(file for file in found or _matching(path) if file.is_file())
    if not files:
        raise UserError(f"images={images} names no image file")
    return files


def skipped_files(images: str) -> list[Path]:
    """List the files of a folder that `find_images` leaves out, sorted, but for hidden ones."""
    path = Path(images)
    others = (file for file in path.iterdir() if not _is_image(file)) if path.is_dir() else ()
    return sorted(file for file in others if file.is_file() and file.name[0] != ".")


def _is_image(file: Path) -> bool:
    ending = file.suffix.lower()
    of_pillow = Image.registered_extensions().get(ending) in pillow.FORMATS
    return of_pillow or ending == ".nd2" or ending in ENDINGS


def _matching(pattern: Path) -> Iterator[Path]:
    """Yield what a pattern stands for: ``*`` no hidden files, ``**`` no folders behind links."""
    root = Path(pattern.anchor)
    parts = [
        part if part == "**" else re.sub(r"\*+", "*", part)  # what Python 3.13 takes ** for
        for part in pattern.relative_to(root).parts
    ]
    parts += ["*"] if pattern.name == "**" else []  # before 3.13, it means folders only
    for found in root.glob("/".join(parts)):
        hidden = (part for part in found.parts if part.startswith("."))
        if all(part in (".", "..") or part in pattern.parts for part in hidden):
            yield found
