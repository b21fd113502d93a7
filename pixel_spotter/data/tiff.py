"""TIFF in all its kinds, decoded by tifffile."""

import math
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tifffile import PHOTOMETRIC, TiffFile, TiffPage

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

_JPEG = (6, 7, 33007, 34892)
_COMPRESSIONS = {
    *(1, 2, 3, 4, 5, 8, 32773, 32946, *_JPEG),  # none, CCITT, LZW, Deflate, PackBits, JPEG
    *(33003, 33004, 33005, 34712, 34925, 50000, 50001, 50002),  # JPEG 2000, LZMA, ZSTD, WebP, XL
}
_GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW)
_LAB = (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB, PHOTOMETRIC.ITULAB)
_COLOURS: dict[int, int] = {
    PHOTOMETRIC.RGB: 3, PHOTOMETRIC.PALETTE: 1, PHOTOMETRIC.SEPARATED: 4, PHOTOMETRIC.YCBCR: 3,
    **dict.fromkeys(_LAB, 3),
}  # fmt: skip
"""Samples of a pixel's colour; those of _GREY are planes, each a frame of its own."""

_PREMULTIPLIED, _ALPHA = 1, 2
"""Values of the tag ExtraSamples."""


class _Kind(NamedTuple):
    """What all frames of a file must share, besides their size, to be comparable."""

    dtype: np.dtype[np.generic]
    white: float | None
    photometric: int
    samples: int

    def __str__(self) -> str:
        white = "" if self.white is None else f", white {self.white:g}"
        return f"{self.samples} x {self.dtype} {_name(self.photometric)}{white}"


def open_tiff(path: Path) -> Opened:
    """Open a TIFF: each directory is a frame, or several where planes share one (see `_planes`).

    Of images of several planes that are no colours, each is a frame. Thumbnails are left out.

    Raises:
        UnreadableImageError: if it holds what cannot be one image of grey values.
    """
    tif = TiffFile(path, is_ome=False)  # OME files are read by their pages: none refers to others
    try:
        cut_off = _is_cut_off(tif)
        chosen = _full_pages(tif)
        first = _page(tif, chosen[0])
        kind = _kind(first, first.description)
        height_width = upright_size(*_size_and_orientation(first))
        shared = _planes(tif, first) if len(tif.pages) == 1 else 1
        reader = _Reader(tif, chosen, kind, shared, first.description)
        notes = _notes(path, first, kind, reader.samples)
    except BaseException:
        tif.close()
        raise
    found = shared if shared > 1 else len(chosen) + cut_off  # the frame that is known to be missing
    count, floating = found * reader.samples, kind.dtype.kind == "f"
    return Opened(count, height_width, kind.white, floating, reader.read, tif.close, notes)


def _is_cut_off(tif: TiffFile) -> bool:
    """Tell whether a directory's successor is not in the file any more.

    tifffile leaves out what is missing, and would follow directories in circles.
    """
    file, form = tif.filehandle, tif.tiff
    order: Literal["little", "big"] = "little" if tif.byteorder == "<" else "big"
    offset, seen = tif.pages.first.offset, set[int]()
    while offset:
        if offset in seen:
            raise UnreadableImageError("is damaged: its directories go in circles")
        seen.add(offset)
        file.seek(offset)
        tags = int.from_bytes(file.read(form.tagnosize), order)
        file.seek(offset + form.tagnosize + tags * form.tagsize)
        following = file.read(form.offsetsize)
        offset = int.from_bytes(following, order)
        if len(following) < form.offsetsize or offset >= file.size:
            return True
    return False


def _full_pages(tif: TiffFile) -> "range | list[int]":
    """Return the numbers of the directories that hold images, not reduced copies or masks.

    Only where the second or the last is such a one, all are looked at: that takes long.
    """
    every = range(len(tif.pages))
    if len(every) == 0:
        raise UnreadableImageError("holds no image")

    def full(number: int) -> bool:
        page = _page(tif, number)
        return not (page.is_reduced or page.is_mask)

    if len(every) == 1 or (full(1) and full(every[-1])):
        return every
    return [number for number in every if full(number)] or every


def _page(tif: TiffFile, number: int) -> TiffPage:
    page = tif.pages[number]
    assert isinstance(page, TiffPage)
    return page


