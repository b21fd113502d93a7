"""``locate``: files of a camera's frames in, a table of spots out."""

import importlib
import json
import os
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import yaml
from conftest import CommandServer, compose
from omegaconf import OmegaConf
from PIL import Image

from pixel_spotter.cli import workers
from pixel_spotter.cli.help import CONF_DIR
from pixel_spotter.data import reading
from pixel_spotter.data.frames import open_frames
from pixel_spotter.data.remarks import Remarks
from pixel_spotter.errors import UserError
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import GaussianPSF, light
from pixel_spotter.tables import growing

door: Any = importlib.import_module("pixel_spotter.locate")

XY = [(20.3, 30.7), (70.0, 41.2), (44.4, 80.1), (0.2, 60.0)]
"""Where the spots are, one of them at the edge; in every frame."""

TOLD = ["camera.gain=0.5", "camera.offset=100", "camera.read_noise=1.5", "psf.sigma_px=1.1"]


def movie(
    frames: int = 6, seed: int = 0, spots: int = 4, gain: float = 0.5, offset: float = 100.0
) -> np.ndarray:
    """Return counts (frames, 90, 100), uint16."""
    much = torch.full((spots, 1), 2000.0)
    theta = torch.cat([torch.tensor(XY[:spots]).view(spots, 2), much], dim=1)
    flat, wide = torch.full((frames,), 10.0), torch.full((frames,), 1.1)
    expected = light(GaussianPSF(), theta.expand(frames, -1, -1), flat, wide, (90, 100))
    camera = Camera(read_noise=1.5, gain=gain, offset=offset, bits=16)
    counts = camera.expose(expected, torch.Generator().manual_seed(seed))
    return counts.numpy().astype(np.uint16)


def assert_all_found(table: pd.DataFrame, frames: int) -> None:
    assert sorted(table["frame"].unique()) == [*range(frames)]
    for _, rows in table.groupby(["file", "frame"] if "file" in table else "frame"):
        assert len(rows) == len(XY)
        for x, y in XY:
            assert np.hypot(rows["x"] - x, rows["y"] - y).min() < 0.25


