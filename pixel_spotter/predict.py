"""Find the point in image files.

``python -m pixel_spotter.predict checkpoint=PATH images=FILE|FOLDER|GLOB [output=FILE.csv]``
"""

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from pixel_spotter.cli.start import pick_device, run_command
from pixel_spotter.data.frames import UnreadableImageError, find_images, read_image
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.training.checkpoints import load_model

Prediction = tuple[Path, list[float]]
"""A file, and what was found in it: x and y, px, then the model's ``extras``."""


def predict(
    model: PointRegressor, files: Sequence[Path], batch_size: int, failures: dict[Path, str]
) -> Iterator[Prediction]:
    """Yield the prediction of each image file that can be read.

    Args:
        model: in eval mode, on the device to use.
        files: image files of the model's size.
        batch_size: images predicted at a time.
        failures: takes up the files that cannot be read, each with its reason.
    """
    for start in range(0, len(files), batch_size):
        readable: dict[Path, Tensor] = {}
        for file in files[start : start + batch_size]:
            try:
                readable[file] = read_image(file, model.size)
            except UnreadableImageError as error:
                failures[file] = str(error)
        if readable:
            with torch.inference_mode():
                images = torch.stack(list(readable.values())).to(model.device)
                found = torch.cat(model.estimate(images), dim=1)
            yield from zip(readable, found.tolist(), strict=True)


def run(cfg: DictConfig) -> None:
    """Predict what the config asks for; the files that failed are named, then end in an error."""
    if type(cfg.batch_size) is not int or cfg.batch_size < 1:
        raise UserError(f"batch_size must be a whole number of at least 1, got {cfg.batch_size}")
    output = None if cfg.output is None else Path(str(cfg.output))
    if output is not None and (not output.name or (output.exists() and not output.is_file())):
        raise UserError(f"output={output} cannot be replaced by a file, give another name")
    if output is not None:
        nearest = next(folder for folder in output.absolute().parents if folder.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
            raise UserError(f"output={output}: {nearest} is not a folder that can be written to")
    files = find_images(str(cfg.images))
    model, _ = load_model(Path(str(cfg.checkpoint)))
    model.to(pick_device(cfg.device))

    failures: dict[Path, str] = {}
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "x", "y", *model.extras])
    for file, found in predict(model, files, cfg.batch_size, failures):
        writer.writerow([file, *(f"{value:.4f}" for value in found)])

    if output is None:
        sys.stdout.write(table.getvalue())
    else:
        write_text(output, table.getvalue())
    for file, reason in failures.items():
        print(f"{file}: {reason}", file=sys.stderr)
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} files could not be predicted")


def main() -> None:
    """Run the command."""
    run_command("predict", run, paths=("checkpoint", "images", "output"))


if __name__ == "__main__":
    main()