def _planes(tif: TiffFile, page: TiffPage) -> int:
    """Return how many images one directory stands for: those of ImageJ follow one another."""
    if not page.is_contiguous:
        return 1
    if page.is_imagej:
        told = tif.imagej_metadata or {}
        return max(1, int(told.get("images", 1)))
    shape = tif.shaped_metadata[0]["shape"] if tif.shaped_metadata else tif.series[0].shape
    return max(1, math.prod(shape) // page.size)


def _kind(page: TiffPage, description: str) -> _Kind:
    """Refuse what cannot be decoded or understood, before any of it is decoded.

    Args:
        page: of one frame.
        description: of the file: OME-XML stands in the first directory alone.
    """
    refuse_absurd(*page.shape)
    refuse_absurd(*page.chunks)
    if page.compression not in _COMPRESSIONS:
        raise UnreadableImageError(f"is compressed by {page.compression}, which is not read")
    if page.dtype is None or page.dtype.kind not in "biuf":
        raise UnreadableImageError("has values that are no real numbers of a known type")
    if {*page.axes} - {*"YXS"}:
        raise UnreadableImageError(f"has directories of {page.axes}, not of images")
    photometric, samples = page.photometric, page.samplesperpixel
    colours = _COLOURS.get(photometric)
    if colours is None and photometric not in _GREY:
        raise UnreadableImageError(f"has colours, {_name(photometric)}, that are not read")
    if colours is not None and samples < colours:
        raise UnreadableImageError(f"has {samples} samples of {_name(photometric)}")
    if colours is None:
        samples -= sum(extra in (_PREMULTIPLIED, _ALPHA) for extra in page.extrasamples)
    white = _declared_white(page, description)
    if photometric == PHOTOMETRIC.PALETTE and not page.is_imagej:
        white = 255.0
    if photometric == PHOTOMETRIC.MINISWHITE and (white is None or page.dtype.kind == "i"):
        raise UnreadableImageError(f"declares that 0 is white, of {page.dtype}: nobody knows black")
    return _Kind(page.dtype, white, photometric, max(1, samples))


def _declared_white(page: TiffPage, description: str) -> float | None:
    """Return what is white: all bits, or those that OME-XML or MaxSampleValue declare."""
    bits: int | None = page.bitspersample if page.dtype and page.dtype.kind in "iu" else None
    found = re.search(r'<Pixels\b[^>]*\sSignificantBits="(\d{1,2})"', description)
    most = page.tags.valueof(281)
    most = most[0] if isinstance(most, tuple) and most else most
    if found:
        bits = int(found[1])
    elif type(most) is int and 7 < (most + 1).bit_length() - 1 <= 16 and not most & (most + 1):
        bits = (most + 1).bit_length() - 1  # a full number of bits: not just the brightest value
    assert page.dtype is not None
    return white_of(page.dtype, bits)


class _Reader:
    """Decodes frames; of a directory with several, the others are kept, or why there are none."""

    def __init__(
        self,
        tif: TiffFile,
        chosen: "range | list[int]",
        kind: _Kind,
        shared: int,
        description: str,
    ) -> None:
        self.tif, self.chosen, self.kind, self.shared = tif, chosen, kind, shared
        self.description = description
        self.samples = kind.samples if kind.photometric in _GREY else 1
        self.kept: tuple[int, TiffPage | None, np.ndarray | Exception] = (-1, None, np.empty(0))

    def read(self, frame: int) -> np.ndarray:
        """Return a frame (H, W)."""
        plane, sample = divmod(frame, self.samples)
        if plane >= max(len(self.chosen), self.shared):
            raise EndsEarlyError("is missing, and all that followed: the file ends before it")
        if self.kept[0] != plane:
            page = None
            try:
                page = _page(self.tif, self.chosen[0 if self.shared > 1 else plane])
                self.kept = plane, page, self._decode(page, plane)
            except Exception as error:
                self.kept = plane, page, error
        _, page, planes = self.kept
        if isinstance(planes, Exception):
            raise planes
        assert page is not None
        return upright(_grey(page, self.kind, planes, sample), _size_and_orientation(page)[1])

    def _decode(self, page: TiffPage, plane: int) -> np.ndarray:
        """Return an image's planes: (samples, H, W)."""
        found, kind = _kind(page, self.description), self.kind
        if found != kind:
            raise UnreadableImageError(f"is of another kind, {found}, than the first, {kind}")
        shared = self.shared > 1
        values = _shared(self.tif, page, plane) if shared else _decoded(self.tif, page)
        return np.moveaxis(values, page.axes.index("S"), 0) if "S" in page.axes else values[None]


def _shared(tif: TiffFile, page: TiffPage, plane: int) -> np.ndarray:
    """Read one of the planes that follow one another behind a directory."""
    assert page.dtype is not None
    dtype = page.dtype.newbyteorder(tif.byteorder)
    file, length = tif.filehandle, page.size * dtype.itemsize
    start = page.dataoffsets[0] + plane * length
    if start + length > file.size:
        raise EndsEarlyError("is missing: the file ends before it")
    file.seek(start)
    return np.frombuffer(file.read(length), dtype).reshape(page.shape)


def _decoded(tif: TiffFile, page: TiffPage) -> np.ndarray:
    """Decode a directory's image; tifffile fills what is missing, which nobody would notice."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    parts = math.prod(page.chunked)
    if len(offsets) < parts or len(lengths) < parts or 0 in (*offsets[:parts], *lengths[:parts]):
        raise UnreadableImageError("lacks a part of its image")
    ends = max(map(sum, zip(offsets, lengths, strict=False)))
    if ends > tif.filehandle.size:
        raise UnreadableImageError("is cut off: the file ends before its image does")
    values = page.asarray(maxworkers=1)
    return np.asarray(values).reshape(page.shape)


def _grey(page: TiffPage, kind: _Kind, planes: np.ndarray, sample: int) -> np.ndarray:
    """Turn planes (samples, H, W) into grey values in which more is brighter: (H, W)."""
    white, colours = kind.white, _COLOURS.get(kind.photometric, kind.samples)
    grey: np.ndarray
    if kind.photometric == PHOTOMETRIC.MINISWHITE:
        assert white is not None
        grey = np.float32(white) - planes[sample].astype(np.float32)
    elif kind.photometric in _GREY or kind.photometric in _LAB:
        grey = planes[sample]
    elif kind.photometric == PHOTOMETRIC.PALETTE:
        grey = planes[0] if page.is_imagej else _of_palette(page, planes[0])
    elif kind.photometric == PHOTOMETRIC.YCBCR and page.compression not in _JPEG:
        grey = planes[0]
    elif kind.photometric == PHOTOMETRIC.SEPARATED:
        if white is None:
            raise UnreadableImageError("has inks of which nobody knows what is none")
        light = np.float32(white) - planes[:4].astype(np.float32)
        grey = luma(light[:3]) * light[3] / np.float32(white)
    else:
        grey = luma(planes[:3])
    extras = [*page.extrasamples]
    if _ALPHA in extras and colours + extras.index(_ALPHA) < len(planes):
        bits = white_of(planes.dtype) or 1.0
        opaque = planes[colours + extras.index(_ALPHA)].astype(np.float32) / np.float32(bits)
        grey = grey * opaque
    return grey


def _of_palette(page: TiffPage, index: np.ndarray) -> np.ndarray:
    """Return the grey, 0 to 255, of colours that are 16-bit ones in a palette, or 8-bit ones."""
    palette = np.asarray(page.colormap)
    palette = palette // 256 if palette.max() > 255 else palette
    grey: np.ndarray = luma(palette[:, None, :])[0][index]
    return grey


def _size_and_orientation(page: TiffPage) -> tuple[tuple[int, int], int]:
    orientation = page.tags.valueof(274)
    number = int(orientation) if isinstance(orientation, int) else 1
    return (page.imagelength, page.imagewidth), number


def _notes(path: Path, page: TiffPage, kind: _Kind, samples: int) -> tuple[str, ...]:
    """Say in words what was decided about a file's planes and colours."""
    notes = []
    imagej = re.search(r"^ImageJ=[\s\S]*\bchannels=(\d+)", page.description)
    ome = re.search(r'<Pixels\b[^>]*\sSizeC="(\d+)"', page.description)
    declared = imagej or (ome if kind.photometric in _GREY else None)
    channels = int(declared[1]) if declared else samples
    if {*re.findall(r'<UUID\b[^>]*\sFileName="([^"]*)"', page.description)} - {path.name}:
        notes.append("names other files as its parts, which are read for themselves")
    if max(samples, channels) > 1:
        notes.append(f"holds {max(samples, channels)} channels, each of which counts as a frame")
    if kind.photometric == PHOTOMETRIC.PALETTE and page.is_imagej:
        notes.append("has display colours, which are left out")
    elif kind.photometric in _LAB:
        notes.append("is in Lab colours, of which lightness is taken")
    elif kind.photometric == PHOTOMETRIC.CFA:
        notes.append("is a colour camera's mosaic, taken as grey")
    elif kind.photometric not in _GREY:
        notes.append("is in colour, turned to grey")
    return tuple(notes)


def _name(photometric: int) -> str:
    try:
        return PHOTOMETRIC(photometric).name
    except ValueError:
        return f"photometric {photometric}"
