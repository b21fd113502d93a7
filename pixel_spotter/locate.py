"""Find every spot in image files, frame by frame; nothing needs to be trained.

``python -m pixel_spotter.locate images=FILE|FOLDER|GLOB [output=FILE.csv]``
"""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("locate")  # before anything slow is imported

import copy
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import pixel_spotter
from pixel_spotter import api
from pixel_spotter.arguments import require
from pixel_spotter.cli.start import pick_device, run_command
from pixel_spotter.cli.workers import most, shared
from pixel_spotter.coordinates import FLAGS, Size
from pixel_spotter.data.formats import FORMATS, Movie
from pixel_spotter.data.frames import (
    UnreadableImageError,
    find_images,
    open_frames,
    skipped_files,
)
from pixel_spotter.data.reading import MOST_PIXELS, Batch, Reading, kind_of
from pixel_spotter.data.remarks import skipped
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text
from pixel_spotter.models.locator import Locator, find, make_locator
from pixel_spotter.reporting.overview import write_overview
from pixel_spotter.tables import check_output, growing

_COMPARED_PX = 128
"""Of so large a part of each file, noise is compared with that of others."""

_WORTH_S = 5.0
"""Another process takes seconds to start, and is worth it for so much work."""

_TIMES = 60
"""So many times the memory of its frames a process takes that finds their spots."""

Note: TypeAlias = tuple[list[tuple[int, int]], dict[str, Any]]
"""Places of frames, and what is known once they are done."""

DIGITS = 5
"""Of all columns, after the point."""

COLUMNS = (
    *("file", "frame", "x", "y", "sd_x", "sd_y", "corr_xy", "photons", "background"),
    *("sigma_px", "score", "flag"),
)
"""Of a table; one of a psf that was measured has no ``sigma_px``."""


def run(cfg: DictConfig) -> None:
    """Locate what the config asks for; the files that failed are named, then end in an error."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    output = check_settings(settings)
    unlearned = make_locator(
        settings["camera"],
        settings["psf"],
        settings["false_alarms"],
        settings["checkpoint"],
        settings["trust"],
    )
    device = pick_device(cfg.device)
    files = find_images(str(cfg.images))
    check_apart(settings, output, files)
    if others := skipped_files(str(cfg.images)):
        print(skipped(others), file=sys.stderr)
    told = {name: settings[name] for name in ("false_alarms", "camera", "psf", "checkpoint")}
    stats = [(str(file), file.stat()) for file in files]
    work = {**told, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}
    reading = Reading(files, settings["camera"]["saturation"])
    locators: dict[str, Locator] = {}  # by the kind of files that they have learned from

    def show(table: Path) -> None:
        assert output is not None
        if settings["overview"] is not None:
            path, found = Path(str(settings["overview"])), read_back(table)
            write_overview(path, found, read_frame, about(told, locators, files, output))

    def finish(part: Path) -> None:
        show(part)
        assert output is not None
        movie = Movie(*extent(files), settings["pixel_nm"], about(told, locators, files, output))
        FORMATS[settings["format"]](numbered(part, files), output, movie)

    other = finish if settings["format"] in FORMATS else None
    found = 0
    with reading.progress, growing(output, DIGITS, work, other) as table:
        place = table.place
        after = tuple(place.get("after", (-1, -1)))
        found = place.get("found", 0)
        for kind, estimated in place.get("estimated", {}).items():
            locators[kind] = copy.copy(unlearned)
            locators[kind].restore(estimated)
        reading.guessed.update(place.get("full", {}))
        for file, reasons in place.get("failures", {}).items():
            for reason in reasons:
                reading.fail(Path(file), reason)
        if place:
            print(f"goes on after frame {after[1]} of {files[after[0]]}", file=sys.stderr)
        for rows, now in located(
            reading, unlearned, device, after, locators, settings["processes"]
        ):
            found += len(rows)
            place = {**now, "found": found}
            table.add(rows, place)
        if not place:  # no frame could be read
            names = (name for name in COLUMNS if unlearned.psf.has_width or name != "sigma_px")
            table.add(pd.DataFrame(columns=[*names]))
    if output is not None and other is None:
        words = yaml.safe_dump(about(told, locators, files, output), sort_keys=False)
        write_text(output.with_suffix(".yaml"), words)
        show(output)
    for line in reading.remarks.lines():
        print(line, file=sys.stderr)
    print(f"{found} spots", file=sys.stderr)
    if failed := reading.failures:
        raise UserError(f"{len(failed)} of {len(files)} files could not be read, or not in whole")


def located(
    reading: Reading,
    unlearned: Locator,
    device: torch.device,
    after: tuple[int, int] = (-1, -1),
    locators: dict[str, Locator] | None = None,
    processes: int | None = 1,
) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Yield the spots of a batch of frames after another, and the place up to which that is all.

    Args:
        reading: of the files.
        unlearned: what is told; for each kind of files it learns anew, and what, is said.
        device: where to compute.
        after: a place, a file's number and that of its frame.
        locators: those that have learned, by the kind of files; others are added.
        processes: so many at most share what takes long, on a CPU; None: as many as can be.
    """
    locators = {} if locators is None else locators

    def jobs() -> Iterator[tuple[tuple[Locator, np.ndarray, torch.device], Note]]:
        for batch in reading.batches(after):
            locator = copy.copy(locators.get(batch.kind, unlearned))
            locator.saturation = reading.full(batch)
            counts = torch.from_numpy(batch.counts).to(device)
            if learned(locator, batch, counts, locators, reading):
                place = {
                    "after": batch.places[-1],
                    "estimated": {kind: one.estimated for kind, one in locators.items()},
                    "full": {**reading.guessed},
                    "failures": {str(file): [*why] for file, why in reading.failures.items()},
                }
                yield (locator, batch.counts, device), (batch.places, place)

    at_once = processes if device.type == "cpu" else 1
    for columns, (places, place) in shared_if_long(jobs(), reading, at_once):
        yield as_rows(columns, places, reading.files), place


