"""Grids of thousands of finished cells: what skipping them and reporting on them costs.

    python benchmarks/cells.py make 100 settings 100 seeds   # outputs/sweeps/cells, 10,000 cells
    python benchmarks/cells.py time train                    # the grid's command again
    python benchmarks/cells.py time report

The first trains one cell and copies its folder, with other learning rates, seeds and errors; files
that would be the same are links to its. The others run the commands of the package that is found
first, and print their seconds, those of a core, and the most memory that they took.
"""

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from pixel_spotter import runs
from pixel_spotter.coordinates import Columns
from pixel_spotter.metrics import figures_of

FOLDER = Path("outputs/sweeps/cells")
SMALL = [
    *("--multirun", "name=cells", "trainer=cpu", "trainer.enable_progress_bar=false"),
    *("model=cnn", "model.hidden=[8]", "trainer.max_epochs=2", "data.train_samples=64"),
]
RATE, SEED = "0.001", "0"
_CHANGED = (runs.METRICS, runs.CONFIG, runs.OVERRIDES, runs.HYDRA)


def command(rates: list[str], seeds: int) -> list[str]:
    """Return the command of the whole grid."""
    return [*SMALL, f"optim.lr={','.join(rates)}", f"seed=range({seeds})"]


def make(settings: int, seeds: int) -> None:
    """Train one cell, and make the grid's others of it."""
    first = [*SMALL, f"optim.lr={RATE}", f"seed={SEED}"]
    subprocess.run([sys.executable, "-m", "pixel_spotter.train", *first], check=True)
    (cell,) = FOLDER.glob(f"*/{runs.METRICS}")
    rates = [f"{float(RATE) + k / 1e6:g}" for k in range(settings)]
    for rate in rates:
        for seed in range(seeds):
            copy(cell.parent, rate, seed)
    words = {key: value for key, _, value in (word.partition("=") for word in SMALL[2:])}
    planned = {
        name_of(cell.parent, rate, seed): {**words, "optim.lr": rate, "seed": str(seed)}
        for rate in rates
        for seed in range(seeds)
    }
    (FOLDER / runs.PLAN).unlink()
    runs.add_to_plan(FOLDER, command(rates, seeds)[1:], planned)


def name_of(cell: Path, rate: str, seed: int) -> str:
    """Return the name of the folder of a cell like another one."""
    return cell.name.replace(f"lr={RATE}", f"lr={rate}").replace(f"seed={SEED}", f"seed={seed}")


def copy(cell: Path, rate: str, seed: int) -> None:
    """Make a finished cell of another one."""
    folder = cell.with_name(name_of(cell, rate, seed))
    if folder == cell:
        return
    worse = random.Random(f"{rate} {seed}").uniform(1, 2)
    columns = scaled(runs.read_predictions(cell), worse)
    runs.write_predictions(folder, columns)
    own, images = runs.read_images(cell, runs.WORST)
    runs.write_images(folder, runs.WORST, scaled(own, worse), images)
    for file in cell.rglob("*"):
        new = folder / file.relative_to(cell)
        if file.is_dir() or file.name == runs.LOCK or new.exists():
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        if str(file.relative_to(cell)) not in _CHANGED:
            os.link(file, new)
            continue
        text = file.read_text()
        if file.name == runs.METRICS:
            figures = json.loads(text) | {"seed": seed, "lr": float(rate)}
            figures |= {f"test/{name}": value for name, value in figures_of(columns).items()}
            text = json.dumps(figures, indent=2)
        for key in (f"lr{sign}" for sign in ("=", ": ")):
            text = text.replace(f"{key}{RATE}\n", f"{key}{rate}\n")
        for key in (f"seed{sign}" for sign in ("=", ": ")):
            text = text.replace(f"{key}{SEED}\n", f"{key}{seed}\n")
        new.write_text(text)


def scaled(columns: Columns, factor: float) -> Columns:
    """Return predictions with errors so many times as large."""
    far = {
        k: columns[f"{k}_true"] + factor * (columns[k] - columns[f"{k}_true"]) for k in ("x", "y")
    }
    return columns | far


def timed(what: str) -> None:
    """Run a command on the grid; print what it took."""
    plan = runs.read_plan(FOLDER)["commands"][-1]
    words = ["--multirun", *plan] if what == "train" else ["sweep=cells"]
    start_s = time.monotonic()
    done = subprocess.run([sys.executable, "-m", f"pixel_spotter.{what}", *words], check=False)
    seconds = time.monotonic() - start_s
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    computed, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"{what}: {seconds:.1f} s, {computed:.1f} s of a core, {peak:.0f} MiB", end="")
    print(f", status {done.returncode}")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), int(sys.argv[4]))
    else:
        timed(sys.argv[2])
