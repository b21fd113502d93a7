"""The other formats: arrays, FITS, ND2, and what Pillow decodes by itself."""

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
from PIL import Image

from pixel_spotter.coordinates import Size
from pixel_spotter.data.values import (
    EndsEarlyError,
    Opened,
    UnreadableImageError,
    luma,
    refuse_absurd,
    upright,
    upright_size,
    white_of,
)

PILLOW = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "WEBP")
"""Raster formats that Pillow decodes by itself: others may start Ghostscript. TIFF is not its."""

_ORIENTATION = 274
"""EXIF's tag."""

_COLOURED = "is in colour, turned to grey"


def open_pillow(path: Path) -> Opened:
    """Open a file of one of the formats PILLOW; animations are read frame by frame."""
    image = Image.open(path, formats=PILLOW)
    try:
        width, height = image.size
        refuse_absurd(height, width)
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
        if depth == 16 or _is_deep_ppm(image):
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
        rgba = np.array(image.convert("RGBA"), dtype=np.float32)
        return luma(np.moveaxis(rgba[..., :3], -1, 0)) * rgba[..., 3] / np.float32(255)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    return luma(np.moveaxis(np.array(image.convert("RGB")), -1, 0))


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


def open_npy(path: Path) -> Opened:
    """Open an array (..., H, W), memory-mapped: all before the last two axes are frames."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _open_array(array.shape, array.dtype, partial(_nth, array))


def _nth(array: Any, frame: int) -> np.ndarray:
    """Return the n-th image of an array, or of what is indexed as one."""
    return np.asarray(array[np.unravel_index(frame, array.shape[:-2])])


def _open_array(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    read: Callable[[int], np.ndarray],
    close: Callable[[], object] = lambda: None,
) -> Opened:
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
        return _open_array(shape, dtype, reader.read, archive.close)
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


def open_fits(path: Path) -> Opened:
    """Open the first image of a FITS file, (..., H, W); its first row is y = 0.

    Values are scaled as BZERO and BSCALE say: unsigned whole numbers stay such.
    """
    try:
        from astropy.io import fits
    except ImportError as error:
        raise UnreadableImageError(_not_installed("FITS", "fits")) from error
    file = fits.open(path, memmap=False, lazy_load_hdus=True)  # a section reads no more
    try:
        images = (hdu for hdu in file if getattr(hdu, "is_image", False) and len(hdu.shape) > 1)
        hdu = next(images, None)
        if hdu is None:
            raise UnreadableImageError("holds no image")
        shape = tuple(map(int, hdu.shape))
        refuse_absurd(*shape[-2:])
        first = hdu.section[(0,) * (len(shape) - 2)] if len(shape) > 2 else hdu.section[:1]
        start, bits = hdu.fileinfo()["datLoc"], abs(hdu.header["BITPIX"])
        length, size = shape[-2] * shape[-1] * bits // 8, path.stat().st_size
        compressed = isinstance(hdu, fits.CompImageHDU)
        if compressed and math.prod(shape[:-2]) > size:
            raise UnreadableImageError("claims to have more frames than bytes")

        def read(frame: int) -> np.ndarray:
            if not compressed and start + (frame + 1) * length > size:
                raise EndsEarlyError("is missing: the file ends before it")
            return _nth(hdu.section, frame)

        opened = _open_array(shape, first.dtype, read, file.close)
    except BaseException:
        file.close()
        raise
    return opened


def open_nd2(path: Path) -> Opened:
    """Open an ND2 file of Nikon's microscopes; each channel of each position is a frame."""
    try:
        from nd2 import ND2File
    except ImportError as error:
        raise UnreadableImageError(_not_installed("ND2", "nd2")) from error
    file = ND2File(path)
    try:
        facts, dtype = file.attributes, np.dtype(file.dtype)
        height, width = int(facts.heightPx), int(facts.widthPx or 0)
        channels, colours = int(facts.channelCount or 1), file.components_per_channel
        refuse_absurd(height, width, channels, colours)
        count = int(facts.sequenceCount)
    except BaseException:
        file.close()
        raise

    def read(frame: int) -> np.ndarray:
        place, channel = divmod(frame, channels)
        values = np.asarray(file.read_frame(place)).reshape(channels, height, width, colours)
        chosen = np.moveaxis(values[channel], -1, 0)
        return luma(chosen[:3]) if colours >= 3 else chosen[0]

    notes = (_COLOURED,) if colours >= 3 else ()
    if channels > 1:
        notes = (*notes, f"holds {channels} channels, each of which counts as a frame")
    return Opened(
        count * channels, (height, width), white_of(dtype, facts.bitsPerComponentSignificant),
        dtype.kind == "f", read, file.close, notes,
    )  # fmt: skip


def _not_installed(name: str, extra: str) -> str:
    return f"is {name}, for which there is no reader: pip install 'pixel-spotter[{extra}]'"
