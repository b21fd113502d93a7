"""A model as a file that others run: of ONNX, or of torch.export."""

import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import pixel_spotter
from pixel_spotter.coordinates import FLAGS, Columns
from pixel_spotter.data.base import PointData
from pixel_spotter.errors import UserError
from pixel_spotter.models.base import PointRegressor

TOLERANCE = 1e-3
"""What is small: a difference of so much, in a column's unit, or so much of its value."""

OPSET = 18
"""Of ONNX."""

FACTS = "pixel_spotter.json"
"""What of a file of torch.export says what is to be known of its model."""

Answer = Callable[[Tensor], Columns]


class Exported(NamedTuple):
    """A model as torch.export has it.

    Args:
        program: which answers with columns.
        columns: their names, in their order.
        facts: what is to be known of the model, plain values.
    """

    program: ExportedProgram
    columns: list[str]
    facts: dict[str, Any]


class _Estimate(nn.Module):
    """A model's `estimate`."""

    def __init__(self, model: PointRegressor) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Columns:
        return self.model.estimate(image)


def export_file(
    model: PointRegressor, images: Sequence[Tensor], ending: str
) -> tuple[bytes, dict[str, float]]:
    """Export a model in eval mode, and hold the file against it.

    Args:
        model: it then takes batches of any size, and images of any if it takes those here.
        images: batches (B, 1, H, W) on which both are asked.
        ending: of the file, one of `FORMATS`.

    Returns:
        The file's content, and by how much its columns differ at most from the model's.

    Raises:
        UserError: if it cannot be exported, naming it, or answers differently.
    """
    form = FORMATS[ending]
    try:
        with _quietly(), torch.no_grad():
            content = form.write(export(model))
            return content, differences(model, form.read(content), images)
    except UserError as error:
        raise UserError(f"{model.name} cannot be exported to {ending}: {error}") from error
    except Exception as error:  # of PyTorch, of ONNX, or of a model's own code
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0][:200]
        if "data-dependent" in str(error).lower():
            reason = "what it does next depends on what it has found, which such a file cannot say"
        raise UserError(f"{model.name} cannot be exported to {ending}: {reason}") from error


