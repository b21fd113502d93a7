"""Measure how a grid's cost grows with its cells, epochs, samples and image size.

    OMP_NUM_THREADS=1 python benchmarks/growth.py

Each row is the command of the blog's CNN, in a process of its own, with one thing changed; times
are those of the processor, start, tests and report included.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from grid import ROOT, run_grid

CELLS, EPOCHS, SAMPLES, SIDES_PX = (
    (1, 2, 4, 8),
    (4, 8, 16, 32),
    (256, 512, 1024, 2048),
    (25, 50, 100, 200),
)
"""What is changed; otherwise it is one cell of 4 epochs of 512 images of 50x50 px."""


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("settings", nargs="*", help="of all rows: model.hidden=[8], ...")
    arguments = parser.parse_args(words)
    rows = {
        "cells": {n: settings(cells=n) for n in CELLS},
        "epochs": {n: settings(epochs=n) for n in EPOCHS},
        "samples": {n: settings(samples=n) for n in SAMPLES},
        "side of the image, px": {n: settings(side_px=n) for n in SIDES_PX},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, row in rows.items():
            taken = []
            for number, given in row.items():
                there = Path(folder) / f"{name} {number}"
                taken.append(run_grid(ROOT, there, [*given, *arguments.settings]).cpu_s)
            head = ", ".join(map(str, row))
            print(f"| {name}: {head} | {', '.join(f'{s:.1f}' for s in taken)} |", flush=True)


def settings(cells: int = 1, epochs: int = 4, samples: int = 512, side_px: int = 50) -> list[str]:
    """Return the words of a grid of so many cells, epochs each, samples an epoch, and px."""
    rates = ",".join(f"{(k + 1) / 1e4:g}" for k in range(cells))
    return [
        *("model=cnn", f"optim.lr={rates}", f"trainer.max_epochs={epochs}"),
        *(f"data.train_samples={samples}", f"data.image_size={side_px}"),
    ]


if __name__ == "__main__":
    main()
