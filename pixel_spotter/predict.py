"""Find the point in image files.

``python -m pixel_spotter.predict checkpoint=PATH images=FILE|FOLDER|GLOB [output=FILE.csv]``
"""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("predict")  # before anything slow is imported

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
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


def predict(
    model: PointRegressor, files: Sequence[Path], batch_size: int, failures: dict[Path, str]
) -> Iterator[pd.DataFrame]:
    """Yield what is found in the image files, a batch at a time: ``file``, ``x``, ``y`` and more.

    Those that cannot be read, or are not of the model's size, go into ``failures``, with reasons.
    """
    for start in range(0, len(files), batch_size):
        images: dict[Path, np.ndarray] = {}
        for file in files[start : start + batch_size]:
            try:
                images[file] = read_image(file, model.size)[0].numpy()
            except UnreadableImageError as error:
                failures[file] = str(error)
        columns = model.predict(np.stack([*images.values()]), batch_size) if images else {}
        if "flag" in columns:
            columns["flag"] = np.array(FLAGS)[columns["flag"].astype(int)]
        yield pd.DataFrame({"file": [*images], **columns})


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
        written: Any = {"index": False, "float_format": "%.4f", "na_rep": "nan"}
        begun = False
        for found in predict(model, files, cfg.batch_size, failures):
            if len(found):
                found.to_csv(table, header=not begun, lineterminator="\n", **written)
                begun = True
            table.flush()
            for file in [*failures][told:]:
                progress.write(f"{file}: {failures[file]}", file=sys.stderr)
            progress.update(len(found) + len(failures) - told)
            told = len(failures)
        if not begun:
            table.write("file,x,y\n")
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} files could not be predicted")


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


if __name__ == "__main__":
    run_command("predict", run)
