"""What Pillow decodes by itself, and PNGs of 16 bits, which it would cut to 8."""

from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from pixel_spotter.coordinates import Size
from pixel_spotter.data.values import (
    EndsEarlyError,
    Opened,
    luma,
    refuse_absurd,
    upright,
    upright_size,
)

FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "WEBP")
"""Raster formats that Pillow decodes by itself: others may start Ghostscript. TIFF is not its."""

_ORIENTATION = 274
"""EXIF's tag."""

_COLOURED = "is in colour, turned to grey"


def open_pillow(path: Path) -> Opened:
    """Open a file of one of the formats FORMATS; animations are read frame by frame."""
    image = Image.open(path, formats=FORMATS)
    try:
        width, height = image.size
        refuse_absurd(height, width, len(image.getbands()))
        # Pillow would decode a PNG to look behind its image for more.
        orientation = int(Image.Image.getexif(image).get(_ORIENTATION, 1))
        size = upright_size((height, width), orientation)
        depth, significant = _png_depth(path) if image.format == "PNG" else (8, None)
        count = int(getattr(image, "n_frames", 1))
        notes = () if image.mode in ("1", "L", "F") or image.mode[0] == "I" else (_COLOURED,)
        if depth == 16 and count == 1:
            image.close()
            return _open_deep_png(path, size, orientation, significant, notes)
        white, scale = _white_of_pillow(image)
        if (depth == 16 and image.mode[0] != "I") or _is_deep_ppm(image):
            notes = (*notes, "has 16 bits, of which only 8 are read")
    except BaseException:
        image.close()
        raise

    def read(frame: int) -> np.ndarray:
        try:
            image.seek(frame)
        except EOFError as error:
            raise EndsEarlyError("is missing: the file ends before it") from error
        grey = _grey(image)
        return upright(grey if scale == 1 else np.rint(grey * np.float32(scale)), orientation)

    return Opened(count, size, white, image.mode == "F", read, image.close, notes)


def _grey(image: Image.Image) -> np.ndarray:
    """Return grey values (H, W); transparent parts count as black."""
    if image.mode == "F" or image.mode.startswith("I"):
        return np.array(image)
    if image.has_transparency_data:
        rgba = np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
        grey: np.ndarray = luma(rgba[:3]) * rgba[3] / np.float32(255)
        return grey
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    return luma(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def _white_of_pillow(image: Image.Image) -> tuple[float | None, float]:
    """Return what is white, and by what Pillow's values are multiplied for the file's own."""
    if image.mode == "F":
        return None, 1.0
    stretched = 65535.0 if image.mode.startswith("I") else 255.0
    if image.format == "PPM" and (most := _ppm_white(image)):
        return (stretched, 1.0) if _is_deep_ppm(image) else (most, most / stretched)
    return (None if image.mode == "I" else stretched), 1.0


def _ppm_white(image: Image.Image) -> float | None:
    """Return the largest value that a PPM or PGM declares, to which Pillow stretches them."""
    arguments = getattr(image, "tile")[0][3]  # noqa: B009, as only its readers have it
    declared = arguments[-1] if isinstance(arguments, tuple) else None
    if type(declared) is int and declared > 0:
        return float(declared)
    return 65535.0 if arguments == "I;16B" else None


def _is_deep_ppm(image: Image.Image) -> bool:
    deep = image.format == "PPM" and image.mode == "RGB"
    return deep and (_ppm_white(image) or 0) > 255


def _png_depth(path: Path) -> tuple[int, int | None]:
    """Return the bits of a PNG's samples, and how many of them its sBIT declares to count."""
    with path.open("rb") as file:
        depth = file.read(26)[24]
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"sBIT" and 1 <= length <= 4:
                return depth, file.read(1)[0]
            file.seek(length + 4, 1)
    return depth, None


def _open_deep_png(
    path: Path, size: Size, orientation: int, significant: int | None, notes: tuple[str, ...]
) -> Opened:
    """Open a PNG of 16 bits, which Pillow would cut to 8 where there is more than grey."""

    def decode() -> np.ndarray:
        samples = imagecodecs.png_decode(path.read_bytes())
        return np.moveaxis(np.atleast_3d(samples), -1, 0)

    def read(frame: int) -> np.ndarray:
        samples = decode()
        grey = samples[0] if len(samples) < 3 else luma(samples[:3])
        if len(samples) in (2, 4):
            grey = grey * (samples[-1].astype(np.float32) / np.float32(65535))
        return upright(grey, orientation)

    white = 65535.0
    if significant is not None and 8 <= significant < 16 and _is_unshifted(decode(), significant):
        white = 2.0**significant - 1
    return Opened(1, size, white, False, read, lambda: None, notes)


def _is_unshifted(samples: np.ndarray, bits: int) -> bool:
    """Tell whether 16-bit samples hold values of fewer bits as they are.

    The standard wants them shifted to the top, where the rest is 0 or the first bits again, and
    sBIT to say by how much: not all who write sBIT do so.
    """
    top = samples >> (16 - bits) << (16 - bits)
    shifted = (samples == top) | (samples == top | top >> bits)
    return bool(samples.max() < 2**bits and not shifted.all())