def shared_if_long(
    jobs: Iterator[tuple[tuple[Locator, np.ndarray, torch.device], Note]],
    reading: Reading,
    at_most: int | None,
) -> Iterator[tuple[dict[str, np.ndarray], Note]]:
    """Yield what is found of jobs, by other processes once these are worth their start."""
    begun_s, frames = time.monotonic(), 0
    for job, note in jobs:
        yield find(*job), note
        frames += len(note[0])
        left_s = (time.monotonic() - begun_s) / frames * reading.left
        each = _TIMES * max(job[1].nbytes, 4 * MOST_PIXELS)  # other files may have more
        processes = min(at_most or most(each), int(left_s / _WORTH_S))
        if processes > 1:
            yield from shared(find, jobs, processes)


def learned(
    locator: Locator, batch: Batch, counts: Tensor, locators: dict[str, Locator], reading: Reading
) -> bool:
    """Have a locator learn from the first batch of a kind, and tell what there is to be told.

    Returns:
        Whether it can be used: what cannot be learned from is an error at the beginning, and no
        reason to end once others of another kind were.
    """
    first = reading.files[batch.places[0][0]]
    if batch.kind not in locators:
        try:
            lines = locator.learn(counts)
        except UserError as error:
            if not locators:
                of = f"{first}: " if len(reading.files) > 1 else ""
                raise UserError(f"{of}{error}") from error
            for number, _ in batch.places:
                reading.fail(reading.files[number], str(error))
            return False
        of = f"{first}, of another kind: " if locators else ""
        for line in lines:
            reading.say(f"{of}{line}")
        locators[batch.kind] = locator
    reading.compare(batch, lambda k: locator.noise_ratio(counts[k : k + 1], _COMPARED_PX))
    try:
        locator.refuse(counts)
    except UserError as error:
        reading.remarks.add(first, str(error))
    return True


def check_settings(settings: Mapping[str, Any]) -> Path | None:
    """Return the output; refuse what could not be written in the end."""
    formats, form, nm = ["csv", *FORMATS], settings["format"], settings["pixel_nm"]
    require(form in formats, "format", f"one of {', '.join(formats)}", form)
    fits = nm is None or (type(nm) in (int, float) and 0 < nm < float("inf"))
    require(fits, "pixel_nm", "a pixel's side in nm, or null", nm)
    many = settings["processes"]
    fits = many is None or (type(many) is int and many > 0)
    require(fits, "processes", "how many share the work, at least 1, or null", many)
    if form == "thunderstorm" and nm is None:
        raise UserError("format=thunderstorm tells positions in nm: give pixel_nm=")
    if settings["output"] is None:
        if form != "csv" or settings["overview"] is not None:
            asked = f"format={form}" if form != "csv" else "overview="
            raise UserError(f"{asked} needs an output=")
        return None
    if settings["overview"] is not None:
        check_output(Path(str(settings["overview"])), "overview")
    output = Path(str(settings["output"]))
    check_output(output)
    return output


