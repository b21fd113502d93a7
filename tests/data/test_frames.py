import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import png_header
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixel_spotter.data.frames import FORMATS, UnreadableImageError, find_images, read_image
from pixel_spotter.errors import UserError

SIZE = (6, 8)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE, dtype=np.uint8)


def check(path: Path, expected: np.ndarray, atol: float = 1e-6) -> None:
    image = read_image(path, SIZE)
    assert image.shape == (1, *SIZE)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image[0].numpy(), expected, atol=atol)


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
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    check(path, values / 65535)


def test_sixteen_bits_big_endian(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, SIZE, dtype=np.uint16)
    image = Image.frombytes("I;16B", SIZE[::-1], values.astype(">u2").tobytes())
    image.save(tmp_path / "image.tif")
    check(tmp_path / "image.tif", values / 65535)


def test_floating_point_is_taken_as_it_is(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(0.3, 1, SIZE).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "image.tif")
    check(tmp_path / "image.tif", values)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value: float, tmp_path: Path) -> None:
    values = np.zeros(SIZE, dtype=np.float32)
    values[3, 3] = value
    Image.fromarray(values).save(tmp_path / "image.tif")
    with pytest.raises(UnreadableImageError, match="not finite"):
        read_image(tmp_path / "image.tif", SIZE)


def test_of_several_frames_the_first(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(seed)) for seed in (0, 1)]
    for ending in ("gif", "tif"):
        path = tmp_path / f"image.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with Image.open(path) as image:
            assert image.n_frames == 2
        check(path, noise(0) / 255)


def truncated_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise()).save(file, "png")
    return file.getvalue()[:70]


def wrong_size() -> bytes:
    file = io.BytesIO()
    Image.new("L", (6, 8)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image"),
        (b"x,y\n1,2\n", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", "not an image"),
        (truncated_png(), "cannot be read|damaged"),
        (wrong_size(), "is 8x6 px .height x width., the model takes 6x8"),
        (png_header(100_000, 100_000), "absurdly large"),
        (png_header(10_000, 12_000), "is 12000x10000 px"),
    ],
    ids=["empty", "text", "postscript", "truncated", "size", "absurd", "large"],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_each_failure_has_its_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(path, SIZE)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_image(tmp_path / "missing.png", SIZE)


@pytest.fixture(scope="module")
def samples() -> dict[str, bytes]:
    """An image in each format that can be written."""
    written = {}
    for kind in FORMATS:
        file = io.BytesIO()
        big = Image.fromarray(np.kron(noise(), np.ones((3, 2), dtype=np.uint8)))
        big.convert("RGB").save(file, kind)
        written[kind] = file.getvalue()
    return written


@settings(max_examples=250)
@given(kind=st.sampled_from(FORMATS), seed=st.integers(0, 2**32))
def test_damage_of_any_kind_is_told_and_nothing_else(
    samples: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    data = bytearray(samples[kind])
    for _ in range(rng.randrange(6)):
        data[rng.randrange(min(len(data), rng.choice([30, 200, 10**6])))] = rng.randrange(256)
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path, (18, 16))
        except UnreadableImageError:
            return
    assert image.shape == (1, 18, 16)
    assert image.isfinite().all()


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


def test_32_bit_integers_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full(SIZE, 255, np.int32)).save(tmp_path / "i32.tif")
    with pytest.raises(UnreadableImageError, match="32-bit"):
        read_image(tmp_path / "i32.tif", SIZE)


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
