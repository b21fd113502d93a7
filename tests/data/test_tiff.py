"""TIFFs of all kinds, written by tifffile, by Pillow, or by hand."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import Image

from pixel_spotter.data.frames import Frames, UnreadableImageError, open_frames

SIZE = (6, 8)
REAL = ROOT.parent / "shared/data"


def noise(dtype: Any = np.uint16, count: int = 0, high: int = 0, seed: int = 0) -> np.ndarray:
    shape = (count, *SIZE) if count else SIZE
    high = high or np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, high, shape, dtype=dtype)


def read(path: Path) -> tuple[Frames, np.ndarray]:
    with open_frames(path) as frames:
        return frames, np.stack([*frames])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.tif"


GREY: dict[str, dict[str, Any]] = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "big-endian BigTIFF": {"byteorder": ">", "bigtiff": True},
    "tiled, LZW": {"tile": (16, 16), "compression": "lzw"},
    "tiled, Deflate, predicted": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "strips, ZSTD": {"rowsperstrip": 2, "compression": "zstd"},
    "PackBits": {"compression": "packbits"},
    "LZMA": {"compression": "lzma"},
    "JPEG 2000": {"compression": "jpeg2000"},
    "ImageJ": {"imagej": True, "metadata": {"axes": "TYX"}},
    "OME": {"ome": True, "metadata": {"axes": "TYX"}},
    "no metadata": {"metadata": None},
}


@pytest.mark.parametrize("how", GREY.values(), ids=GREY)
def test_every_frame_of_a_stack(how: dict[str, Any], path: Path) -> None:
    stack = noise(count=5)
    path = path.with_name("image.ome.tif") if "ome" in how else path
    tifffile.imwrite(path, stack, **{"photometric": "minisblack", **how})
    frames, counts = read(path)
    assert (frames.count, frames.size, frames.white, frames.black) == (5, SIZE, 65535, 0)
    assert frames.notes == ()
    np.testing.assert_array_equal(counts, stack)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", [{"imagej": True}, {"metadata": {}}], ids=["ImageJ", "shaped"])
def test_frames_that_share_a_directory(kind: dict[str, Any], byteorder: str, path: Path) -> None:
    """ImageJ writes stacks of more than 4 GB so; a file that is cut lacks only its last frames."""
    stack = noise(count=5)
    tifffile.imwrite(path, stack[:1] if "imagej" in kind else stack, truncate=True,
                     byteorder=byteorder, photometric="minisblack",
                     **_of_imagej(kind, 5))  # fmt: skip
    if "imagej" in kind:
        path.write_bytes(path.read_bytes() + stack[1:].astype(f"{byteorder}u2").tobytes())
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    frames, counts = read(path)
    assert frames.count == 5
    np.testing.assert_array_equal(counts, stack)
    path.write_bytes(path.read_bytes()[:-100])
    with open_frames(path) as frames:
        failures: list[str] = []
        assert [frame for frame, _ in frames.readable(failures)] == [0, 1, 2]
        assert failures == ["each of frames 3 to 4 is missing: the file ends before it"]


def _of_imagej(kind: dict[str, Any], images: int) -> dict[str, Any]:
    said = f"ImageJ=1.54f\nimages={images}\nframes={images}\nhyperstack=true\n"
    return {"description": said, "metadata": None} if "imagej" in kind else kind


def test_channels_are_frames_of_their_own_and_named(path: Path) -> None:
    stack = noise(count=6).reshape(3, 2, *SIZE)
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"})
    frames, counts = read(path)
    assert frames.notes == ("holds 2 channels, each of which counts as a frame",)
    np.testing.assert_array_equal(counts, stack.reshape(6, *SIZE))
    for planar in ("contig", "separate"):
        samples = stack[0] if planar == "separate" else np.moveaxis(stack[0], 0, -1)
        tifffile.imwrite(path, samples, photometric="minisblack", planarconfig=planar)
        frames, counts = read(path)
        assert frames.notes == ("holds 2 channels, each of which counts as a frame",)
        np.testing.assert_array_equal(counts, stack[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_become_luma(planar: str, dtype: type, path: Path) -> None:
    rgb = np.stack([noise(dtype, seed=seed) for seed in range(3)])
    written = rgb if planar == "separate" else np.moveaxis(rgb, 0, -1)
    tifffile.imwrite(path, written, photometric="rgb", planarconfig=planar)
    frames, counts = read(path)
    assert frames.white == np.iinfo(dtype).max
    assert frames.notes == ("is in colour, turned to grey",)
    expected = np.tensordot([0.299, 0.587, 0.114], rgb, 1)
    np.testing.assert_allclose(counts[0], expected, rtol=1e-6)


def test_transparent_counts_as_black(path: Path) -> None:
    rgba = np.full((*SIZE, 4), 65535, np.uint16)
    rgba[2, 3, 3], rgba[4, 5, 3] = 0, 13107
    expected = np.full(SIZE, 65535.0)
    expected[2, 3], expected[4, 5] = 0, 13107
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_allclose(read(path)[1][0], expected)
    tifffile.imwrite(path, rgba[..., 2:], photometric="minisblack", extrasamples=["unassalpha"])
    frames, counts = read(path)
    assert frames.count == 1
    np.testing.assert_allclose(counts[0], expected)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("RGB", "is in colour"),
        ("CMYK", "is in colour"),
        ("P", "is in colour"),
        ("LAB", "is in Lab"),
    ],
)
def test_colours_of_other_kinds(mode: str, said: str, path: Path) -> None:
    black_and_white = np.where(noise(np.uint8) > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(black_and_white).convert("RGB")
    if mode == "LAB":
        lab = np.dstack([black_and_white, *[np.full(SIZE, 128, np.uint8)] * 2])
        image = Image.frombytes("LAB", SIZE[::-1], lab.tobytes())
    else:
        image = image.convert(mode)
    image.save(path)
    frames, counts = read(path)
    assert frames.notes[0].startswith(said)
    assert frames.white == 255
    np.testing.assert_allclose(counts[0], black_and_white, atol=0.01)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_what_is_declared_0_is_white_is_turned_over(bits: int, path: Path) -> None:
    white = 2**bits - 1
    values = noise(high=white + 1).astype(np.uint8 if bits <= 8 else np.uint16)
    write_packed(path, values, bits, photometric=0)
    frames, counts = read(path)
    assert frames.white == white
    np.testing.assert_array_equal(counts[0], white - values.astype(int))


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16])
def test_0_as_white_of_what_has_no_other_end_is_refused(dtype: type, path: Path) -> None:
    tifffile.imwrite(path, np.ones(SIZE, dtype), photometric="miniswhite")
    with pytest.raises(UnreadableImageError, match="declares that 0 is white"):
        open_frames(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
def test_packed_bits_declare_their_white(bits: int, path: Path) -> None:
    values = noise(high=2**bits).astype(np.uint8 if bits <= 8 else np.uint16)
    write_packed(path, values, bits)
    frames, counts = read(path)
    assert frames.white == 2**bits - 1
    np.testing.assert_array_equal(counts[0], values)


def write_packed(path: Path, values: np.ndarray, bits: int, photometric: int = 1) -> None:
    """Write a TIFF whose rows are packed, most significant bit first."""
    if bits == 16:
        values = values.byteswap()  # whole bytes of little-endian files are so
    spread = (values[..., None].astype(int) >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(spread.reshape(len(values), -1).astype(np.uint8), axis=1)
    tags = [
        *((256, values.shape[1]), (257, values.shape[0]), (258, bits), (259, 1)),
        *((262, photometric), (273, 8), (277, 1), (278, values.shape[0]), (279, rows.size)),
    ]
    start = 8 + rows.size + rows.size % 2
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for tag, value in tags
    )
    path.write_bytes(
        b"II*\0" + start.to_bytes(4, "little") + rows.tobytes() + b"\0" * (rows.size % 2)
        + len(tags).to_bytes(2, "little") + entries + bytes(4)
    )  # fmt: skip


def test_declared_bits_say_what_is_white(path: Path) -> None:
    values = noise(high=4096)
    ome = path.with_name("image.ome.tif")
    tifffile.imwrite(ome, values, metadata={"SignificantBits": 12})
    assert read(ome)[0].white == 4095
    # Frames that share no directory: what the first one declares holds for all.
    stack = np.stack([values, values[::-1]])
    tifffile.imwrite(ome, stack, metadata={"SignificantBits": 12}, compression="zlib")
    frames, counts = read(ome)
    assert frames.white == 4095
    np.testing.assert_array_equal(counts, stack)
    for most, white in ((4095, 4095), (65535, 65535), (3811, 65535), (63, 65535)):
        tifffile.imwrite(path, values, extratags=[(281, "H", 1, most, True)])
        frames, counts = read(path)
        assert frames.white == white
        np.testing.assert_array_equal(counts[0], values)


def test_an_image_of_several_channels_is_decoded_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else damage that claims 65,535 channels would take hours."""
    tifffile.imwrite(path, noise(count=5), photometric="minisblack", planarconfig="separate")
    decoded: list[tifffile.TiffPage] = []
    asarray = tifffile.TiffPage.asarray
    for fails in (False, True):

        def count(page: tifffile.TiffPage, fails: bool = fails, **how: Any) -> np.ndarray:
            decoded.append(page)
            assert not fails
            return asarray(page, **how)

        monkeypatch.setattr(tifffile.TiffPage, "asarray", count)
        with open_frames(path) as frames:
            failures: list[str] = []
            assert len([*frames.readable(failures)]) == (0 if fails else 5)
            assert len(failures) == fails
    assert len(decoded) == 2


