"""Image files in, tensors out."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pixel_spotter.coordinates import Size
from pixel_spotter.errors import UserError

FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What is read: raster formats that Pillow decodes by itself (others may start Ghostscript)."""


class UnreadableImageError(Exception):
    """An image file that cannot be used: the message says why."""


def find_images(images: str) -> list[Path]:
    """List the files that a file name, a folder or a glob pattern stands for, sorted.

    Of a folder, the files whose names end as an image's do. ``**`` goes through folders.
    """
    path = Path(images)
    if path.is_file():
        return [path]
    if path.is_dir():
        formats = Image.registered_extensions()
        files = [file for file in path.iterdir() if formats.get(file.suffix.lower()) in FORMATS]
    else:
        files = [*_matching(path)]
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise UserError(f"images={images} names no image file")
    return files


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


def read_image(path: Path, size: Size) -> Tensor:
    """Read an image file as grey values in [0, 1]: (1, H, W), float32.

    Colours are turned to grey as ITU-R 601 luma; transparent parts count as black. 8-bit images
    are divided by 255, 16-bit ones by 65535; floating-point ones are taken as they are. Of several
    frames, the first is read. The size is checked before anything is decoded.

    Raises:
        UnreadableImageError: if the file is no image, damaged, or of another size (H, W) in px.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.size[::-1] != size:
                width, height = image.size
                raise UnreadableImageError(
                    f"is {height}x{width} px (height x width), the model takes {size[0]}x{size[1]}"
                )
            grey = _grey(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("is not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("is absurdly large") from error
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror or error}") from error
    except (ValueError, SyntaxError, EOFError, IndexError, OverflowError, MemoryError) as error:
        # what Pillow's decoders come up with on damaged files
        raise UnreadableImageError(f"is damaged: {error}") from error
    if not np.isfinite(grey).all():
        raise UnreadableImageError("holds values that are not finite")
    return torch.from_numpy(grey).unsqueeze(0)


def _grey(image: Image.Image) -> np.ndarray:
    """Return grey values (H, W), float32."""
    if image.mode == "F":
        return np.array(image, dtype=np.float32)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise UnreadableImageError("has 32-bit integers, of which nobody knows what is white")
    if image.mode.startswith("I"):  # 16 bits, which Pillow widens to 32 in PNG and PPM
        return np.array(image, dtype=np.float32) / 65535
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return np.array(image.convert("L"), dtype=np.float32) / 255
