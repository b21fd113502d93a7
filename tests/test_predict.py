import csv
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from conftest import CommandServer, Run, png_header, save_checkpoint
from PIL import Image

from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.loading import load_model
from pixel_spotter.predict import predict
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.tables import growing

SIZE = (16, 16)
UNLIKE = "unlike training"


def write_pixel(path: Path, x: int, y: int) -> None:
    """Write the image that a user would make: white is 255."""
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels[y, x] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def table(text: str) -> dict[str, tuple[float, float]]:
    return {row["file"]: (float(row["x"]), float(row["y"])) for row in rows_of(text)}


def rows_of(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    assert reader.fieldnames == ["file", "x", "y", "score", "flag", "frame"]
    return [*reader]


@torch.no_grad()
def expected(run: Run, *points: tuple[int, int]) -> list[tuple[float, float]]:
    model, _ = load_model(run.best)
    xy_px = model(render_pixels(torch.tensor(points), SIZE))
    return [(x, y) for x, y in xy_px.tolist()]


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_files_are_predicted_as_rendered_images_are(
    batch_size: int, tiny_run: Run, tmp_path: Path
) -> None:
    points = [(x, y) for x, y in all_positions(SIZE)[::13].tolist()]
    files = [tmp_path / f"{x:02}_{y:02}.png" for x, y in points]
    for file, point in zip(files, points, strict=True):
        write_pixel(file, *point)
    model, _ = load_model(tiny_run.best)
    failures: dict[Path, list[str]] = {}
    batches = [*predict(model, files, batch_size, failures)]
    assert failures == {}
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    rows = pd.concat(batches)
    assert rows["file"].tolist() == files
    found = torch.from_numpy(rows[["x", "y"]].to_numpy(copy=True))
    assert len(found) == 20
    torch.testing.assert_close(found, torch.tensor(expected(tiny_run, *points)), atol=1e-4, rtol=0)
    assert found.std(0).min() > 0.002, "predictions that do not depend on the image show nothing"


def test_a_folder_to_standard_output(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    names = {"plain.png": (3, 4), "two words, a=b.png": (15, 0), "it's.png": (0, 15)}
    names |= {'"quoted".png': (8, 8), "[1]{2}$x.png": (1, 2), "back\\slash.png": (5, 6)}
    for name, point in names.items():
        write_pixel(tmp_path / "images" / name, *point)
    ended = run_command("predict", f"checkpoint={tiny_run.best}", "images=images", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    rows = table(ended.stdout)
    assert rows.keys() == {f"images/{name}" for name in names}
    for (name, _), xy in zip(names.items(), expected(tiny_run, *names.values()), strict=True):
        assert rows[f"images/{name}"] == pytest.approx(xy, abs=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"images"}, "it left something behind"


@pytest.mark.parametrize("name", ["${x}, a=b.png", "q\\'x.png", "1e3"])
def test_one_file_whatever_its_name(
    name: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    write_pixel(tmp_path / "pixel.png", 3, 4)
    (tmp_path / "pixel.png").rename(tmp_path / name)
    ended = run_command("predict", f"checkpoint={tiny_run.best}", f"images={name}", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    (xy,) = expected(tiny_run, (3, 4))
    assert table(ended.stdout) == {name: pytest.approx(xy, abs=1e-3)}


def test_a_pattern_into_a_file(run_command: CommandServer, tiny_run: Run, tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png", "b1.png"):
        write_pixel(tmp_path / name, 3, 4)
    output = "new folder/x, y=1.csv"
    ended = run_command(
        "predict", f"checkpoint={tiny_run.best}", "images=a*.png", f"output={output}", cwd=tmp_path
    )
    assert ended.code == 0, ended.stderr
    assert ended.stdout == ""
    assert table((tmp_path / output).read_text()).keys() == {"a1.png", "a2.png"}


@pytest.mark.parametrize("checkpoint", ["my best, ever=1.ckpt", "it's [1].ckpt"])
def test_a_checkpoint_whatever_its_name(
    checkpoint: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    (tmp_path / checkpoint).write_bytes(tiny_run.best.read_bytes())
    write_pixel(tmp_path / "a.png", 3, 4)
    ended = run_command("predict", f"checkpoint={checkpoint}", "images=a.png", cwd=tmp_path)
    assert ended.code == 0, ended.stderr


def test_bad_files_are_named_and_the_others_predicted(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write_pixel(images / "a good.png", 3, 4)
    write_pixel(images / "z good.png", 9, 2)
    (images / "text.png").write_text("no image")
    Image.new("L", (20, 10)).save(images / "other size.png")
    (images / "absurd.png").write_bytes(png_header(100_000, 100_000))
    noise = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    Image.fromarray(noise).save(images / "cut.png")
    cut = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(cut[: len(cut) // 2])

    ended = run_command(
        "predict", f"checkpoint={tiny_run.best}", "images=images", "output=out.csv", cwd=tmp_path
    )
    assert ended.code == 1
    assert ended.error() == "4 of 6 files could not be predicted"
    *reasons, _ = ended.stderr.strip().splitlines()
    told = dict(line.split(": ", 1) for line in reasons)
    assert told["images/text.png"] == "is not an image of a known format"
    assert "10x20" in told["images/other size.png"]
    assert told["images/absurd.png"] == "is absurdly large"
    assert told.keys() == {f"images/{n}.png" for n in ("text", "other size", "absurd", "cut")}
    rows = table((tmp_path / "out.csv").read_text())
    for name, xy in zip(
        ("a good.png", "z good.png"), expected(tiny_run, (3, 4), (9, 2)), strict=True
    ):
        assert rows.pop(f"images/{name}") == pytest.approx(xy, abs=1e-3)
    assert not rows


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["images=missing"], "images=missing names no image file"),
        (["images=a.png", "batch_size=0"], "batch_size"),
        (["images=a.png", "batch_size=many"], "batch_size"),
        (["images=a.png", "device=tpu9"], "device=tpu9"),
        (["images=a.png", "device=meta"], "device=meta"),
        (["images=a.png", "output=a.png/x.csv"], "a.png"),
        (["images=a.png", "output=."], "."),
        (["images=a.png", "white=bright"], "white must be a number"),
        (["images=a.png", "black=nan"], "black must be a number"),
        (["images=a.png", "white=5", "black=5"], "white must be more than black=5"),
        (["images=a.png", "black=255"], "1 of 1 files could not be predicted"),
        ([], "images is missing"),
    ],
)
def test_mistakes(
    arguments: list[str], says: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    write_pixel(tmp_path / "a.png", 3, 4)
    ended = run_command("predict", f"checkpoint={tiny_run.best}", *arguments, cwd=tmp_path)
    assert says in ended.error()


def pixel(x: int, y: int, value: float, dtype: type, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = np.zeros(size, dtype)
    image[y, x] = value
    return image


def test_every_frame_of_a_stack(run_command: CommandServer, tiny_run: Run, tmp_path: Path) -> None:
    points = [(3, 4), (9, 2), (15, 0), (0, 15), (8, 8)]
    stack = np.stack([pixel(x, y, 65535, np.uint16) for x, y in points])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    write_pixel(tmp_path / "one.png", 3, 4)
    ended = run_command(
        "predict", f"checkpoint={tiny_run.best}", "images=*.*", "batch_size=2", cwd=tmp_path
    )
    assert ended.code == 0, ended.stderr
    assert ended.stderr == ""
    rows = rows_of(ended.stdout)
    assert [(row["file"], row["frame"]) for row in rows] == [
        ("one.png", "0"), *(("stack.tif", str(frame)) for frame in range(5))
    ]  # fmt: skip
    for row, xy in zip(rows, expected(tiny_run, (3, 4), *points), strict=True):
        assert (float(row["x"]), float(row["y"])) == pytest.approx(xy, abs=1e-3)
        assert row["flag"] == ""


@pytest.mark.parametrize(
    ("values", "settings", "flags", "told"),
    [
        (pixel(3, 4, 65535, np.uint16), [], "", ""),
        (pixel(3, 4, 4095, np.uint16), ["white=4095"], "", ""),
        (pixel(3, 4, 4095, np.uint16), [], UNLIKE, "the camera has 12 bits, say white=4095"),
        (pixel(3, 4, 200, np.uint16), [], UNLIKE, "the camera has 10 bits, say white=1023"),
        (pixel(3, 4, 60, np.uint8), [], UNLIKE, "brightest value is 60, where 255 is white"),
        (pixel(3, 4, 4095, np.float32), ["white=4095"], "", ""),
        (pixel(3, 4, 4095, np.int32) + 100, ["white=4195", "black=100"], "", ""),
        (pixel(3, 4, 1, np.float64), [], "", ""),
        (pixel(3, 4, 32767, np.int16), [], "", ""),
    ],
)  # fmt: skip
def test_one_rule_for_values(
    values: np.ndarray,
    settings: list[str],
    flags: str,
    told: str,
    run_command: CommandServer,
    tiny_run: Run,
    tmp_path: Path,
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    ended = run_command(
        "predict", f"checkpoint={tiny_run.best}", "images=a.tif", *settings, cwd=tmp_path
    )
    assert ended.code == 0, ended.stderr
    (row,) = rows_of(ended.stdout)
    assert row["flag"] == flags
    assert told in ended.stderr
    assert bool(ended.stderr) == bool(told)
    if not flags:
        (xy,) = expected(tiny_run, (3, 4))
        assert (float(row["x"]), float(row["y"])) == pytest.approx(xy, abs=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint32])
def test_where_nothing_says_what_is_white_the_file_is_refused(
    dtype: type, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    stack = np.stack([pixel(3, 4, 1, dtype), pixel(3, 4, 4095, dtype)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    ended = run_command("predict", f"checkpoint={tiny_run.best}", "images=a.tif", cwd=tmp_path)
    assert ended.error() == "1 of 1 files could not be predicted"
    (reason, _) = ended.stderr.splitlines()
    assert reason.startswith("a.tif: ")
    assert "give white=" in reason
    assert rows_of(ended.stdout) == []


def test_what_cannot_be_an_answer_says_so(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    for name, image in (
        ("black", pixel(3, 4, 0, np.uint8)),
        ("grey", pixel(3, 4, 200, np.uint8) + 40),
    ):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    ended = run_command("predict", f"checkpoint={tiny_run.best}", "images=*.png", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    black, grey = rows_of(ended.stdout)
    assert (black["x"], black["y"], black["flag"]) == ("nan", "nan", "nothing found")
    assert float(black["score"]) == 0
    assert grey["flag"] == "unlike training"


def test_a_damaged_frame_is_named_and_the_others_predicted(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    stack = np.stack([pixel(x, 4, 1, np.float32) for x in range(6)])
    stack[2:4, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", stack)
    write_pixel(tmp_path / "b.png", 3, 4)
    ended = run_command("predict", f"checkpoint={tiny_run.best}", "images=*.*", cwd=tmp_path)
    assert ended.error() == "1 of 2 files could not be predicted, 1 of them in part"
    assert ended.stderr.splitlines()[0] == (
        "a.npy: each of frames 2 to 3 holds values that are not finite"
    )
    rows = rows_of(ended.stdout)
    assert [(row["file"], row["frame"]) for row in rows] == [
        *(("a.npy", frame) for frame in "0145"), ("b.png", "0")
    ]  # fmt: skip


def test_what_is_skipped_or_decided_is_said_once(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_pixel(tmp_path / "images" / name, 3, 4)
        Image.open(tmp_path / "images" / name).convert("RGB").save(tmp_path / "images" / name)
    for name in ("d.txt", "e.txt", "f.csv", "g.zip", ".hidden"):
        (tmp_path / "images" / name).touch()
    ended = run_command("predict", f"checkpoint={tiny_run.best}", "images=images", cwd=tmp_path)
    assert ended.code == 0
    assert ended.stderr.splitlines() == [
        "skipped 4 files not named as images are: d.txt, e.txt, f.csv and 1 other",
        "images/a.png and 2 others: is in colour, turned to grey",
    ]


def test_a_model_of_any_size(run_command: CommandServer, tmp_path: Path) -> None:
    checkpoint = tmp_path / "any.ckpt"
    torch.manual_seed(0)
    save_checkpoint(checkpoint, ClosedForm(16, "argmax"), 16)
    points = {"a.png": (3, 4, SIZE), "b.png": (30, 4, (20, 40)), "c.png": (5, 6, (20, 40))}
    points["d.png"] = (1, 2, (3, 4))
    for name, (x, y, size) in points.items():
        Image.fromarray(pixel(x, y, 255, np.uint8, size)).save(tmp_path / name)
    ended = run_command("predict", f"checkpoint={checkpoint}", "images=*.png", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert table(ended.stdout) == {name: (x, y) for name, (x, y, _) in points.items()}


def test_frames_too_small_for_a_model_of_any_size(
    run_command: CommandServer, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "any.ckpt"
    save_checkpoint(checkpoint, ClosedForm(16, "centroid"), 16)
    write_pixel(tmp_path / "a.png", 8, 8)
    Image.fromarray(pixel(1, 2, 255, np.uint8, (3, 4))).save(tmp_path / "b.png")
    ended = run_command("predict", f"checkpoint={checkpoint}", "images=*.png", cwd=tmp_path)
    assert ended.error() == "1 of 2 files could not be predicted"
    assert ended.stderr.startswith("b.png: cannot be predicted: ")
    assert table(ended.stdout) == {"a.png": (8, 8)}


def test_a_full_disk(run_command: CommandServer, tiny_run: Run, tmp_path: Path) -> None:
    stack = np.stack([pixel(3, 4, 255, np.uint8)] * 2000)
    np.save(tmp_path / "a.npy", stack)
    asked = ["images=a.npy", "output=out.csv", "batch_size=100"]
    ended = run_command(
        "predict", f"checkpoint={tiny_run.best}", *asked, cwd=tmp_path, fsize=20_000
    )
    assert "out.csv.part" in ended.error()
    assert not (tmp_path / "out.csv").exists()
    lines = (tmp_path / "out.csv.part").read_text().splitlines()
    assert len(lines) > 100, "what was found by then is not there"


def test_photons_are_not_read_from_files(run_command: CommandServer, tmp_path: Path) -> None:
    spots = ["data=spots", "data.image_size=21", "data.margin_px=8", "data.photons=5000", "name=s"]
    few = [f"data.{split}_samples=32" for split in ("train", "val", "test")]
    fit = ["model=closed_form", "model.estimator=maximum_likelihood"]
    trained = run_command("train", *spots, *few, *fit, cwd=tmp_path)
    assert trained.code == 0, trained.stderr
    assert "Predict:" not in trained.stdout
    write_pixel(tmp_path / "a.png", 3, 3)
    checkpoint = tmp_path / "outputs/runs/s/checkpoints/best.ckpt"
    ended = run_command("predict", f"checkpoint={checkpoint}", "images=a.png", cwd=tmp_path)
    assert "images in photons" in ended.error()
    model, data = load_model(checkpoint)
    batch = data.batch("test", 0, torch.arange(32))
    counts = model.predict(batch.image[:, 0].numpy().astype(np.uint16))
    np.testing.assert_allclose(counts["x"], batch.truth["x_true"], atol=0.1)
    np.testing.assert_allclose(counts["photons"], 5000, rtol=0.1)


def test_a_file_whose_name_is_no_text(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    name = b"\xff\xfe.png"
    write_pixel(tmp_path / "images/a.png", 3, 4)
    (tmp_path / "images/a.png").rename(tmp_path / "images" / os.fsdecode(name))
    ended = run_command(
        "predict", f"checkpoint={tiny_run.best}", "images=images", "output=out.csv", cwd=tmp_path
    )
    assert ended.code == 0, ended.stderr
    assert b"\nimages/" + name + b"," in (tmp_path / "out.csv").read_bytes()


def test_what_was_found_before_an_interruption_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("old\n")

    def interrupted() -> None:
        with growing(output, 2) as table:
            table.add(pd.DataFrame({"x": [1.0]}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out.csv.part").read_text() == "x\n1.00\n"
    assert output.read_text() == "old\n"
    assert "out.csv.part" in capsys.readouterr().err
    with growing(output, 2) as table:
        table.add(pd.DataFrame({"y": [2.0]}))
    assert output.read_text() == "y\n2.00\n"
    assert not (tmp_path / "out.csv.part").exists()


def test_two_commands_with_one_output_at_once(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    write_pixel(tmp_path / "a.png", 3, 4)
    output, asked = tmp_path / "out.csv", [f"checkpoint={tiny_run.best}", "images=a.png"]
    with growing(output, 2) as rows:
        rows.add(pd.DataFrame({"by": ["the first"]}))
        ended = run_command("predict", *asked, "output=out.csv", cwd=tmp_path)
        assert ended.error().startswith("another process is at work in out.csv")
        assert ended.stderr.count("\n") == 1
    assert output.read_text() == "by\nthe first\n"
    ended = run_command("predict", *asked, "output=out.csv", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert table(output.read_text()).keys() == {"a.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "out.csv"}, "no lock is left"