def export(model: PointRegressor) -> Exported:
    """Export a model in eval mode, or raise whatever PyTorch does."""
    height, width = model.size
    # Free sides must not be taken for those of training, nor the one for the other.
    sides = (height + 5, width + 8) if model.any_size else model.size
    free = (0, 2, 3) if model.any_size else (0,)
    image = torch.rand(3, 1, *sides, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(
        _Estimate(model),
        (image,),
        dynamic_shapes={"image": dict.fromkeys(free, Dim.DYNAMIC)},
        strict=True,  # where the length of a batch stays free
    )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # which names files of this machine
    columns = [*model.estimate(image)]
    facts = {
        "model": model.name,
        "pixel_spotter": pixel_spotter.__version__,
        "image": "photons" if model.in_photons else "0 is black, 1 is white",
        "image_size": list(model.size),
        "any_size": model.any_size,
        "columns": columns,
        "coordinates": "px; x to the right, y downwards, integers at pixel centres",
    }
    if "flag" in columns:
        facts["flags"] = list(FLAGS)
    return Exported(program, columns, facts)


def differences(
    model: PointRegressor, answer: Answer, images: Sequence[Tensor]
) -> dict[str, float]:
    """Return by how much answers differ at most from the model's, column by column.

    Raises:
        UserError: if that is not small, if there are other columns, or a value where the model has
            none.
    """
    largest: dict[str, float] = {}
    for image in images:
        expected, got = model.estimate(image), answer(image)
        if [*got] != [*expected]:
            raise UserError(f"it answers with {', '.join(got)} instead of {', '.join(expected)}")
        for name, column in expected.items():
            difference = (got[name].double() - column.double()).abs()
            difference[got[name].isnan() & column.isnan()] = 0
            difference.nan_to_num_(nan=torch.inf)
            largest[name] = max(largest.get(name, 0), float(difference.max()))
            if (difference > TOLERANCE * column.abs().nan_to_num().clamp(min=1)).any():
                size = f"{image.shape[2]}x{image.shape[3]} px"
                off = f"{largest[name]:.2g} off the checkpoint's"
                raise UserError(f"on images of {size}, its {name} is {off}")
    return largest


def to_onnx(exported: Exported) -> bytes:
    """Return an ONNX file, whose outputs are the columns."""
    made = torch.onnx.export(
        exported.program,
        (),
        opset_version=OPSET,
        custom_translation_table=_translations(),
        verbose=False,
    )
    assert made is not None
    proto: Any = made.model_proto
    graph, columns = proto.graph, exported.columns
    for dim, name in zip(
        graph.input[0].type.tensor_type.shape.dim, ("batch", "", "height", "width"), strict=True
    ):
        if dim.dim_param:
            dim.dim_param = name
    del graph.value_info[:]  # which has other names for these
    names = {name: f"{name}_" for name in columns}  # of what happens to be called like a column
    for output, name in zip(graph.output, columns, strict=True):
        names[output.name] = name
        output.name, output.type.tensor_type.shape.dim[0].dim_param = name, "batch"
    for node in graph.node:
        del node.metadata_props[:]
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for name, value in exported.facts.items():
        said = value if isinstance(value, str) else json.dumps(value)
        proto.metadata_props.add(key=name, value=said)
    return bytes(proto.SerializeToString())


def open_onnx(content: bytes) -> Answer:
    """Return what an ONNX file answers in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is fatal
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def answer(image: Tensor) -> Columns:
        found = session.run(names, {"image": image.numpy()})
        return dict(zip(names, map(torch.as_tensor, found), strict=True))

    return answer


def to_torch(exported: Exported) -> bytes:
    """Return a file of ``torch.export.save``."""
    content = io.BytesIO()
    facts = {FACTS: json.dumps(exported.facts)}
    torch.export.save(exported.program, content, extra_files=facts)
    return content.getvalue()


def open_torch(content: bytes) -> Answer:
    """Return what a file of ``torch.export.save`` answers."""
    answer: Answer = torch.export.load(io.BytesIO(content)).module()
    return answer


class Format(NamedTuple):
    """A kind of file: what writes it, and what reads it back."""

    write: Callable[[Exported], bytes]
    read: Callable[[bytes], Answer]


FORMATS = {".onnx": Format(to_onnx, open_onnx), ".pt2": Format(to_torch, open_torch)}
"""By the endings of files."""


def telling_images(model: PointRegressor, data: PointData) -> list[Tensor]:
    """Return batches on which a file can be held against its model, (B, 1, H, W) each.

    They are images as the model was trained on, of other sizes where it takes them, and with
    pixels without a value if it takes those; one batch has a single image.
    """
    image = data.batch("train", 0, torch.arange(min(32, data.counts["train"]))).image
    if model.takes_gaps:
        image = image.clone()
        image[-1, :, :2] = torch.nan
    batches = [image, image[:1]]
    if model.any_size:  # what is added is as bright as the edge
        batches += [
            F.pad(image[:count], sides, mode="replicate")
            for count, sides in ((7, (3, 6, 0, 2)), (1, (0, 1, 4, 0)), (2, (30, 41, 50, 20)))
        ]
    return batches


@contextmanager
def _quietly() -> Iterator[None]:
    """Have PyTorch say nothing of its own steps, of which it says a lot."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what PyTorch does not know how to say in ONNX."""
    from onnxscript import opset18

    op: Any = opset18  # whose own types do not know what traces it

    def remainder(value: Any, by: Any) -> Any:
        """By a number that is known only once there is an image, too."""
        by = op.CastLike(by, value)
        if value.dtype.is_floating_point():
            return op.Sub(value, op.Mul(op.Floor(op.Div(value, by)), by))
        return op.Mod(value, by)

    def nanmedian(value: Any, dim: int, keepdim: bool = False) -> Any:
        """The lower of two in the middle; nan of nothing."""
        axis = op.Constant(value_ints=[dim])
        zero, one, two = (op.Constant(value_ints=[number]) for number in (0, 1, 2))
        seen = op.Not(op.IsNaN(value))
        least, most = (op.CastLike(op.Constant(value_float=x), value) for x in (math.nan, math.inf))
        count = op.ReduceSum(op.Cast(seen, to=7), axis, keepdims=1)
        length = op.Gather(op.Shape(value), axis)
        ordered, index = op.TopK(op.Where(seen, value, most), length, axis=dim, largest=0)
        middle = op.Max(op.Div(op.Sub(count, one), two), zero)
        found = op.GatherElements(ordered, middle, axis=dim)
        found = op.Where(op.Greater(count, zero), found, least)
        index = op.GatherElements(index, middle, axis=dim)
        return (found, index) if keepdim else (op.Squeeze(found, axis), op.Squeeze(index, axis))

    aten = torch.ops.aten
    return {aten.remainder.Scalar: remainder, aten.nanmedian.dim: nanmedian}
