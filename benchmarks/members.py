"""What K members buy: the error of every choice of K members from trained ensembles.

    python benchmarks/members.py outputs/sweeps/compare

Reads the checkpoints of the ensembles in a sweep and prints a Markdown table: for each split and K,
the mean error on the test positions, averaged over all choices of K members, mean over seeds with
its 95% interval.
"""

import sys
from itertools import combinations
from pathlib import Path

import torch

from pixel_spotter import runs
from pixel_spotter.models.ensemble import EnsembleRegressor
from pixel_spotter.models.loading import load_model
from pixel_spotter.reporting.groups import SPLITS, estimate
from pixel_spotter.simulation.pixels import render_pixels


def errors_by_count(cell: Path) -> list[float]:
    """Return the mean test error, px, of 1, 2, ... members of one ensemble."""
    model, data = load_model(cell / runs.BEST)
    assert isinstance(model, EnsembleRegressor)
    xy = data.positions.test
    with torch.inference_mode():
        images = render_pixels(xy, data.size)
        answers = torch.stack([member(images) for member in model.members], dim=1)
    count = answers.shape[1]
    return [
        torch.stack(
            [
                (answers[:, list(chosen)].mean(dim=1) - xy).double().norm(dim=1).mean()
                for chosen in combinations(range(count), k)
            ]
        )
        .mean()
        .item()
        for k in range(1, count + 1)
    ]


def main() -> None:
    found: dict[str, list[list[float]]] = {}
    for path in sorted(Path(sys.argv[1]).glob(f"*/{runs.METRICS}")):
        metrics = runs.read_metrics(path.parent)
        if metrics["model"] == "ensemble":
            found.setdefault(metrics["split"], []).append(errors_by_count(path.parent))
    longest = max(len(errors) for cells in found.values() for errors in cells)
    print("| split | " + " | ".join(f"K = {k}" for k in range(1, longest + 1)) + " |")
    print("|---" * (longest + 1) + "|")
    for split in SPLITS:
        over_seeds = [estimate(errors) for errors in zip(*found.get(split, []), strict=True)]
        texts = [f"{e.mean:.3f} ± {e.half:.3f}" if e.half else f"{e.mean:.3f}" for e in over_seeds]
        if texts:
            print(f"| {split} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
