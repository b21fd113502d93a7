"""Measure the blog's grid by an earlier version of this package and by this one.

    python benchmarks/grid.py
    python benchmarks/grid.py --model resnet18_scratch --images 128
    OMP_NUM_THREADS=1 python benchmarks/grid.py    # with as many threads, figures are the same

Each version runs the same documented command, ``experiment=blog``, as it places cells on cores by
itself; the two take turns. Times are those of the whole command, start and report included; ratios
are of the same round, median [min, max]. Figures are compared cell by cell. The earlier version is
taken out of the repository's history; words at the end are settings for both.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pixel_spotter import runs

ROOT = Path(__file__).parents[1]
VERSION_0_1 = "48f4bb8"
"""The last commit whose version is 0.1.0."""
Cells = dict[str, dict[str, Any]]
"""What ``metrics.json`` says of each cell."""


class Grid(NamedTuple):
    """What a version's run of the grid took, s, and what its cells found."""

    wall_s: float
    cpu_s: float
    cells: Cells


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    settings = [f"model={arguments.model}", *arguments.settings]
    if arguments.images is not None:
        settings.append(f"data.train_samples={arguments.images}")
    rounds: list[tuple[Grid, Grid]] = []
    with tempfile.TemporaryDirectory() as folder:
        take_out(arguments.before, Path(folder) / "before")
        for number in range(arguments.rounds):
            there = Path(folder) / str(number)
            before = run_grid(Path(folder) / "before", there / "before", settings)
            rounds.append((before, run_grid(ROOT, there / "now", settings)))
    print("\n".join(report(rounds)))


def take_out(commit: str, folder: Path) -> None:
    """Write what the repository held at a commit into a folder."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def run_grid(package: Path, folder: Path, settings: Sequence[str]) -> Grid:
    """Run the blog's grid by the package in one folder, with its outputs in another."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pixel_spotter.train", "experiment=blog", *settings]
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "log").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdout=log, stderr=log, check=False
        )
    wall_s, used = time.monotonic() - start_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        sys.exit(
            f"{' '.join(command)} ended with {ended.returncode}:\n{(folder / 'log').read_text()}"
        )
    cells = {}
    for file in sorted(folder.glob(f"outputs/sweeps/*/*/{runs.METRICS}")):
        found = json.loads(file.read_text())
        cells[", ".join(f"{key} {found[key]}" for key in ("model", "lr", "epochs"))] = found
    return Grid(wall_s, cpu_of(used) - cpu_of(before), cells)


def cpu_of(used: resource.struct_rusage) -> float:
    """Return the processor's time, the program's own and the system's for it, s."""
    return used.ru_utime + used.ru_stime


def report(rounds: Sequence[tuple[Grid, Grid]]) -> list[str]:
    """Return the lines that say what came of it, as Markdown."""
    lines = ["| | before (s) | now (s) | now / before |", "|---|---|---|---|"]
    for name, of in (("wall clock", "wall_s"), ("processor", "cpu_s")):
        pairs = [(getattr(before, of), getattr(now, of)) for before, now in rounds]
        ratios = [now / before for before, now in pairs]
        seconds = (
            ", ".join(f"{value:.0f}" for value in column) for column in zip(*pairs, strict=True)
        )
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        lines.append(f"| {name} | {' | '.join(seconds)} | {spread} |")
    before, now = rounds[-1]
    if before.cells.keys() != now.cells.keys():
        sys.exit(f"not the same cells: {[*before.cells]} and {[*now.cells]}")
    lines += ["", "| cell | error before (px) | error now (px) | |", "|---|---|---|---|"]
    for name, found in before.cells.items():
        errors = " | ".join(f"{one['test/mean_error_px']:.6f}" for one in (found, now.cells[name]))
        lines.append(f"| {name} | {errors} | {compared(found, now.cells[name])} |")
    threads = sorted({(one["threads"], now.cells[k]["threads"]) for k, one in before.cells.items()})
    lines += ["", f"Threads of a cell, before and now: {threads}"]
    return lines


def compared(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Say how far the test's figures that two runs both have agree."""
    shared = [key for key in one if key.startswith("test/") and key in other]
    furthest = max(abs(one[key] - other[key]) for key in shared)
    return f"{len(shared)} figures equal" if furthest == 0 else f"up to {furthest:.2g} apart"


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--before", default=VERSION_0_1, help="commit of the earlier version")
    parser.add_argument("--model", default="cnn", help="cnn, resnet18_scratch")
    parser.add_argument("--images", type=int, help="training images; default: the blog's 2500")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("settings", nargs="*", help="of both: trainer.max_epochs=2,4, ...")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
