"""Damaged files of every format: told in one line, whatever is wrong, and nothing else happens."""

import io
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from pixel_spotter.data.frames import UnreadableImageError, open_frames
from pixel_spotter.data.pillow import FORMATS

SIZE = (18, 16)


def noise(seed: int = 0, count: int = 0) -> np.ndarray:
    shape = (count, *SIZE) if count else SIZE
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


GREY = (noise() >> 8).astype(np.uint8)

TIFFS = {
    "plain": {"data": noise(count=3)},
    "big-endian BigTIFF": {"data": noise(count=2), "bigtiff": True, "byteorder": ">"},
    "tiles, LZW": {"data": noise(count=2), "tile": (16, 16), "compression": "lzw"},
    "Deflate": {"data": noise(count=3), "compression": "zlib", "predictor": True, "metadata": None},
    "ZSTD": {"data": noise(), "compression": "zstd"},
    "PackBits": {"data": noise(), "compression": "packbits"},
    "LZMA": {"data": noise(), "compression": "lzma"},
    "JPEG 2000": {"data": noise(), "compression": "jpeg2000"},
    "JPEG XL": {"data": noise(), "compression": "jpegxl"},
    "JPEG": {"data": GREY, "compression": "jpeg"},
    "WebP": {"data": np.dstack([GREY] * 3), "photometric": "rgb", "compression": "webp"},
    "ImageJ": {"data": noise(count=4).reshape(2, 2, *SIZE), "imagej": True},
    "OME": {"data": noise(count=3), "ome": True},
    "planar RGB": {"data": noise(count=3), "photometric": "rgb", "planarconfig": "separate"},
    "one directory": {"data": noise(count=3), "truncate": True},
    "floats": {"data": noise().astype(np.float32)},
}


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def samples() -> dict[str, bytes]:
    """A file of each kind that can be written."""
    rgb = Image.fromarray(GREY).convert("RGB")
    stack = [Image.fromarray(GREY), rgb.convert("L").rotate(180), Image.fromarray(255 - GREY)]
    files = {}
    for name, how in TIFFS.items():
        files[name] = written(
            lambda file, how=how: tifffile.imwrite(file, **{"photometric": "minisblack", **how})
        )
    for mode in ("P", "CMYK", "1"):
        how = {"compression": "group4"} if mode == "1" else {}
        files[f"TIFF {mode}"] = written(
            lambda file, m=mode, h=how: rgb.convert(m).save(file, "TIFF", **h)
        )
    for kind in FORMATS:
        files[kind] = written(lambda file, kind=kind: rgb.save(file, kind))
    for kind in ("GIF", "PNG", "WEBP"):
        files[f"animated {kind}"] = written(
            lambda file, kind=kind: stack[0].save(
                file, kind, save_all=True, append_images=stack[1:]
            )
        )
    files["deep PNG"] = imagecodecs.png_encode(np.dstack([noise()] * 3))
    files["PGM"] = b"P5 16 18 4095\n" + noise().tobytes()
    files["npy"] = written(lambda file: np.save(file, noise(count=3)))
    files["npz"] = written(lambda file: np.savez_compressed(file, frames=noise(count=3)))
    files["npz and more"] = written(lambda file: np.savez(file, a=noise(count=3), b=np.arange(3)))
    files["ND2"] = b"\xda\xce\xbe\x0a" + bytes(2000)
    try:
        from astropy.io import fits
    except ImportError:
        return files
    files["FITS"] = written(fits.PrimaryHDU(noise(count=3)).writeto)
    packed = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(noise(count=3))])
    files["compressed FITS"] = written(packed.writeto)
    return files


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return samples()


def damage(content: bytes, rng: random.Random) -> bytes:
    """Change some bytes, mostly of the beginning, cut the file off, or put some in."""
    data = bytearray(content)
    for _ in range(rng.randrange(8)):
        place = rng.randrange(min(len(data), rng.choice([30, 200, 400, 10**6])))
        data[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    if rng.random() < 0.1:
        place = rng.randrange(len(data) + 1)
        data[place:place] = rng.randbytes(rng.randrange(20))
    return bytes(data)


def read_damaged(files: dict[str, bytes], path: Path, seeds: range) -> int:
    """Read damaged files; return of how many at least a frame was there."""
    good = 0
    for seed in seeds:
        rng = random.Random(seed)
        name = rng.choice(sorted(files))
        path = path.with_suffix(".nd2" if name == "ND2" else ".image")
        path.write_bytes(damage(files[name], rng))
        begun, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reasons: list[str] = []
        try:
            with open_frames(path) as frames:
                assert frames.white is None or frames.white > 0
                shapes = [counts.shape for _, counts in frames.readable(reasons)]
                assert {*shapes} <= {frames.size}
                good += len(shapes) > 0
        except UnreadableImageError as error:
            reasons.append(str(error))
        assert not any("\n" in reason for reason in reasons), (seed, name)
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
        assert grown_kb < 3_000_000, f"{seed}, {name} took {grown_kb / 1e6:.1f} GB"
        assert time.monotonic() - begun < 20, f"{seed}, {name} took long"
    return good


def test_undamaged_ones_are_read(files: dict[str, bytes], tmp_path: Path) -> None:
    """Or else nothing below would reach a decoder."""
    for name in files.keys() - {"ND2"}:
        (tmp_path / "image").write_bytes(files[name])
        with open_frames(tmp_path / "image") as frames:
            assert len([*frames]) == frames.count, name


def test_damage_of_any_kind_is_told_and_nothing_else(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    assert 50 < read_damaged(files, tmp_path / "damaged", range(600)) < 550


@pytest.mark.slow
def test_damage_ten_thousand_times(files: dict[str, bytes], tmp_path: Path) -> None:
    read_damaged(files, tmp_path / "damaged", range(1000, 11_000))
