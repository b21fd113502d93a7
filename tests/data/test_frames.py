import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import png_header
from PIL import Image, ImageOps

from pixel_spotter.data.frames import (
    UnreadableImageError,
    find_images,
    open_frames,
    skipped_files,
)
from pixel_spotter.data.values import luma
from pixel_spotter.errors import UserError

SIZE = (6, 8)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE, dtype=np.uint8)


def read_unit(path: Path) -> np.ndarray:
    """Return the first frame, 0 where it is black and 1 where the file declares white."""
    with open_frames(path) as frames:
        assert frames.black == 0
        assert frames.white is not None
        counts = frames.read(0)
    assert counts.dtype == np.float32
    assert counts.shape == frames.size
    return counts / np.float32(frames.white)


def check(path: Path, expected: np.ndarray, atol: float = 1e-6) -> None:
    image = read_unit(path)
    assert image.shape == SIZE
    np.testing.assert_allclose(image, expected, atol=atol)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif", "pgm", "tga", "pcx", "jp2"])
def test_grey_values_survive_lossless_formats(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{ending}"
    Image.fromarray(noise()).save(path)
    check(path, noise() / 255)


def test_lossless_webp(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "image.webp", lossless=True)
    check(tmp_path / "image.webp", noise() / 255)


def test_jpeg_is_close(tmp_path: Path) -> None:
    smooth = np.add.outer(10 * np.arange(6), 15 * np.arange(8)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "image.jpg", quality=95)
    check(tmp_path / "image.jpg", smooth / 255, atol=0.03)


@pytest.mark.parametrize(
    ("colour", "grey"),
    [((255, 255, 255), 1), ((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)],
)
def test_colours_become_luma(colour: tuple[int, int, int], grey: float, tmp_path: Path) -> None:
    Image.new("RGB", SIZE[::-1], colour).save(tmp_path / "image.png")
    check(tmp_path / "image.png", np.full(SIZE, grey), atol=1 / 255)


def test_colours_of_large_images_become_luma() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (3, 201, 7), dtype=np.uint8)
    np.testing.assert_allclose(luma(rgb), np.tensordot([0.299, 0.587, 0.114], rgb, 1), rtol=1e-6)


def test_grey_rgb_equals_grey(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([noise()] * 3)).save(tmp_path / "image.png")
    check(tmp_path / "image.png", noise() / 255)


def test_transparent_counts_as_black(tmp_path: Path) -> None:
    rgba = np.full((*SIZE, 4), 255, dtype=np.uint8)
    rgba[2, 3, 3] = 0
    rgba[4, 5, 3] = 51
    expected = np.ones(SIZE)
    expected[2, 3], expected[4, 5] = 0, 0.2
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    check(tmp_path / "rgba.png", expected, atol=1 / 255)
    Image.fromarray(rgba[..., [0, 3]]).save(tmp_path / "la.png")
    check(tmp_path / "la.png", expected, atol=1 / 255)


def test_palettes(tmp_path: Path) -> None:
    index = np.zeros(SIZE, dtype=np.uint8)
    index[1, 2], index[3, 4] = 1, 2
    image = Image.fromarray(index)
    image.putpalette([0, 0, 0, 255, 255, 255, 51, 51, 51])
    assert image.mode == "P"
    expected = np.zeros(SIZE)
    expected[1, 2], expected[3, 4] = 1, 0.2
    for ending in ("png", "gif", "bmp"):
        image.save(tmp_path / f"image.{ending}")
        check(tmp_path / f"image.{ending}", expected)
    image.save(tmp_path / "transparent.png", transparency=1)
    expected[1, 2] = 0
    check(tmp_path / "transparent.png", expected)


@pytest.mark.parametrize("ending", ["png", "tif", "pbm"])
def test_one_bit(ending: str, tmp_path: Path) -> None:
    bits = noise() > 127
    Image.fromarray(bits).save(tmp_path / f"image.{ending}")
    check(tmp_path / f"image.{ending}", bits)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits(ending: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, SIZE, dtype=np.uint16)
    values[0, 0], values[0, 1] = 65535, 0
    path = tmp_path / f"image.{ending}"
    Image.fromarray(values).save(path)
    check(path, values / 65535)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_every_frame_of_an_animation(ending: str, tmp_path: Path) -> None:
    stack = [Image.fromarray(noise(seed)) for seed in range(5)]
    path = tmp_path / f"image.{ending}"
    how = {"lossless": True} if ending == "webp" else {}
    stack[0].save(path, save_all=True, append_images=stack[1:], **how)
    with open_frames(path) as frames:
        assert len(frames) == frames.count == 5
        assert frames.white == 255
        for seed, counts in enumerate(frames):
            np.testing.assert_array_equal(counts, noise(seed))
        np.testing.assert_array_equal(frames.read(1), noise(1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["tif", "jpg", "png", "webp"])
def test_orientation_is_obeyed(ending: str, orientation: int, tmp_path: Path) -> None:
    """As Pillow does, for which it is a step of its own."""
    pixels = np.zeros((16, 24), np.uint8)
    pixels[:8, :8] = 255  # a block of JPEG's
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"image.{ending}"
    Image.fromarray(pixels).save(path, exif=exif)
    with open_frames(path) as frames:
        counts = frames.read(0)
    turned = Image.fromarray(pixels)
    turned.getexif()[274] = orientation
    upright = ImageOps.exif_transpose(turned)
    np.testing.assert_allclose(counts, np.array(upright), atol=3)


def test_floats_from_0_to_1_say_what_is_white_and_others_do_not(tmp_path: Path) -> None:
    values = np.random.default_rng(2).uniform(0, 1, (3, *SIZE)).astype(np.float32)
    tifffile.imwrite(tmp_path / "unit.tif", values, photometric="minisblack")
    check(tmp_path / "unit.tif", values[0])
    for odd in (4095, -0.1):
        values[2, 0, 0] = odd
        np.save(tmp_path / "other.npy", values)
        with open_frames(tmp_path / "other.npy") as frames:
            assert frames.white is None
            np.testing.assert_array_equal([*frames], values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value: float, tmp_path: Path) -> None:
    values = np.zeros((4, *SIZE), dtype=np.float32)
    values[1:3, 3, 3] = value
    tifffile.imwrite(tmp_path / "image.tif", values, photometric="minisblack")
    with open_frames(tmp_path / "image.tif") as frames:
        failures: list[str] = []
        assert [frame for frame, _ in frames.readable(failures)] == [0, 3]
        assert failures == ["each of frames 1 to 2 holds values that are not finite"]
        with pytest.raises(
            UnreadableImageError, match=r"^frame 1 holds values that are not finite"
        ):
            frames.read(1)
    np.save(tmp_path / "one.npy", values[1])
    with (
        open_frames(tmp_path / "one.npy") as frames,
        pytest.raises(UnreadableImageError, match=r"^holds values that are not finite"),
    ):
        frames.read(0)


def truncated_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise()).save(file, "png")
    return file.getvalue()[:70]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image"),
        (b"x,y\n1,2\n", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", "not an image"),
        (truncated_png(), "cannot be read|damaged"),
        (png_header(100_000, 100_000), "absurdly large"),
    ],
    ids=["empty", "text", "postscript", "truncated", "absurd"],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_each_failure_has_its_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        read_unit(path)


def test_a_size_is_known_before_anything_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png_header(10_000, 12_000))
    with open_frames(tmp_path / "image.png") as frames:
        assert frames.size == (12_000, 10_000)


