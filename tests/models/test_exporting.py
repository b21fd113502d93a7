import io
import json
from collections.abc import Sequence

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CPU, ROOT, ModelFiles, choices

from pixel_spotter import __version__, estimators
from pixel_spotter.coordinates import FLAGS, Columns
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.data.spots import SpotDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.models import exporting
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.exporting import FACTS, Answer, Format, export_file, telling_images
from pixel_spotter.models.heatmap import HeatmapRegressor
from pixel_spotter.models.solved import SolvedRegressor
from pixel_spotter.models.spotter import SpotterRegressor
from pixel_spotter.train import make

SLOW = {
    *("resnet18", "resnet18_scratch", "closed_form", "centroid", "ensemble", "trained"),
    *("heatmap", "spotter"),  # which have tests of their own
    *("coordconv", "simcc"),  # whose parts are those of others: argmax, cnn
}
"""Choices of ``model`` that take seconds, and of which others are like them."""

ITERATING = {"least_squares", "maximum_likelihood", "maximum_likelihood_pair"}
"""Estimators that go on until their answer is good enough."""


def noise(*shape: int, scale: float = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) * scale


def session(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def ask(content: bytes, image: torch.Tensor) -> dict[str, np.ndarray]:
    asked = session(content)
    names = [output.name for output in asked.get_outputs()]
    return dict(zip(names, asked.run(None, {"image": image.numpy()}), strict=True))


@torch.no_grad()
def hold_against(
    model: PointRegressor, content: bytes, images: Sequence[torch.Tensor], tolerance: float = 1e-4
) -> None:
    """Ask an ONNX file about images; it must answer as its model does."""
    for image in images:
        expected, got = model.estimate(image), ask(content, image)
        assert [*got] == [*expected]
        for name, column in expected.items():
            assert got[name].shape == (len(image),)
            np.testing.assert_allclose(
                got[name], column.numpy(), rtol=tolerance, atol=tolerance, err_msg=name
            )


def build(choice: str, files: ModelFiles) -> PointRegressor:
    torch.manual_seed(0)
    small = {"ensemble": ["model.members=2"]}.get(choice, [])
    asked = [*CPU, f"model={choice}", "data.image_size=24", "data.train_samples=60", *small]
    data, model = make(files.compose(asked), choice)
    if isinstance(model, SolvedRegressor):
        model.solve(data)
    return model.eval()


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(choice, marks=[pytest.mark.slow] if choice in SLOW else [])
        for choice in choices("model")
    ],
)
def test_every_model_answers_in_onnx_as_it_does_here(choice: str, model_files: ModelFiles) -> None:
    """Whatever the size of the batch, and of the image if it takes any."""
    model = build(choice, model_files)
    images = [noise(3, 1, 24, 24), noise(1, 1, 24, 24), noise(9, 1, 24, 24)]
    if model.any_size:
        images += [noise(2, 1, 31, 26), noise(1, 1, 22, 90)]
    content, largest = export_file(model, images[:2], ".onnx")
    assert max(largest.values()) < 1e-4
    hold_against(model, content, images)
    (image,) = session(content).get_inputs()
    sides = ["height", "width"] if model.any_size else [24, 24]
    assert (image.name, image.type) == ("image", "tensor(float)")
    assert image.shape == ["batch", 1, *sides]
    assert all(output.shape == ["batch"] for output in session(content).get_outputs())


@pytest.mark.slow
@pytest.mark.parametrize("choice", choices("model"))
def test_every_model_answers_in_torch_as_it_does_here(choice: str, model_files: ModelFiles) -> None:
    model = build(choice, model_files)
    images = [noise(3, 1, 24, 24), noise(1, 1, 24, 24)]
    _, largest = export_file(model, images, ".pt2")
    assert max(largest.values()) < 1e-6


def test_a_spotter_in_frames_of_all_kinds() -> None:
    """Its margin holds in images of its own size alone; some show nothing, or not all."""
    torch.manual_seed(0)
    model = SpotterRegressor(21, widths=[16], margin_px=6).eval()
    model.met.copy_(torch.tensor([[2.0, 2.0, -1.0], [5.0, 5.0, 3.0]]))
    model.in_photons = True
    lit = noise(6, 1, 21, 21, scale=20)
    lit[:, :, 2, 3] = 90  # in the margin
    lit[0], lit[1], lit[2, :, :, :12] = 0, torch.nan, torch.nan
    images = [lit, lit[:1], torch.nn.functional.pad(lit, (0, 70, 3, 0), value=9)]
    content, largest = export_file(model, images, ".onnx")
    hold_against(model, content, images)
    assert [*largest] == ["x", "y", "sd_x", "sd_y", "photons", "background", "flag"]
    inner, outer = ask(content, images[0]), ask(content, images[2])
    assert inner["x"][3:] == pytest.approx(10, abs=5)
    assert outer["x"][3:] == pytest.approx(3, abs=2), "in the margin"
    assert len({*inner["flag"]}) > 1
    facts = session(content).get_modelmeta().custom_metadata_map
    assert facts["image"] == "photons"
    assert facts["any_size"] == "true"
    assert json.loads(facts["flags"]) == [*FLAGS]


@pytest.mark.slow
@pytest.mark.parametrize("name", estimators.__all__)
def test_estimators(name: str) -> None:
    """Also in images that show nothing, and in such that saturate."""
    model = ClosedForm(21, name).eval()
    model.name = name
    images = [noise(5, 1, 21, 21, scale=200), noise(2, 1, 40, 75, scale=200)]
    images[0][0], images[0][1, :, :, :5], images[0][2, :, 8:11, 8:11] = 0, torch.nan, 900
    if name in ITERATING:
        words = (
            f"^{name} cannot be exported to .pt2: what it does next depends on what it has found"
        )
        with pytest.raises(UserError, match=words):
            export_file(model, images, ".pt2")
        return
    content, _ = export_file(model, images, ".onnx")
    hold_against(model, content, images, tolerance=1e-3)
    assert np.isnan(ask(content, images[0])["x"][0])


