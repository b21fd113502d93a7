"""Find the point in image files, frame by frame.

``python -m pixel_spotter.predict checkpoint=PATH images=FILE|FOLDER|GLOB [output=FILE.csv]``
"""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("predict")  # before anything slow is imported

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from tqdm import tqdm

from pixel_spotter.arguments import require
from pixel_spotter.cli.start import pick_device, run_command
from pixel_spotter.coordinates import FLAGS
from pixel_spotter.data.frames import (
    Frames,
    UnreadableImageError,
    find_images,
    open_frames,
    skipped_files,
)
from pixel_spotter.data.remarks import Remarks, skipped
from pixel_spotter.errors import UserError
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.loading import load_model
from pixel_spotter.tables import check_output, growing

MOST_PIXELS = 2**24
"""So many pixels, of whole images, are predicted at once at most."""


class Scale(NamedTuple):
    """What is black and white in files, in their own numbers; None is what they declare."""

    black: float | None = None
    white: float | None = None

    def apply(self, frames: Frames, counts: np.ndarray) -> np.ndarray:
        """Return a file's frame (H, W) with 0 where it is black and 1 where it is white.

        Raises:
            UnreadableImageError: if nothing says what is white.
        """
        white = frames.white if self.white is None else self.white
        black = frames.black if self.black is None else self.black
        if white is None:
            kind = "floating-point values beyond 0 to 1" if frames.floating else "large numbers"
            raise UnreadableImageError(f"has {kind} and does not say what is white: give white=")
        if white <= black:
            raise UnreadableImageError(f"has its white, {white:g}, not above black={black:g}")
        return (counts - np.float32(black)) / np.float32(white - black)


class Found(NamedTuple):
    """An image to predict, (H, W) from 0 to 1: a frame of a file."""

    file: Path
    frame: int
    image: np.ndarray


def predict(
    model: PointRegressor,
    files: Iterable[Path],
    batch_size: int,
    failures: dict[Path, list[str]],
    scale: Scale | None = None,
    remarks: Remarks | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield what is found in the image files' frames, a batch at a time.

    Columns are ``file``, ``x``, ``y``, what else the model knows, ``score``, ``flag`` and
    ``frame``, from 0.
    What cannot be read, or is not of the model's size, goes into ``failures``, with reasons; what
    was decided about files' values, or is doubtful, into ``remarks``.
    """
    images = _images(model, files, failures, scale or Scale(), remarks or Remarks())
    for batch in _batches(images, batch_size):
        stack = np.stack([found.image for found in batch])
        try:
            columns = model.predict(stack, batch_size)
        except ValueError as error:
            if stack.shape[1:] == model.size:
                raise
            for found in batch:  # too small for a model that takes any other size
                failures.setdefault(found.file, []).append(f"cannot be predicted: {error}")
            continue
        flag = np.array(FLAGS)[columns.pop("flag").astype(int)]
        place = {"file": [found.file for found in batch]}
        yield pd.DataFrame(
            {**place, **columns, "flag": flag, "frame": [found.frame for found in batch]}
        )


def _images(
    model: PointRegressor,
    files: Iterable[Path],
    failures: dict[Path, list[str]],
    scale: Scale,
    remarks: Remarks,
) -> Iterator[Found]:
    """Yield the frames that can be read, of all files, and say why others cannot."""
    for file in files:
        reasons: list[str] = []
        try:
            with open_frames(file) as frames:
                if frames.size != model.size and not model.any_size:
                    (height, width), (taken, wide) = frames.size, model.size
                    raise UnreadableImageError(
                        f"is {height}x{width} px (height x width), the model takes {taken}x{wide}"
                    )
                for note in frames.notes:
                    remarks.add(file, note)
                brightest = 0.0
                for frame, counts in frames.readable(reasons):
                    brightest = max(brightest, float(counts.max()))
                    yield Found(file, frame, scale.apply(frames, counts))
                if scale.white is None and not frames.floating and frames.white is not None:
                    remarks.add_if_dim(file, brightest, frames.white)
        except UnreadableImageError as error:
            reasons.append(str(error))
        if reasons:
            failures[file] = [*failures.get(file, []), *reasons]


def _batches(images: Iterable[Found], batch_size: int) -> Iterator[list[Found]]:
    """Gather images of equal size, so many at most, and no more than memory is meant for."""
    batch: list[Found] = []
    for found in images:
        same = batch and batch[0].image.shape == found.image.shape
        if batch and (not same or (len(batch) + 1) * found.image.size > MOST_PIXELS):
            yield batch
            batch = []
        batch.append(found)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def run(cfg: DictConfig) -> None:
    """Predict what the config asks for; the files that failed are named, then end in an error."""
    whole = type(cfg.batch_size) is int and cfg.batch_size >= 1
    require(whole, "batch_size", "a whole number of at least 1", cfg.batch_size)
    scale = Scale(_number("black", cfg.black), _number("white", cfg.white))
    if scale.black is not None and scale.white is not None:
        require(scale.white > scale.black, "white", f"more than black={scale.black:g}", cfg.white)
    output = None if cfg.output is None else Path(str(cfg.output))
    if output is not None:
        check_output(output)
    files = find_images(str(cfg.images))
    others = skipped_files(str(cfg.images))
    model, _ = load_model(str(cfg.checkpoint), cfg.trust)
    if model.in_photons:
        raise UserError(
            f"checkpoint={cfg.checkpoint} is of a model for images in photons, and files do not "
            f"say how many their counts are: its predict() in Python takes arrays of photons"
        )
    model.to(pick_device(cfg.device))
    if others:
        print(skipped(others), file=sys.stderr)

    failures: dict[Path, list[str]] = {}
    told: dict[Path, int] = {}
    remarks = Remarks()
    answered: set[Path] = set()
    progress = tqdm(files, unit="file", disable=not sys.stderr.isatty())
    with growing(output, digits=4) as table, progress:

        def tell() -> None:
            for file, reasons in failures.items():
                for reason in reasons[told.get(file, 0) :]:
                    progress.write(f"{file}: {reason}", file=sys.stderr)
                told[file] = len(reasons)

        for found in predict(model, progress, cfg.batch_size, failures, scale, remarks):
            table.add(found)
            answered.update(found["file"])
            tell()
        tell()
        if not answered:
            table.add(pd.DataFrame(columns=["file", "x", "y", "score", "flag", "frame"]))
    for line in remarks.lines():
        print(line, file=sys.stderr)
    if failures:
        partly = len(answered & failures.keys())
        words = f", {partly} of them in part" if partly else ""
        raise UserError(f"{len(failures)} of {len(files)} files could not be predicted{words}")


def _number(name: str, value: Any) -> float | None:
    """Read a setting that is a number or null."""
    if value is None:
        return None
    fits = type(value) in (int, float) and np.isfinite(value)
    require(fits, name, "a number, in the file's own values, or null", value)
    return float(value)


if __name__ == "__main__":
    run_command("predict", run)