@pytest.mark.parametrize("how", [{"compression": "zlib"}, {}, {"truncate": True}])
def test_a_stack_takes_the_memory_of_a_frame(how: dict[str, Any], path: Path) -> None:
    tifffile.imwrite(path, np.zeros((60, 500, 500), np.uint16), photometric="minisblack", **how)
    tracemalloc.start()
    with open_frames(path) as frames:
        assert sum(1 for _ in frames) == 60
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6, "60 frames take 30 MB"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")
def test_real_files() -> None:
    frames, counts = read(REAL / "stuck_particles.tif")
    assert (frames.count, frames.size, frames.white) == (5, (512, 512), 65535)
    assert (counts.min(), counts.max()) == (477, 576)
    frames, counts = read(REAL / "star_field.tiff")
    assert (frames.count, frames.size, frames.white) == (1, (768, 1024), 65535)
    assert (counts.min(), counts.max()) == (1200, 65535)


def test_signed_numbers_and_floats(path: Path) -> None:
    for dtype, white in ((np.int8, 127), (np.int16, 32767), (np.int32, None), (np.uint32, None)):
        values = noise(np.uint16).astype(dtype)
        tifffile.imwrite(path, values, photometric="minisblack")
        frames, counts = read(path)
        assert frames.white == white
        np.testing.assert_array_equal(counts[0], values)
    for floating in (np.float16, np.float32, np.float64):
        tifffile.imwrite(path, noise(np.uint8).astype(floating))
        frames, counts = read(path)
        assert frames.floating
        np.testing.assert_array_equal(counts[0], noise(np.uint8))


