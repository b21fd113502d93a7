"""Find the point in image files.

``python -m pixel_spotter.predict checkpoint=PATH images=FILE|FOLDER|GLOB [output=FILE.csv]``
"""

from pixel_spotter.cli.help import help_if_asked

if __name__ == "__main__":
    help_if_asked("predict")  # before anything slow is imported

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from pixel_spotter import runs
from pixel_spotter.arguments import require
from pixel_spotter.cli.start import pick_device, run_command
from pixel_spotter.coordinates import FLAGS
from pixel_spotter.data.frames import UnreadableImageError, find_images, read_image
from pixel_spotter.errors import UserError
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.loading import load_model

Rows = dict[Path, dict[str, float]]
"""What was found in files: the model's columns, ``x`` and ``y``, px, first."""


def predict(
    model: PointRegressor, files: Sequence[Path], batch_size: int, failures: dict[Path, str]
) -> Iterator[Rows]:
    """Yield what is found in the image files that can be read, a batch at a time.

    Args:
        model: on the device to use.
        files: image files of the model's size.
        batch_size: images predicted at a time.
        failures: takes up the files that cannot be read, each with its reason.
    """
    for start in range(0, len(files), batch_size):
        images: dict[Path, np.ndarray] = {}
        for file in files[start : start + batch_size]:
            try:
                images[file] = read_image(file, model.size)[0].numpy()
            except UnreadableImageError as error:
                failures[file] = str(error)
        columns = model.predict(np.stack([*images.values()]), batch_size) if images else {}
        yield {
            file: {name: float(column[k]) for name, column in columns.items()}
            for k, file in enumerate(images)
        }


def run(cfg: DictConfig) -> None:
    """Predict what the config asks for; the files that failed are named, then end in an error."""
    whole = type(cfg.batch_size) is int and cfg.batch_size >= 1
    require(whole, "batch_size", "a whole number of at least 1", cfg.batch_size)
    output = None if cfg.output is None else Path(str(cfg.output))
    if output is not None:
        check_output(output)
    files = find_images(str(cfg.images))
    model, _ = load_model(str(cfg.checkpoint), cfg.trust)
    if model.in_photons:
        raise UserError(
            f"checkpoint={cfg.checkpoint} is of a model for images in photons, and files do not "
            f"say how many their counts are: its predict() in Python takes arrays of photons"
        )
    model.to(pick_device(cfg.device))

    failures: dict[Path, str] = {}
    told = 0
    progress = tqdm(total=len(files), unit="file", disable=not sys.stderr.isatty())
    with growing(output) as table, progress:
        writer = csv.writer(table, lineterminator="\n")
        columns: list[str] = []
        for found in predict(model, files, cfg.batch_size, failures):
            if found and not columns:
                columns = [*next(iter(found.values()))]
                writer.writerow(["file", *columns])
            for file, row in found.items():
                writer.writerow([file, *(_written(name, value) for name, value in row.items())])
            table.flush()
            for file in [*failures][told:]:
                progress.write(f"{file}: {failures[file]}", file=sys.stderr)
            progress.update(len(found) + len(failures) - told)
            told = len(failures)
        if not columns:
            writer.writerow(["file", "x", "y"])
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} files could not be predicted")


def _written(column: str, value: float) -> str:
    return FLAGS[int(value)] if column == "flag" else f"{value:.4f}"


@contextmanager
def growing(output: Path | None) -> Iterator[TextIO]:
    """Give a table to write to that grows as rows come: a file, or standard output.

    The file grows under the name ``OUTPUT.part`` and gets its own when it is complete; whatever
    ends the work early leaves what was found by then.
    """
    if output is None:
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # names that are no text
        yield sys.stdout
        return
    part, lock = (
        output.with_name(name) for name in (f"{output.name}.part", f".{output.name}.lock")
    )
    with runs.owned(output, lock):
        try:
            with part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as table:
                yield table
            part.replace(output)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = error.filename or str(part)
            print(f"what was found so far is in {part}", file=sys.stderr)
            raise
        finally:
            with suppress(OSError):  # some systems delete no open file
                lock.unlink()


def check_output(output: Path) -> None:
    """Refuse an output that could not be written in the end."""
    if not output.name or (output.exists() and not output.is_file()):
        raise UserError(f"output={output} cannot be replaced by a file, give another name")
    nearest = next(folder for folder in output.absolute().parents if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise UserError(f"output={output}: {nearest} is not a folder that can be written to")


def main() -> None:
    """Run the command."""
    run_command("predict", run)


if __name__ == "__main__":
    main()