def test_a_stack_nothing_is_told_of(run_command: CommandServer, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", movie())
    ended = run_command(
        "locate", f"images={tmp_path}/stack.tif", f"output={tmp_path}/spots.csv",
        f"overview={tmp_path}/page.html",
    )  # fmt: skip
    assert ended.code == 0
    page = (tmp_path / "page.html").read_text()
    assert "24 spots in 6 frames of 1 file, 0 of them flagged" in page
    assert page.count("data:image/png") == 4
    assert re.findall("<h2>(.*)</h2>", page) == [
        *("Frames", "Spots", "Spots a frame", "How exactly", "How this was found"),
    ]
    assert "<dt>estimated camera.gain</dt>" in page
    table = pd.read_csv(tmp_path / "spots.csv", keep_default_na=False)
    assert tuple(table) == (
        *("file", "frame", "x", "y", "sd_x", "sd_y", "corr_xy", "photons", "background"),
        *("sigma_px", "score", "flag"),
    )
    assert tuple(table) == door.COLUMNS
    assert_all_found(table, 6)
    assert {*table["flag"]} == {""}
    assert table["sd_x"].between(0.01, 0.1).all()
    said = yaml.safe_load((tmp_path / "spots.yaml").read_text())
    assert said["estimated"]["camera.gain"] == pytest.approx(0.5, rel=0.3)
    assert said["estimated"]["psf.sigma_px"] == pytest.approx(1.1, rel=0.05)
    assert "camera.gain=" in ended.stderr
    assert "psf.sigma_px=" in ended.stderr
    assert "24 spots" in ended.stderr
    assert {file.name for file in tmp_path.iterdir()} == {
        *("stack.tif", "spots.csv", "spots.yaml", "page.html"),
    }


def test_a_single_image_has_a_page_as_well(run_command: CommandServer, tmp_path: Path) -> None:
    Image.fromarray(movie(1)[0]).save(tmp_path / "one.png")
    ended = run_command(
        "locate", f"images={tmp_path}/one.png", *TOLD, f"output={tmp_path}/spots.csv",
        f"overview={tmp_path}/page.html",
    )  # fmt: skip
    assert ended.code == 0
    page = (tmp_path / "page.html").read_text()
    assert "4 spots in 1 frame of 1 file, 0 of them flagged" in page
    assert page.count("data:image/png") == 3
    assert re.findall("<h2>(.*)</h2>", page) == [
        *("Frames", "Spots", "How exactly", "How this was found"),
    ]


def test_a_folder_to_standard_output(run_command: CommandServer, tmp_path: Path) -> None:
    for number, frame in enumerate(movie(3)):
        tifffile.imwrite(tmp_path / f"{number}.tif", frame)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.tif").write_bytes(b"II*\0 and no more")
    ended = run_command("locate", f"images={tmp_path}", *TOLD)
    assert ended.code == 1
    lines = ended.stdout.splitlines()
    assert len(lines) == 1 + 3 * len(XY)
    assert lines[1].startswith(f"{tmp_path}/0.tif,0,")
    assert "skipped 1 file not named as images are: notes.txt" in ended.stderr
    assert f"{tmp_path}/broken.tif: " in ended.stderr
    assert ended.error() == "1 of 4 files could not be read, or not in whole"


def test_frames_without_spots_stay_empty(run_command: CommandServer, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "empty.tif", movie(20, spots=0))
    ended = run_command(
        "locate", f"images={tmp_path}/empty.tif", *TOLD, f"output={tmp_path}/spots.csv",
        "false_alarms=1e-6", f"overview={tmp_path}/page.html",
    )  # fmt: skip
    assert ended.code == 0
    lines = (tmp_path / "spots.csv").read_text().splitlines()
    assert "0 spots in 0 frames" in (tmp_path / "page.html").read_text()
    assert lines == ["file,frame,x,y,sd_x,sd_y,corr_xy,photons,background,sigma_px,score,flag"]


def interrupt(cfg: Any, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command, interrupted once it has so many parts of its frames."""
    batches = door.Reading.batches

    def stop(self: Any, after: tuple[int, int] = (-1, -1)) -> object:
        yield from islice(batches(self, after), number)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(door.Reading, "batches", stop)
        with pytest.raises(KeyboardInterrupt):
            door.run(cfg)


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = movie(8)
    tifffile.imwrite(tmp_path / "stack.tif", counts)
    whole = tmp_path / "whole.csv"
    output = tmp_path / "spots.csv"
    monkeypatch.setattr(reading, "MOST_PIXELS", 2 * 90 * 100)
    cfg: Any = OmegaConf.load(CONF_DIR / "locate.yaml")
    cfg.images = str(tmp_path / "stack.tif")
    cfg.output = str(whole)
    door.run(cfg)
    cfg.output = str(output)

    interrupt(cfg, 2, monkeypatch)
    part = output.with_name("spots.csv.part")
    before = part.read_text()
    assert len(before.splitlines()) == 1 + 4 * len(XY)
    part.write_text(before + "half a li")  # what was written after the last place
    assert "goes on" not in capsys.readouterr().err.replace("the same command goes on", "")
    door.run(cfg)
    assert f"goes on after frame 3 of {cfg.images}" in capsys.readouterr().err
    assert output.read_text() == whole.read_text()
    assert not part.exists()
    interrupt(cfg, 2, monkeypatch)
    os.utime(cfg.images, (1, 1))  # another recording, of the same size
    capsys.readouterr()
    door.run(cfg)
    assert "goes on after" not in capsys.readouterr().err
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_what_a_run_knew_is_known_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be read, and at what pixels are full."""
    monkeypatch.setattr(reading, "MOST_PIXELS", 2 * 90 * 100)
    (tmp_path / "a.tif").write_bytes(b"II*\0rubbish")
    counts = np.concatenate([np.minimum(movie(2), 400), np.minimum(movie(6), 399)])
    x, y = np.round(XY[0]).astype(int)
    counts[2:, y, x] = 400
    tifffile.imwrite(tmp_path / "b.tif", counts)
    cfg: Any = compose(TOLD, "locate")
    cfg.images, cfg.output = f"{tmp_path}/*.tif", str(tmp_path / "spots.csv")
    with pytest.raises(UserError, match="1 of 2 files"):
        door.run(cfg)
    whole = Path(cfg.output).read_text()
    assert whole.count(",saturated") == 2 * len(XY) + 6
    Path(cfg.output).unlink()
    Path(cfg.output).with_suffix(".yaml").unlink()
    interrupt(cfg, 2, monkeypatch)
    capsys.readouterr()
    with pytest.raises(UserError, match="1 of 2 files"):
        door.run(cfg)
    assert "a.tif: " in capsys.readouterr().err
    assert Path(cfg.output).read_text() == whole


def test_what_takes_long_is_shared_by_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "MOST_PIXELS", 2 * 90 * 100)
    shared: list[int] = []

    def noted(work: Any, jobs: Any, processes: int) -> Any:
        shared.append(processes)
        return workers.shared(work, jobs, processes)

    monkeypatch.setattr(door, "shared", noted)
    tifffile.imwrite(tmp_path / "stack.tif", movie(10))
    cfg: Any = OmegaConf.load(CONF_DIR / "locate.yaml")
    cfg.images = str(tmp_path / "stack.tif")
    for worth_s, processes in ((1e9, 2), (1e-9, 1), (1e-9, 2)):
        monkeypatch.setattr(door, "_WORTH_S", worth_s)
        cfg.processes, cfg.output = processes, f"{tmp_path}/{worth_s}_{processes}.csv"
        door.run(cfg)
    assert shared == [2], "neither where it is not worth it, nor where it is not wanted"
    tables = {path.read_text() for path in tmp_path.glob("*.csv")}
    assert len(tables) == 1
    assert len(tables.pop().splitlines()) == 1 + 10 * len(XY)
    assert reading.Reading([tmp_path / "stack.tif"]).left == 0


def test_each_kind_of_files_has_estimates_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the work is interrupted among them."""
    images = tmp_path / "in"
    images.mkdir()
    for k in range(3):
        tifffile.imwrite(images / f"{k}.tif", movie(4, k), photometric="minisblack")
        dim = movie(1, k, gain=4.0, offset=10.0)[0]
        Image.fromarray(dim.clip(0, 255).astype(np.uint8)).save(images / f"{k}.png")
    cfg: Any = OmegaConf.load(CONF_DIR / "locate.yaml")
    cfg.images, cfg.output = str(images), str(tmp_path / "spots.csv")
    door.run(cfg)
    assert "0.tif, of another kind: camera.gain=" in (said := capsys.readouterr().err)
    assert "the noise that" not in said
    table = pd.read_csv(tmp_path / "spots.csv", keep_default_na=False)
    assert_all_found(table[table["file"].str.endswith("tif")], 4)
    assert_all_found(table[table["file"].str.endswith("png")], 1)
    words = (tmp_path / "spots.yaml").read_text()
    estimated = yaml.safe_load(words)["estimated"]
    assert {kind: len(one["files"]) for kind, one in estimated.items()} == {
        "png of 90x100 px, 0 to 255": 3,
        "tif of 90x100 px, 0 to 65535": 3,
    }
    for kind, gain in ((".png", 4), (".tif", 0.5)):
        (one,) = (one for name, one in estimated.items() if name.startswith(kind[1:]))
        assert {Path(file).suffix for file in one["files"]} == {kind}
        assert one["camera.gain"] == pytest.approx(gain, rel=0.8)
        assert table[table["file"].str.endswith(kind)]["photons"].mean() < 2000 * 1.9
    whole = (tmp_path / "spots.csv").read_text()
    interrupt(cfg, 3, monkeypatch)
    (tmp_path / "spots.yaml").unlink()
    door.run(cfg)
    assert "goes on after" in capsys.readouterr().err
    assert (tmp_path / "spots.csv").read_text() == whole
    assert (tmp_path / "spots.yaml").read_text() == words


@pytest.mark.parametrize("other", [0.5, 0.1])
def test_a_file_of_another_camera_is_remarked_on(
    other: float, run_command: CommandServer, tmp_path: Path
) -> None:
    for k, gain in enumerate((0.5, 0.5, other, 0.5)):
        tifffile.imwrite(tmp_path / f"{k}.tif", movie(1, k, gain=gain)[0])
    ended = run_command("locate", f"images={tmp_path}")
    assert ended.code == 0
    said = re.findall("2.tif: shows (.*) times the noise that 0.tif has", ended.stderr)
    assert len(said) == (other == 0.1)
    assert not said or float(said[0]) > 2


def test_a_file_that_tells_nothing_does_not_end_the_others(
    run_command: CommandServer, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", movie(3), photometric="minisblack")
    clean = np.tile(np.arange(100, dtype=np.uint8), (90, 1))
    Image.fromarray(clean).save(tmp_path / "b.png")
    ended = run_command("locate", f"images={tmp_path}")
    assert ended.code == 1
    assert f"{tmp_path}/b.png: the frames hold no noise" in ended.stderr
    assert ended.error() == "1 of 2 files could not be read, or not in whole"
    assert len(ended.stdout.splitlines()) == 1 + 3 * len(XY)
    (tmp_path / "b.png").rename(tmp_path / "0.png")
    ended = run_command("locate", f"images={tmp_path}")
    assert ended.error().startswith(f"{tmp_path}/0.png: the frames hold no noise")


@pytest.mark.parametrize("written", [0, 1])
def test_what_a_full_disk_leaves_is_gone_on_with_if_it_can_be(
    written: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, places = tmp_path / "t.csv", []

    class FullDisk:
        def to_csv(self, file: Any, **_: Any) -> None:
            file.write("x\n1.")
            file.flush()
            raise OSError(28, "No space left on device")

    def work() -> None:
        with growing(output, 2, "work") as table:
            places.append(table.place)
            for number in range(written):
                table.add(pd.DataFrame({"x": [1.0]}), {"n": number})
            full: Any = FullDisk()
            table.add(full, {"n": written})

    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            work()
    assert places == [{}, {"n": 0} if written else {}]
    then = "goes on from there" if written else "starts over"
    said = f"what was found so far is in {output}.part: the same command {then}\n"
    assert capsys.readouterr().err == 2 * said


def test_another_command_does_not_go_on_from_there(tmp_path: Path) -> None:
    output, seen = tmp_path / "t.csv", []
    rows = pd.DataFrame({"x": [1.0]})

    def work(of: Any) -> None:
        with growing(output, 2, of) as table:
            seen.append(table.place)
            table.add(rows, {"n": table.place.get("n", 0) + 1})
            raise RuntimeError

    for of in ({"a": 1}, {"a": 1}, {"a": 2}):
        with pytest.raises(RuntimeError):
            work(of)
    assert seen == [{}, {"n": 1}, {}]
    assert json.loads((tmp_path / ".t.csv.json").read_text())["place"] == {"n": 1}
    assert (tmp_path / "t.csv.part").read_text() == "x\n1.00\n"


@pytest.mark.parametrize("form", ["thunderstorm", "picasso", "napari"])
def test_formats_of_other_programs(form: str, run_command: CommandServer, tmp_path: Path) -> None:
    stack, single = movie(3), movie(1)[0]
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/a.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in/b.tif", single)
    output = tmp_path / ("spots.hdf5" if form == "picasso" else "spots.csv")
    ended = run_command(
        "locate", f"images={tmp_path}/in", *TOLD, f"format={form}", "pixel_nm=108",
        f"output={output}",
    )  # fmt: skip
    assert ended.code == 0
    if form == "thunderstorm":
        assert output.read_text().startswith('"id","frame","x [nm]","y [nm]","sigma [nm]",')
        table = pd.read_csv(output)
        assert table["frame"].min() == 1
        assert table["id"].tolist() == [*range(1, 17)]
        x, y = (table[f"{name} [nm]"] / 108 - 0.5 for name in "xy")
        assert table["sigma [nm]"].mean() == pytest.approx(1.1 * 108, rel=0.02)
        assert table["uncertainty_xy [nm]"].between(1, 7).all()
        table = pd.DataFrame({"frame": table["frame"] - 1, "x": x, "y": y})
    elif form == "napari":
        table = pd.read_csv(output, index_col="index")
        assert [*table] == ["axis-0", "axis-1", "axis-2"]
        table = table.set_axis(["frame", "y", "x"], axis=1)
    else:
        with h5py.File(output) as file:
            table = pd.DataFrame(file["locs"][:])
        info = [*yaml.safe_load_all(output.with_suffix(".yaml").read_text())]
        assert info[0]["Frames"] == 4
        assert (info[0]["Height"], info[0]["Width"]) == (90, 100)
        assert info[1]["Pixelsize"] == 108
        assert {"photons", "sx", "sy", "bg", "lpx", "lpy"} <= {*table}
        assert table["frame"].is_monotonic_increasing
    assert_all_found(table, 4)


@pytest.fixture
def written(run_command: CommandServer, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Locate a movie, write ``spots`` in a form, and return what a CSV has of the same."""
    tifffile.imwrite(tmp_path / "a.tif", movie(3), photometric="minisblack")

    def write(form: str, ending: str, *settings: str) -> pd.DataFrame:
        told = [f"images={tmp_path}/a.tif", *(settings or TOLD), "pixel_nm=108"]
        for kind, name in ((form, f"spots{ending}"), ("csv", "same.csv")):
            ended = run_command("locate", *told, f"output={tmp_path}/{name}", f"format={kind}")
            assert ended.code == 0, ended.stderr
        table: pd.DataFrame = door.read_back(tmp_path / "same.csv")
        assert len(table) == 12
        return table

    return write


def measured(folder: Path) -> list[str]:
    """Return the settings for a point-spread function that is as wide as it is."""
    place = (np.arange(65) - 32) / 5
    np.save(folder / "psf.npy", np.exp(-(place**2 + place[:, None] ** 2) / (2 * 1.05**2)))
    return [*TOLD[:3], f"psf.file={folder}/psf.npy"]


PICASSO = {
    **{"x": "x", "y": "y", "photons": "photons", "lpx": "sd_x", "lpy": "sd_y"},
    **{"bg": "background", "score": "score", "frame": "frame"},
}
"""Picasso's columns, and ours."""


def test_a_psf_without_a_width_leaves_no_column_without_values(
    written: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    table = written("picasso", ".hdf5", *measured(tmp_path))
    with h5py.File(tmp_path / "spots.hdf5") as file:
        found = pd.DataFrame(file["locs"][:])
    assert {*found} == {*PICASSO}
    np.testing.assert_allclose(found["lpx"], table["sd_x"], rtol=1e-6)
    assert found.notna().all(axis=None)


@pytest.mark.parametrize("width", [True, False])
def test_picassos_own_reader_reads_the_same(
    width: bool, written: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    picasso = pytest.importorskip("picasso.io", reason="picassosr is not installed")
    settings = TOLD if width else measured(tmp_path)
    table = written("picasso", ".hdf5", *settings)
    found, info = picasso.load_locs(str(tmp_path / "spots.hdf5"))
    for theirs, ours in {
        **PICASSO,
        **({"sx": "sigma_px", "sy": "sigma_px"} if width else {}),
    }.items():
        np.testing.assert_allclose(found[theirs], table[ours], rtol=1e-6, err_msg=theirs)
    named = {key: value for document in info for key, value in document.items()}
    assert (named["Width"], named["Height"], named["Frames"]) == (100, 90, 3)
    assert named["Pixelsize"] == 108


def test_readers_of_thunderstorms_tables_read_the_same(
    written: Callable[..., pd.DataFrame], tmp_path: Path
) -> None:
    """SMAPpy takes nm from the corner as they are; Picasso takes 0 for its pixels' centres."""
    smappy = pytest.importorskip("smappy.io.formats", reason="smappy-smlm is not installed")
    picasso = pytest.importorskip("picasso.io", reason="picassosr is not installed")
    table = written("thunderstorm", ".csv")
    found, _ = smappy.load(tmp_path / "spots.csv")
    for axis in "xy":
        np.testing.assert_allclose(found[f"{axis}_nm"], 108 * (table[axis] + 0.5), rtol=1e-5)
    np.testing.assert_array_equal(found["frame"], table["frame"] + 1)
    np.testing.assert_allclose(found["photons"], table["photons"], rtol=1e-5)
    found, _ = picasso.import_ts(str(tmp_path / "spots.csv"), 108)
    np.testing.assert_allclose(found["x"], table["x"] + 0.5, rtol=1e-5)
    np.testing.assert_array_equal(found["frame"], table["frame"])


def test_saturated_pixels_of_a_camera_with_fewer_bits(
    run_command: CommandServer, tmp_path: Path
) -> None:
    counts = movie(2)
    bright = np.where(counts > 500, 4095, counts).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", bright)
    ended = run_command("locate", f"images={tmp_path}/a.tif", *TOLD)
    assert "4095, its largest value, is taken for that of saturated pixels" in ended.stderr
    assert ended.stdout.count(",saturated") == 8


def test_saturated_pixels_at_a_level_that_nobody_declared(
    run_command: CommandServer, tmp_path: Path
) -> None:
    counts = np.minimum(movie(8), 400)
    full = int((counts == 400).sum())
    tifffile.imwrite(tmp_path / "a.tif", counts)
    ended = run_command("locate", f"images={tmp_path}/a.tif", *TOLD)
    assert f"a.tif: {full} pixels hold exactly 400, the most there is" in ended.stderr
    assert ended.stdout.count(",saturated") == 32
    told = run_command("locate", f"images={tmp_path}/a.tif", *TOLD, "camera.saturation=400")
    assert told.stdout == ended.stdout
    assert "hold exactly" not in told.stderr
    told = run_command("locate", f"images={tmp_path}/a.tif", *TOLD, "camera.saturation=401")
    assert ",saturated" not in told.stdout


def test_what_is_remarked_of_several_parts_of_a_file_counts_once() -> None:
    remarks = Remarks()
    for file in ("a.tif", "a.tif", "b.tif", "b.tif"):
        remarks.add(Path(file), "is dim")
    assert remarks.lines() == ["a.tif and 1 other: is dim"]


def test_pixels_without_a_value_are_left_out(run_command: CommandServer, tmp_path: Path) -> None:
    counts = movie(2).astype(np.float32)
    counts[:, 60:] = np.nan
    np.save(tmp_path / "a.npy", counts)
    ended = run_command("locate", f"images={tmp_path}/a.npy", *TOLD)
    assert ended.code == 0
    assert len(ended.stdout.splitlines()) == 1 + 2 * 3
    with open_frames(tmp_path / "a.npy") as frames, pytest.raises(Exception, match="not finite"):
        frames.read(0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["format=csvv"], "format must be one of csv, thunderstorm, picasso, napari"),
        (["format=thunderstorm", "output=a.csv"], "give pixel_nm="),
        (["format=napari"], "format=napari needs an output="),
        (["overview=a.html"], "overview= needs an output="),
        (["overview=/", "output=a.csv"], "overview=/ cannot be replaced by a file"),
        (["pixel_nm=0"], "pixel_nm must be a pixel's side in nm"),
        (["camera.gain=0.5"], "camera.gain and camera.offset go together"),
        (["camera.gain=0", "camera.offset=0"], "camera.gain must be more than 0"),
        (["camera.gain=abc", "camera.offset=0"], "camera.gain"),
        (["psf.sigma_px=-1"], "psf.sigma_px must be a positive number"),
        (["psf.sigma=1"], "did you mean psf.sigma_px"),
        (["psf.file=nowhere.npy"], "nowhere.npy"),
        (["false_alarms=0"], "false_alarms must be a number above 0"),
        (["false_alarms=few"], "false_alarms"),
        (["checkpoint=nowhere.ckpt"], "there is no file nowhere.ckpt"),
        (["output=/"], "cannot be replaced by a file"),
        (["camera.saturation=0"], "camera.saturation"),
        (["processes=0"], "processes"),
        (["camera.offset=500", "camera.gain=1"], "is more than most pixels hold"),
        (["camera.offset=500", "camera.gain=1", "output=a.csv"], "is more than most pixels hold"),
    ],
)
def test_what_cannot_be_ends_in_one_line(
    arguments: list[str], problem: str, run_command: CommandServer, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", movie(2))
    ended = run_command("locate", f"images={tmp_path}/stack.tif", *arguments, cwd=tmp_path)
    assert ended.code == 1
    assert problem in ended.error()
    assert "found so far" not in ended.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"stack.tif"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["output=stack.tif"], "stack.tif would be output and one of images"),
        (["output=link/stack.tif"], "link/stack.tif would be output and one of images"),
        (["output=a.csv", "overview=stack.tif"], "would be overview and one of images"),
        (["output=a.yaml"], "a.yaml would be its YAML and output"),
        (["output=a.yaml", "format=picasso"], "a.yaml would be its YAML and output"),
        (["output=a.csv", "overview=./a.csv"], "a.csv would be overview and output"),
        (["output=a.csv", "overview=a.yaml"], "a.yaml would be overview and its YAML"),
    ],
)
def test_nothing_is_written_over_images_or_itself(
    arguments: list[str], problem: str, run_command: CommandServer, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", movie(2))
    (tmp_path / "link").symlink_to(tmp_path)
    before = (tmp_path / "stack.tif").read_bytes()
    ended = run_command("locate", "images=stack.tif", *TOLD, *arguments, cwd=tmp_path)
    assert ended.code == 1
    assert problem in ended.error()
    assert (tmp_path / "stack.tif").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"stack.tif", "link"}


