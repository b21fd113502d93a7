"""Arrays, FITS, ND2, and what Pillow cuts to 8 bits."""

import io
import pickle
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pytest
from conftest import png_header
from PIL import Image

from pixel_spotter.data.frames import UnreadableImageError, open_frames

SIZE = (6, 8)


def noise(dtype: Any = np.uint16, count: int = 0, high: int = 0) -> np.ndarray:
    shape = (count, *SIZE) if count else SIZE
    high = high or np.iinfo(dtype).max + 1
    return np.random.default_rng(3).integers(0, high, shape, dtype=dtype)


def check(path: Path, stack: np.ndarray, white: float | None, notes: int = 0) -> None:
    with open_frames(path) as frames:
        assert (frames.count, frames.size, frames.white) == (len(stack), SIZE, white)
        assert len(frames.notes) == notes, frames.notes
        np.testing.assert_array_equal([*frames], stack)
        np.testing.assert_array_equal(frames.read(0), stack[0])


def refused(path: Path, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason), open_frames(path) as frames:
        frames.read(0)


@pytest.fixture(params=["npy", "npz", "compressed npz"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Save an array, and return its file."""

    def save(array: np.ndarray) -> Path:
        path = tmp_path / f"array.{request.param.split()[-1]}"
        if request.param == "npy":
            np.save(path, array)
        else:
            (np.savez if request.param == "npz" else np.savez_compressed)(path, array)
        return path

    return save


@pytest.mark.parametrize(
    ("dtype", "white"),
    [("u1", 255), ("<u2", 65535), (">u2", 65535), ("i2", 32767), ("i4", None), (">f4", None)],
)
def test_arrays(dtype: str, white: float | None, save: Any) -> None:
    stack = noise(count=5).astype(dtype)
    check(save(stack), stack, white)
    check(save(stack[0]), stack[:1], white)
    check(save(stack[:, None]), stack, white)
    check(save(np.stack([stack] * 2)), np.concatenate([stack] * 2), white, notes=1)


def test_arrays_of_bits(save: Any) -> None:
    bits = noise() > 32767
    check(save(bits), bits[None], 1)


def test_arrays_in_fortrans_order(tmp_path: Path) -> None:
    stack = noise(count=5)
    np.save(tmp_path / "a.npy", np.asfortranarray(stack))
    check(tmp_path / "a.npy", stack, 65535)
    np.savez(tmp_path / "a.npz", np.asfortranarray(stack[0]))
    check(tmp_path / "a.npz", stack[:1], 65535)
    np.savez(tmp_path / "b.npz", np.asfortranarray(stack))
    refused(tmp_path / "b.npz", "Fortran's order")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(5), "1 axes"),
        (np.zeros(()), "0 axes"),
        (np.zeros((6, 8), complex), "not real numbers"),
        (np.zeros((6, 8), "U3"), "not real numbers"),
        (np.zeros((6, 8), [("a", "f4")]), "not real numbers"),
        (np.zeros((0, 8)), "no pixels"),
        (np.zeros((0, 6, 8)), "no image"),
        (np.zeros((6, 8, 3)), "as if of colours"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, reason: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", reason)


class Trap:
    """Runs code when unpickled."""

    sprung = False

    def __reduce__(self) -> Any:
        return setattr, (Trap, "sprung", True)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    array = np.array([[Trap()]], dtype=object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", array)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz", "b.npy"):
        refused(tmp_path / name, ".")
    assert not Trap.sprung
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung, "the trap is none"


def npy_header(shape: tuple[int, ...], dtype: str = "<u2") -> bytes:
    """An array's beginning, which may claim any shape."""
    file = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(2**40, 2**40), (10, 10**6, 10**6), (10**9, 6, 8), (6, 9)])
def test_arrays_that_claim_to_be_larger_than_they_are(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    content = npy_header(shape) + bytes(96)
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    refused(tmp_path / "a.npy", "damaged|cannot be read|absurdly large")
    if shape[-2:] != SIZE:
        refused(tmp_path / "a.npz", "is missing|absurdly large")
    else:  # the first frame is there
        with open_frames(tmp_path / "a.npz") as frames:
            failures: list[str] = []
            assert len([*frames.readable(failures)]) == 1
            assert failures == [
                f"each of frames 1 to {10**9 - 1} is missing: the array ends before it"
            ]


def test_a_zip_bomb_is_read_frame_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy_header((200, 1000, 1000)))
        for _ in range(200):
            file.write(bytes(2_000_000))
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    with open_frames(path) as frames:
        assert sum(1 for _ in frames) == 200
    assert tracemalloc.get_traced_memory()[1] < 50e6, "it was decompressed at once"
    tracemalloc.stop()