def test_reduced_copies_are_no_frames(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        for seed in range(3):
            tif.write(noise(seed=seed), metadata=None)
            tif.write(noise()[::2, ::2], subfiletype=1, metadata=None)
    _, counts = read(path)
    np.testing.assert_array_equal(counts, [noise(seed=seed) for seed in range(3)])


def test_frames_of_another_kind_or_size_are_named(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        tif.write(noise(), metadata=None)
        tif.write(noise()[:, :5], metadata=None)
        tif.write(noise(np.uint8), metadata=None)
        tif.write(noise(seed=1), metadata=None)
    with open_frames(path) as frames:
        failures: list[str] = []
        assert [frame for frame, _ in frames.readable(failures)] == [0, 3]
        first, second = failures
        assert first == "frame 1 is 6x5 px, not 6x8 as the file"
        assert second == (
            "frame 2 is of another kind, 1 x uint8 MINISBLACK, white 255, "
            "than the first, 1 x uint16 MINISBLACK, white 65535"
        )


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_a_damaged_frame_is_named_and_the_others_are_read(
    compression: str | None, path: Path
) -> None:
    stack = noise(count=4)
    with tifffile.TiffWriter(path) as tif:
        for frame in stack:
            tif.write(frame, compression=compression, metadata=None)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[2].tags[273].valueoffset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff\xff\xff\x7f")
    with open_frames(path) as frames:
        failures: list[str] = []
        assert [frame for frame, _ in frames.readable(failures)] == [0, 1, 3]
        assert failures == ["frame 2 is cut off: the file ends before its image does"]


def test_what_is_missing_is_not_filled(path: Path) -> None:
    """Tifffile fills strips of no length."""
    tifffile.imwrite(path, noise(), rowsperstrip=3, compression="lzw", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        counts = list(tif.pages[0].tags[279].value)
        tif.pages[0].tags[279].overwrite([counts[0], 0])
    with open_frames(path) as frames, pytest.raises(UnreadableImageError, match="lacks a part"):
        frames.read(0)


@pytest.mark.parametrize("tag", [256, 257, 277])
def test_absurd_sizes_are_refused_before_anything_is_decoded(tag: int, path: Path) -> None:
    tifffile.imwrite(path, noise(), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags[tag].overwrite(60_000 if tag == 277 else 2**31 - 1)
    with pytest.raises(UnreadableImageError):
        open_frames(path).read(0)


def test_absurd_tiles_are_refused_before_anything_is_decoded(path: Path) -> None:
    tifffile.imwrite(path, noise(), compression="zlib", tile=(16, 16), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        for tag in (322, 323):
            tif.pages[0].tags[tag].overwrite(60_000)
    with pytest.raises(UnreadableImageError, match="absurdly large"):
        open_frames(path)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_directories_that_are_cut_off_are_missed(bigtiff: bool, path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tif:
        for frame in noise(count=5):
            tif.write(frame, metadata=None)
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[4].offset
    path.write_bytes(path.read_bytes()[:last])
    with open_frames(path) as frames:
        failures: list[str] = []
        assert len([*frames.readable(failures)]) == 4
        assert failures == ["frame 4 is missing, and all that followed: the file ends before it"]


def test_what_a_reader_says_in_a_number_has_a_word_beside_it(path: Path) -> None:
    path.write_bytes(b"II*\0rubbish")
    with pytest.raises(UnreadableImageError, match=r"^is damaged: \w*Error \d+$"):
        open_frames(path)


def test_directories_in_circles_are_refused(path: Path) -> None:
    """Tifffile follows such that begin after a hundred for ever."""
    with tifffile.TiffWriter(path) as tif:
        for _ in range(150):
            tif.write(noise(), metadata=None)
    with tifffile.TiffFile(path) as tif:
        back = tif.pages[120].offset.to_bytes(4, "little")
        end = tif.pages.next_page_offset
    with path.open("r+b") as file:
        file.seek(end)
        assert file.read(4) == bytes(4), "this is not where the next directory is named"
        file.seek(end)
        file.write(back)
    with pytest.raises(UnreadableImageError, match="go in circles"):
        open_frames(path)


def test_an_ome_file_opens_no_other(path: Path) -> None:
    """Its XML may name other files, which nobody asked for."""
    files = [path.with_name(f"{name}.ome.tif") for name in ("a", "b")]
    tifffile.imwrite(files[1], noise(count=2), metadata={"axes": "TYX"})
    with tifffile.TiffFile(files[1]) as tif:
        xml = str(tif.ome_metadata)
    data = "".join(
        f'<TiffData IFD="0" FirstT="{t}">'
        f'<UUID FileName="{file.name}">urn:uuid:{t}</UUID></TiffData>'
        for t, file in enumerate(files)
    )
    xml = xml[: xml.index("<TiffData")] + data + xml[xml.rindex("</Pixels>") :]
    for file in files:
        tifffile.imwrite(file, noise(), description=xml, metadata=None)
    with tifffile.TiffFile(files[0]) as tif:
        assert tif.series[0].shape == (2, *SIZE), "tifffile would not read both"
    frames, counts = read(files[0])
    np.testing.assert_array_equal(counts, [noise()])
    assert frames.notes == ("names other files as its parts, which are read for themselves",)
