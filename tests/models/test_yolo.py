from pathlib import Path

import pytest
import torch
from conftest import TINY, CommandServer, read_json
from PIL import Image

from pixel_spotter.coordinates import all_positions
from pixel_spotter.models.yolo import YOLORegressor
from pixel_spotter.simulation.pixels import render_pixels


@pytest.mark.parametrize("size", [50, [33, 16]])
def test_there_is_a_cell_for_every_position(size: int | list[int]) -> None:
    model = YOLORegressor(size, channels=[2, 2, 2])
    positions = all_positions(model.size)
    cells = model.encode(render_pixels(positions[:2], model.size))
    assert cells.shape[2:] == model.head.cells
    holds = model.head.cell_of(positions.float())
    assert int(holds.max()) == cells.shape[2] * cells.shape[3] - 1
    distance = (model.head.centres[holds] - positions).abs()
    assert distance.max() <= 3.5


def test_a_perfect_detection_costs_next_to_nothing() -> None:
    model = YOLORegressor(16, channels=[2, 2, 2])
    layer = model.features[-1]
    torch.nn.init.zeros_(layer.weight)  # type: ignore[index]
    xy = torch.tensor([[3, 4]])
    image = render_pixels(xy, (16, 16))
    losses = []
    for offset in ((3 - 3.5) / 8, 0.4):
        bias = torch.tensor([-20.0, offset, (4 - 3.5) / 8, 0.0, 0.0])
        with torch.no_grad():
            layer.bias.copy_(bias)  # type: ignore[index]
        cells = model.encode(image)
        cells = cells.clone()
        cells[0, 0, 0, 0] = 20.0
        model.encode = lambda _, cells=cells: cells  # type: ignore[method-assign, misc]
        truth = {"x_true": torch.tensor([3.0]), "y_true": torch.tensor([4.0])}
        losses.append(model.training_loss(image, truth).item())
        del model.encode
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[1] > 0.5


@pytest.mark.parametrize("wrong", [{"channels": []}, {"box_px": 0.0}], ids=str)
def test_arguments_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"model\.{next(iter(wrong))}"):
        YOLORegressor(16, **wrong)  # type: ignore[arg-type]


def test_boxes_reach_every_table(run_command: CommandServer, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("model")]
    ended = run_command(
        "train", "model=yolo", "model.channels=[4,4]", *words, "name=y", cwd=tmp_path
    )
    assert ended.code == 0, ended.stderr
    run = tmp_path / "outputs/runs/y"
    assert 0 <= read_json(run / "metrics.json")["test/box_iou"] <= 1
    header = (run / "predictions.csv").read_text().splitlines()[0]
    assert header == "sample,x,y,box_width_px,box_height_px,objectness,x_true,y_true"
    image = Image.new("L", (16, 16))
    image.putpixel((3, 4), 255)
    image.save(tmp_path / "pixel.png")
    checkpoint = f"checkpoint={run / 'checkpoints/best.ckpt'}"
    ended = run_command("predict", checkpoint, "images=pixel.png", cwd=tmp_path)
    titles, row = (line.split(",") for line in ended.stdout.splitlines())
    known = ["file", "x", "y", "box_width_px", "box_height_px", "objectness"]
    assert titles == [*known, "score", "flag", "frame"]
    assert len(row) == 9
    assert 0 < float(row[5]) < 1