def test_archives_with_none_or_several_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, frames=noise(count=5), times=np.arange(5))
    check(path, noise(count=5), 65535)
    np.savez(path, dark=noise(), light=noise())
    refused(path, "no single array of images, but dark, light")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("text.txt", "text")
    refused(path, "no single array of images, but none")


def test_a_deep_png_is_not_cut_to_8_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    rgb = np.random.default_rng(1).integers(0, 65536, (*SIZE, 3), dtype=np.uint16)
    path.write_bytes(imagecodecs.png_encode(rgb))
    with open_frames(path) as frames:
        assert frames.white == 65535
        np.testing.assert_allclose(frames.read(0), rgb @ [0.299, 0.587, 0.114], rtol=1e-6)
    alpha = np.full((*SIZE, 1), 65535, np.uint16)
    alpha[2, 3], alpha[4, 5] = 0, 13107
    for channels in (rgb, rgb[..., :1]):
        path.write_bytes(imagecodecs.png_encode(np.dstack([channels, alpha])))
        with open_frames(path) as frames:
            grey = channels @ [0.299, 0.587, 0.114] if channels.shape[2] == 3 else channels[..., 0]
            np.testing.assert_allclose(frames.read(0), grey * (alpha[..., 0] / 65535), rtol=1e-5)


def test_deep_grey_animations_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.apng_encode(noise(count=3)))
    check(tmp_path / "a.png", noise(count=3), 65535)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_png_says_how_many_of_its_bits_count(bits: int, tmp_path: Path) -> None:
    """The standard wants them shifted to the top; sBIT then says nothing about what is white."""
    path = tmp_path / "a.png"
    values = noise(high=2**bits)
    values[0, 0] = 2**bits - 1
    shift = 16 - bits
    for written, white in (
        (values, 2**bits - 1),
        (values << shift, 65535),
        (values << shift | values >> (bits - shift), 65535),
        (np.minimum(values << shift, 2**bits - 1 >> shift << shift), 65535),  # dim
    ):
        content = imagecodecs.png_encode(written)
        said = b"sBIT" + bytes([bits])
        chunk = b"\0\0\0\1" + said + zlib.crc32(said).to_bytes(4, "big")
        path.write_bytes(content[:33] + chunk + content[33:])
        check(path, written[None], white)