def test_colours_count_towards_an_absurd_size(tmp_path: Path) -> None:
    deep = bytearray(png_header(10_000, 10_000))
    deep[25] = 2  # three times 8 bits
    deep[29:33] = zlib.crc32(deep[12:29]).to_bytes(4, "big")
    (tmp_path / "image.png").write_bytes(deep)
    with pytest.raises(UnreadableImageError, match="absurdly large"):
        open_frames(tmp_path / "image.png")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_unit(tmp_path / "missing.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.PNG", "c, d=e's.tiff", "notes.txt", ".hidden", "sub/f.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def names(images: str, folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_images(images)]


def test_images_of_a_folder(folder: Path) -> None:
    assert names(str(folder), folder) == ["a.PNG", "b.png", "c, d=e's.tiff"]


def test_skipped_files_of_a_folder(folder: Path) -> None:
    (folder / "film.ND2").touch()
    (folder / "cells.npz").touch()
    assert [path.name for path in skipped_files(str(folder))] == ["notes.txt"]
    assert names(str(folder), folder)[-2:] == ["cells.npz", "film.ND2"]
    assert skipped_files(f"{folder}/*.png") == []


def test_images_of_a_pattern(folder: Path) -> None:
    assert names(f"{folder}/*.png", folder) == ["b.png"]
    assert names(f"{folder}/**/*.png", folder) == ["b.png", "sub/f.png"]
    assert names(f"{folder}/c, d*", folder) == ["c, d=e's.tiff"]


def test_one_file_whatever_its_name(folder: Path) -> None:
    (folder / "[1].png").touch()
    assert names(f"{folder}/[1].png", folder) == ["[1].png"]
    assert names(f"{folder}/notes.txt", folder) == ["notes.txt"]


@pytest.mark.parametrize("images", ["missing.png", "*.jpg", "empty", "sub/*.txt"])
def test_no_images(images: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="names no image file"):
        find_images(str(folder / images))


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "sub/up").symlink_to(folder, target_is_directory=True)
    assert names(f"{folder}/**/*.png", folder) == ["b.png", "sub/f.png"]


def test_hidden_files_are_matched_by_name_only(folder: Path) -> None:
    assert names(f"{folder}/*", folder) == ["a.PNG", "b.png", "c, d=e's.tiff", "notes.txt"]
    assert names(f"{folder}/.hidden", folder) == [".hidden"]


def test_two_stars_are_the_same_for_every_python(folder: Path) -> None:
    """Version 3.13 matches files by a last ``**``, others folders only; and takes ``**.png``."""
    files = sorted(file for file in folder.rglob("[!.]*") if file.is_file())
    assert find_images(f"{folder}/**") == files == find_images(f"{folder}/**/*")
    assert find_images(f"{folder}/**.png") == find_images(f"{folder}/*.png")