def check_apart(settings: Mapping[str, Any], output: Path | None, files: Sequence[Path]) -> None:
    """Refuse to write over an image, or two files under one name."""
    if output is None:
        return
    names = {"output": output}
    if settings["format"] in ("csv", "picasso"):
        names["its YAML"] = beside = output.with_suffix(".yaml")
        if beside.exists() and (of := table_of(beside)) != output.name:
            is_of = f"is that of {of}" if of else "is not one of locate"
            raise UserError(f"{beside} would be replaced, and {is_of}: give output= another name")
    if settings["overview"] is not None:
        names["overview"] = Path(str(settings["overview"]))
    taken = {file.resolve(): "one of images" for file in files}
    for name, path in names.items():
        if other := taken.get(path.resolve()):
            raise UserError(f"{path} would be {name} and {other}: give another name")
        taken[path.resolve()] = name


def table_of(path: Path) -> str | None:
    """Return the name of the table that a YAML beside it was written for; None of any other."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        for words in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if isinstance(words, dict) and "pixel_spotter" in words:
                return str(words.get("table"))
    return None


def as_rows(
    columns: Mapping[str, np.ndarray], places: Sequence[tuple[int, int]], files: Sequence[Path]
) -> pd.DataFrame:
    """Return a table of columns, whose ``frame`` counts places, with files and their frames."""
    named = dict(columns)
    index = named.pop("frame")
    flags = np.array(FLAGS)[named.pop("flag").astype(int)]
    of = np.array([files[number] for number, _ in places], dtype=object)[index]
    frame = np.array([frame for _, frame in places])[index]
    return pd.DataFrame({"file": of, "frame": frame, **named, "flag": flags})


def extent(files: Sequence[Path]) -> tuple[Size, int]:
    """Return the size of the first file's frames, and how many frames all files have."""
    size, count = (0, 0), 0
    for file in files:
        try:
            with open_frames(file) as frames:
                size, count = size if count else frames.size, count + frames.count
        except UnreadableImageError:  # which was told
            continue
    return size, count


def numbered(part: Path, files: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """Read a table back, a part at a time, its frames numbered through all files."""
    first, offsets = 0, {}
    for file in files:
        offsets[str(file)] = first
        first += extent([file])[1]
    for table in read_back(part, chunksize=100_000):
        table["frame"] += table["file"].astype(str).map(offsets).fillna(0).astype(int)
        yield table


def read_back(table: Path, **options: Any) -> Any:
    """Read a table that was written; flags are text, and files as they are called."""
    return pd.read_csv(
        table,
        dtype={"flag": str, "file": str},
        keep_default_na=False,
        na_values=dict.fromkeys(("x", "y", "sd_x", "sd_y", "corr_xy", "sigma_px"), "nan"),
        encoding="utf-8",
        encoding_errors="surrogateescape",
        **options,
    )


def read_frame(file: str, frame: int) -> np.ndarray:
    """Return a frame of a file, counts (H, W)."""
    with open_frames(Path(file), gaps=True) as frames:
        return frames.read(frame)


def about(
    told: Mapping[str, Any], locators: Mapping[str, Locator], files: Sequence[Path], table: Path
) -> dict[str, Any]:
    """Say how the spots were found, in plain values; what was estimated, of each kind of files."""
    of_kinds: dict[str, dict[str, Any]] = {
        kind: {
            f"psf.{name}" if name in ("sigma_px", "ratio") else f"camera.{name}": value
            for name, value in locator.estimated.items()
        }
        for kind, locator in locators.items()
    }
    estimated = next(iter(of_kinds.values()), {})
    if len(of_kinds) > 1 and any(of_kinds.values()):
        estimated = {kind: {"files": [], **one} for kind, one in of_kinds.items()}
        for file in files:
            with suppress(UnreadableImageError), open_frames(file) as frames:
                if (kind := kind_of(frames)) in estimated:
                    estimated[kind]["files"].append(str(file))
    return {
        "pixel_spotter": pixel_spotter.__version__,
        "table": table.name,
        "files": [str(file) for file in files],
        **told,
        "estimated": estimated,
    }


class _Callable(ModuleType):
    """Has ``pixel_spotter.locate(frames)`` be what it is, also once this module is imported."""

    def __call__(self, *arguments: Any, **settings: Any) -> pd.DataFrame:
        return api.locate(*arguments, **settings)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    run_command("locate", run)