@pytest.mark.parametrize("most", [100, 1023, 4095])
def test_a_pgm_says_what_is_white(most: int, tmp_path: Path) -> None:
    """Pillow stretches its values to 255 or 65535."""
    values = noise(high=most + 1)
    content = values.astype(">u2").tobytes() if most > 255 else values.astype("u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"P5 {SIZE[1]} {SIZE[0]} {most}\n".encode() + content)
    check(tmp_path / "a.pgm", values[None], most)


def test_a_deep_ppm_says_that_it_is_cut(tmp_path: Path) -> None:
    content = np.full((*SIZE, 3), 65535, ">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(f"P6 {SIZE[1]} {SIZE[0]} 65535\n".encode() + content)
    check(tmp_path / "a.ppm", np.full((1, *SIZE), 255), 255, notes=2)


def test_bytes_after_a_huge_header_are_not_decoded(tmp_path: Path) -> None:
    deep = bytearray(png_header(100_000, 100_000))
    deep[24] = 16
    deep[29:33] = zlib.crc32(deep[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(deep)
    refused(tmp_path / "a.png", "absurdly large")


class TestFits:
    """FITS files, as astropy writes them."""

    @pytest.fixture(autouse=True)
    def _astropy(self) -> None:
        self.fits = pytest.importorskip("astropy.io.fits")

    @pytest.mark.parametrize(
        ("dtype", "white"), [("u1", 255), ("u2", 65535), ("i2", 32767), ("i4", None), ("f4", None)]
    )
    def test_stacks(self, dtype: str, white: float | None, tmp_path: Path) -> None:
        stack = noise(count=5).astype(dtype)
        path = tmp_path / "a.fits"
        self.fits.writeto(path, stack)
        check(path, stack, white)
        self.fits.writeto(path, stack[0], overwrite=True)
        check(path, stack[:1], white)

    def test_an_image_behind_an_empty_one(self, tmp_path: Path) -> None:
        for kind in (self.fits.ImageHDU, self.fits.CompImageHDU):
            units = [self.fits.PrimaryHDU(), kind(noise())]
            self.fits.HDUList(units).writeto(tmp_path / "a.fits", overwrite=True)
            check(tmp_path / "a.fits", noise()[None], 65535)

    def test_what_is_left_out_is_told(self, tmp_path: Path) -> None:
        exposures = [self.fits.ImageHDU(noise(), name=f"CCD{k}") for k in range(5)]
        self.fits.HDUList([self.fits.PrimaryHDU(), *exposures]).writeto(tmp_path / "a.fits")
        with open_frames(tmp_path / "a.fits") as frames:
            assert frames.count == 1
            said = "holds other images, which are left out: CCD1, CCD2, CCD3 and 1 more"
            assert frames.notes == (said,)

    def test_what_is_packed(self, tmp_path: Path) -> None:
        self.fits.writeto(tmp_path / "a.fits.gz", noise())
        refused(tmp_path / "a.fits.gz", "packed by gzip: unpack it first")

    def test_what_is_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "a.fits"
        self.fits.writeto(path, np.ones((4, 50, 50), np.uint16))
        path.write_bytes(path.read_bytes()[: 2880 + 14_000])
        with open_frames(path) as frames:
            failures: list[str] = []
            assert [frame for frame, _ in frames.readable(failures)] == [0, 1]
            assert failures == ["each of frames 2 to 3 is missing: the file ends before it"]

    def test_no_image(self, tmp_path: Path) -> None:
        self.fits.PrimaryHDU().writeto(tmp_path / "a.fits")
        refused(tmp_path / "a.fits", "holds no image")

    def test_without_astropy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fits.writeto(tmp_path / "a.fits", noise())
        monkeypatch.setitem(sys.modules, "astropy.io", None)
        refused(tmp_path / "a.fits", r"pip install 'pixel-spotter\[fits\]'")


class FakeND2:
    """What is used of nd2.ND2File, for which there is no writer."""

    def __init__(self, frames: np.ndarray, colours: int = 1, bits: int = 12) -> None:
        self.frames, self.components_per_channel, self.closed = frames, colours, False
        count, channels, height, width = frames.shape[:4]
        self.attributes = SimpleNamespace(
            heightPx=height, widthPx=width, channelCount=channels, sequenceCount=count,
            bitsPerComponentSignificant=bits,
        )  # fmt: skip
        self.dtype = frames.dtype

    def read_frame(self, index: int) -> np.ndarray:
        return self.frames[index].squeeze()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def nd2_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "a.nd2"
    path.write_bytes(b"\xda\xce\xbe\x0a")

    def fake(*args: Any) -> Path:
        monkeypatch.setitem(sys.modules, "nd2", SimpleNamespace(ND2File=lambda _: FakeND2(*args)))
        return path

    return fake


def test_nd2(nd2_file: Any) -> None:
    stack = noise(count=6, high=4096)
    check(nd2_file(stack.reshape(6, 1, *SIZE)), stack, 4095)
    check(nd2_file(stack.reshape(3, 2, *SIZE)), stack, 4095, notes=1)
    rgb = noise(np.uint8, count=3).transpose(1, 2, 0)[None, None]
    with open_frames(nd2_file(rgb, 3, 8)) as frames:
        assert frames.white == 255
        np.testing.assert_allclose(frames.read(0), rgb[0, 0] @ [0.299, 0.587, 0.114], rtol=1e-6)


def test_what_is_no_nd2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nd2")
    for content in (b"\xda\xce\xbe\x0a", b"\xda\xce\xbe\x0a" + bytes(5000), b"text"):
        (tmp_path / "a.nd2").write_bytes(content)
        refused(tmp_path / "a.nd2", ".")
    monkeypatch.setitem(sys.modules, "nd2", None)
    refused(tmp_path / "a.nd2", r"pip install 'pixel-spotter\[nd2\]'")


def test_pillow_starts_nothing_else(tmp_path: Path) -> None:
    Image.fromarray(noise(np.uint8)).save(tmp_path / "a.eps")
    refused(tmp_path / "a.eps", "not an image of a known format")