@pytest.mark.parametrize("words", ["gain: 0.5\n", "- 1\n", "!mine {a: 1}\n", "\xff: : :", ""])
@pytest.mark.parametrize("name", ["camera.csv", "camera.hdf5"])
def test_a_yaml_of_something_else_stays(
    name: str, words: str, run_command: CommandServer, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", movie(2))
    (tmp_path / "camera.yaml").write_text(words, "latin1")
    form = "format=picasso" if name.endswith("hdf5") else "format=csv"
    asked = ["images=stack.tif", *TOLD, f"output={name}", form]
    ended = run_command("locate", *asked, cwd=tmp_path)
    assert ended.error() == (
        "camera.yaml would be replaced, and is not one of locate: give output= another name"
    )
    assert ended.stderr.count("\n") == 1
    assert (tmp_path / "camera.yaml").read_text("latin1") == words
    assert {file.name for file in tmp_path.iterdir()} == {"stack.tif", "camera.yaml"}
    napari = run_command("locate", *asked[:-2], "output=camera.csv", "format=napari", cwd=tmp_path)
    assert napari.code == 0, "which has no YAML"


def test_two_tables_do_not_share_a_yaml(run_command: CommandServer, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", movie(2))
    names = {"spots.csv": "csv", "spots.hdf5": "picasso"}
    for first, other in (("spots.csv", "spots.hdf5"), ("spots.hdf5", "spots.csv")):
        asked = ["images=stack.tif", *TOLD, f"output={first}", f"format={names[first]}"]
        for _ in range(2):  # which replaces its own
            assert run_command("locate", *asked, cwd=tmp_path).code == 0
        asked[-2:] = [f"output={other}", f"format={names[other]}"]
        ended = run_command("locate", *asked, cwd=tmp_path)
        assert ended.error().startswith(f"spots.yaml would be replaced, and is that of {first}: ")
        assert not (tmp_path / other).exists()
        (tmp_path / first).unlink()
        (tmp_path / "spots.yaml").unlink()


@pytest.mark.parametrize("form", ["csv", "thunderstorm", "picasso", "napari"])
def test_without_a_frame_that_can_be_read_tables_are_empty(
    form: str, run_command: CommandServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0 and no more")
    ended = run_command(
        "locate", f"images={tmp_path}/broken.tif", f"output={tmp_path}/spots.csv",
        f"format={form}", "pixel_nm=100", f"overview={tmp_path}/page.html",
    )  # fmt: skip
    assert ended.code == 1
    assert ended.error() == "1 of 1 files could not be read, or not in whole"
    assert "0 spots in 0 frames" in (tmp_path / "page.html").read_text()
    if form == "csv":
        assert (tmp_path / "spots.csv").read_text() == ",".join(door.COLUMNS) + "\n"
    elif form != "picasso":
        assert len((tmp_path / "spots.csv").read_text().splitlines()) == 1


def test_frames_too_small_for_a_spot_are_named(run_command: CommandServer, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", movie(2)[:, :5, :5])
    tifffile.imwrite(tmp_path / "b.tif", movie(2))
    ended = run_command("locate", f"images={tmp_path}", *TOLD)
    assert ended.code == 1
    assert f"{tmp_path}/a.tif: " in ended.stderr
    assert len(ended.stdout.splitlines()) == 1 + 2 * len(XY)
