import csv
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CommandServer, Run, png_header
from PIL import Image

from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.loading import load_model
from pixel_spotter.predict import growing, predict
from pixel_spotter.simulation.pixels import render_pixels

SIZE = (16, 16)


def write_pixel(path: Path, x: int, y: int) -> None:
    """Write the image that a user would make: white is 255."""
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels[y, x] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def table(text: str) -> dict[str, tuple[float, float]]:
    reader = csv.DictReader(io.StringIO(text))
    assert reader.fieldnames == ["file", "x", "y"]
    return {row["file"]: (float(row["x"]), float(row["y"])) for row in reader}


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
    failures: dict[Path, str] = {}
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
        ([], "images is missing"),
    ],
)
def test_mistakes(
    arguments: list[str], says: str, run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    write_pixel(tmp_path / "a.png", 3, 4)
    ended = run_command("predict", f"checkpoint={tiny_run.best}", *arguments, cwd=tmp_path)
    assert says in ended.error()


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
        with growing(output) as table:
            table.write("found\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out.csv.part").read_text() == "found\n"
    assert output.read_text() == "old\n"
    assert "out.csv.part" in capsys.readouterr().err
    with growing(output) as table:
        table.write("all\n")
    assert output.read_text() == "all\n"
    assert not (tmp_path / "out.csv.part").exists()


def test_two_commands_with_one_output_at_once(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    write_pixel(tmp_path / "a.png", 3, 4)
    output, asked = tmp_path / "out.csv", [f"checkpoint={tiny_run.best}", "images=a.png"]
    with growing(output) as rows:
        rows.write("found by the first\n")
        rows.flush()
        ended = run_command("predict", *asked, "output=out.csv", cwd=tmp_path)
        assert ended.error().startswith("another process is at work in out.csv")
        assert ended.stderr.count("\n") == 1
    assert output.read_text() == "found by the first\n"
    ended = run_command("predict", *asked, "output=out.csv", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert table(output.read_text()).keys() == {"a.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "out.csv"}, "no lock is left"
