"""What the numbers in image files mean: which is white, what is grey, which way is up."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pixel_spotter.coordinates import Size

MOST_VALUES = 2**28
"""So many values, colours counted apart, a frame may have: what claims more is not decoded."""

_FULL = (1023.0, 4095.0, 16383.0)
"""What saturated pixels of 10, 12 and 14 bits hold."""

_SEVERAL = 10
"""So many pixels that hold the largest value are no accident, but where there are few values."""
_FEW_VALUES = 50
"""Of fewer values above the median, many pixels hold each."""

_LUMA = (0.299, 0.587, 0.114)
_ROWS = 64


class UnreadableImageError(Exception):
    """An image file, or a frame of it, that cannot be used: the message says why in one line."""


class EndsEarlyError(UnreadableImageError):
    """A frame that is not there, and neither is any after it."""


@dataclass(frozen=True)
class Opened:
    """What a reader knows of a file before it decodes any of it.

    Args:
        count: of frames.
        size: of each, (H, W), px.
        white: what the file declares to be white, in its own numbers; None where it does not.
        floating: whether its numbers are floating-point ones.
        read: decodes a frame, by its number: (H, W), any real type.
        close: closes the file.
        notes: what was decided about its values, or stays unknown.
    """

    count: int
    size: Size
    white: float | None
    floating: bool
    read: Callable[[int], np.ndarray]
    close: Callable[[], object]
    notes: tuple[str, ...] = ()


def white_of(dtype: np.dtype[Any], bits: int | None = None) -> float | None:
    """Return what is white in numbers of a type, if that says it.

    Args:
        dtype: the type.
        bits: how many of its bits count; None are all.

    Returns:
        The largest number of whole ones of up to 16 bits; None of others.
    """
    if dtype.kind == "b":
        return 1.0
    bits = 8 * dtype.itemsize if bits is None else bits
    if dtype.kind not in "iu" or not 1 <= bits <= 16:
        return None
    return float(2 ** (bits - (dtype.kind == "i")) - 1)


def saturated_at(
    counts: np.ndarray, white: float | None, known: float | None = None
) -> tuple[float | None, str]:
    """Return what a pixel holds at most, also where numbers have more bits than their camera.

    Args:
        counts: frames (F, H, W); pixels without a value are nan.
        white: what their type, or file, has as the largest; None if it has none.
        known: what was guessed from other frames, if it was: it holds until one has more.

    Returns:
        The most that a pixel holds, counts, None if nothing shows it; and what is to be said of it
        if it is guessed from these.
    """
    brightest = float(np.nanmax(counts, initial=0))
    if white is not None and brightest >= white:
        return white, ""
    if known is not None and brightest <= known:
        return known, ""
    if brightest in _FULL:
        return brightest, (
            f"{brightest:.0f}, its largest value, is taken for that of saturated pixels; if it is "
            f"not, give camera.saturation"
        )
    if number := plateau(counts):
        return brightest, (
            f"{number} pixels hold exactly {brightest:.7g}, the most there is, and are taken for "
            f"saturated: camera.saturation={brightest:.7g} says so, a larger one that they are not"
        )
    return white, ""


def plateau(counts: np.ndarray) -> int:
    """Return how many pixels hold exactly the largest value, if they look cut off there; else 0.

    That are several, at several places, and more than hold a little less, among values that are not
    few anyway, as those of single photons are.

    Args:
        counts: frames (F, H, W); pixels without a value are nan.
    """
    most = np.nanmax(counts, initial=-np.inf)
    full = counts == most
    number = int(full.sum())
    if number < _SEVERAL or full.any(axis=0).sum() < 3:  # a pixel that is stuck is one place
        return 0
    middle = np.nanmedian(counts)
    values = np.unique(counts[counts > middle])
    if len(values) < _FEW_VALUES:
        return 0
    little_less = min(most - 0.02 * (most - middle), values[-4])
    return number if number > np.count_nonzero(counts >= little_less) - number else 0


def luma(rgb: np.ndarray) -> np.ndarray:
    """Return the grey of colours (3, H, W), as ITU-R 601 has it: (H, W), float32.

    Equal ones stay what they are.
    """
    grey = np.empty(rgb.shape[1:], np.float32)
    for start in range(0, len(grey), _ROWS):  # a photograph's colours take much memory
        rows = slice(start, start + _ROWS)
        grey[rows] = np.tensordot(_LUMA, rgb[:, rows].astype(np.float64), 1)
    return grey


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image (H, W) as the orientation of TIFF 6.0, which is EXIF's, says: 1 is upright."""
    image = image[::-1] if orientation in (3, 4, 6, 7) else image
    image = image[:, ::-1] if orientation in (2, 3, 7, 8) else image
    return image.T if 5 <= orientation <= 8 else image


def upright_size(size: Size, orientation: int) -> Size:
    """Return the size (H, W) that an image has once it is upright."""
    return (size[1], size[0]) if 5 <= orientation <= 8 else size


def refuse_absurd(*sides: int) -> None:
    """Refuse to decode what claims to have so many values, or none."""
    if min(sides, default=0) < 1:
        raise UnreadableImageError("has no pixels")
    if math.prod(map(int, sides)) > MOST_VALUES:
        raise UnreadableImageError("is absurdly large")


@contextmanager
def told() -> Iterator[None]:
    """Tell in one line whatever the readers come up with on files that they cannot read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("is not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("is absurdly large") from error
    except MemoryError as error:
        raise UnreadableImageError("is too large for the memory") from error
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or _line(error)}") from error
    except Exception as error:  # damaged files make readers raise anything
        raise UnreadableImageError(f"is damaged: {_line(error)}") from error


def _line(error: Exception) -> str:
    words = " ".join(str(error).split())
    if " " not in words:  # as those of missing keys: they say nothing by themselves
        words = f"{type(error).__name__} {words}".strip()
    return words[:200]


logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # it logs damage before it raises
