"""Formats whose readers are optional extras: FITS and ND2; and what is to be unpacked first."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from pixel_spotter.data.arrays import nth, open_array
from pixel_spotter.data.values import (
    EndsEarlyError,
    Opened,
    UnreadableImageError,
    luma,
    refuse_absurd,
    white_of,
)


def open_fits(path: Path) -> Opened:
    """Open the first image of a FITS file, (..., H, W); its first row is y = 0.

    Others that it has as well are told.

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
        others: list[str] = []
        with suppress(Exception):  # they may be damaged
            others.extend(other.name or "one without a name" for other in images)
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
            return nth(hdu.section, frame)

        opened = open_array(shape, first.dtype, read, file.close)
        if others:
            names = ", ".join(others[:3])
            names += f" and {len(others) - 3} more" if len(others) > 3 else ""
            said = f"holds other images, which are left out: {names}"
            opened = replace(opened, notes=(*opened.notes, said))
    except BaseException:
        file.close()
        raise
    return opened


def open_gzip(path: Path) -> NoReturn:
    """Refuse what gzip has packed, as of ``.fits.gz``: frames could not be read one at a time."""
    raise UnreadableImageError("is packed by gzip: unpack it first")


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

    notes = ("is in colour, turned to grey",) if colours >= 3 else ()
    if channels > 1:
        notes = (*notes, f"holds {channels} channels, each of which counts as a frame")
    return Opened(
        count * channels, (height, width), white_of(dtype, facts.bitsPerComponentSignificant),
        dtype.kind == "f", read, file.close, notes,
    )  # fmt: skip


def _not_installed(name: str, extra: str) -> str:
    return f"is {name}, for which there is no reader: pip install 'pixel-spotter[{extra}]'"