class Medians(CNNRegressor):
    any_size = True

    def estimate(self, image: torch.Tensor) -> Columns:
        pixels = image.flatten(1)
        return {"x": pixels.nanmedian(dim=1).values, "y": pixels[:, -1] % 6.25}


def test_what_is_said_in_onnx_for_want_of_words() -> None:
    """A median without nan, of odd and even numbers and of none; remainders of both signs."""
    images = [noise(4, 1, 8, 9), noise(4, 1, 9, 9)]
    for image in images:
        image[0, 0, 0, :4], image[1, 0, 0, :5], image[2] = torch.nan, torch.nan, torch.nan
        image[:2, 0, -1, -1] = torch.tensor([-20.5, 20.5])
    model = Medians(8, channels=[2], hidden=[4]).eval()
    content, largest = export_file(model, images, ".onnx")
    assert largest["x"] == 0
    hold_against(model, content, images)


@pytest.fixture(scope="module")
def heatmap() -> HeatmapRegressor:
    torch.manual_seed(0)
    model = HeatmapRegressor(12).eval()
    model.name = "mine"
    return model


@pytest.fixture(scope="module")
def files(heatmap: HeatmapRegressor) -> dict[str, bytes]:
    images = [noise(3, 1, 12, 12), noise(1, 1, 20, 18)]
    return {ending: export_file(heatmap, images, ending)[0] for ending in exporting.FORMATS}


def test_what_files_say_of_themselves(files: dict[str, bytes]) -> None:
    extra = {FACTS: ""}
    torch.export.load(io.BytesIO(files[".pt2"]), extra_files=extra)
    facts = json.loads(extra[FACTS])
    assert facts == {
        "model": "mine",
        "pixel_spotter": __version__,
        "image": "0 is black, 1 is white",
        "image_size": [12, 12],
        "any_size": True,
        "columns": ["x", "y"],
        "coordinates": "px; x to the right, y downwards, integers at pixel centres",
    }
    said = session(files[".onnx"]).get_modelmeta().custom_metadata_map
    assert said.keys() == facts.keys()
    assert said["model"] == "mine"
    assert json.loads(said["image_size"]) == [12, 12]


def test_files_do_not_tell_where_they_were_made(files: dict[str, bytes]) -> None:
    for ending, content in files.items():
        for place in (str(ROOT), "site-packages", "exporting.py"):
            assert place.encode() not in content, (ending, place)


def test_the_size_of_training_is_one_of_all(
    heatmap: HeatmapRegressor, files: dict[str, bytes]
) -> None:
    """It was exported without that case, and must not refuse it."""
    loaded = torch.export.load(io.BytesIO(files[".pt2"])).module()
    for size in ((12, 12), (12, 30), (40, 41)):
        image = noise(2, 1, *size)
        expected = heatmap.estimate(image)["y"]
        torch.testing.assert_close(loaded(image)["y"], expected, atol=1e-4, rtol=0)
        hold_against(heatmap, files[".onnx"], [image])


def changed(how: str) -> Answer:
    def answer(image: torch.Tensor) -> Columns:
        x, y = image.mean(dim=(1, 2, 3)), image.amax(dim=(1, 2, 3))
        if how == "as it is":
            return {"x": x + 1e-5, "y": y}
        if how == "swapped":
            return {"x": y, "y": x}
        if how == "off for one image":
            return {"x": x + 0.01 * (len(x) == 1), "y": y}
        if how == "nothing":
            return {"x": x, "y": y * torch.nan}
        return {"x": x, "z": y}

    return answer


class Extremes(CNNRegressor):
    def estimate(self, image: torch.Tensor) -> Columns:
        return {"x": image.mean(dim=(1, 2, 3)), "y": image.amax(dim=(1, 2, 3))}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("as it is", ""),
        ("swapped", "on images of 8x8 px, its x is 0.[45]"),
        ("off for one image", "its x is 0.01 off the checkpoint's"),
        ("nothing", "its y is inf off"),
        ("other columns", "it answers with x, z instead of x, y"),
    ],
)
def test_what_answers_differently_is_refused(
    how: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = Format(lambda _: b"", lambda _: changed(how))
    monkeypatch.setitem(exporting.FORMATS, ".pt2", form)
    model = Extremes(8, channels=[2], hidden=[4]).eval()
    model.name = "mine"
    images = [noise(4, 1, 8, 8), noise(1, 1, 8, 8)]
    if not words:
        _, largest = export_file(model, images, ".pt2")
        assert largest == {"x": pytest.approx(1e-5, rel=0.1), "y": 0}
        return
    with pytest.raises(UserError, match=f"^mine cannot be exported to .pt2: .*{words}"):
        export_file(model, images, ".pt2")


def test_images_that_tell() -> None:
    data = SpotDataModule(image_size=15, cut_probability=0.3)
    shapes = {tuple(batch.shape[2:]) for batch in telling_images(SpotterRegressor(15), data)}
    assert (15, 15) in shapes
    assert max(max(shape) for shape in shapes) > 64
    assert all(batch[-1].isnan().any() for batch in telling_images(SpotterRegressor(15), data)[:1])
    batches = telling_images(CNNRegressor(16), PixelDataModule(image_size=16))
    assert {len(batch) for batch in batches} == {32, 1}
    assert {batch.shape[1:] for batch in batches} == {(1, 16, 16)}
    assert all(batch.isfinite().all() for batch in batches)
