"""Measure locate on real cameras' frames, of which nobody told it anything.

    python benchmarks/real_frames.py --particles stuck_particles.tif --stars star_field.tiff

Particles do not move: of those that ``stuck_particles.py`` calls isolated, how many are found in
each frame, how far their positions scatter, less what all of a frame share, and how often they are
within their own deviations; intervals (95%) are bootstraps over particles. A row has the gain and
offset that ``stuck_particles.py`` finds told as well.

Of stars nobody knows where they are. What is found in the image mirrored in brightness, twice the
background less the image, is none: so many ghosts may be among the stars, if noise is as likely to
be above the background as below it. The corners, a quarter of the image in four parts, and the
middle quarter tell where both lie.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from programs import SIDE
from scipy.ndimage import median_filter
from stuck_particles import calibrate, read_frames, repeats, single

from pixel_spotter.data.frames import open_frames
from pixel_spotter.models.locator import Locator

NEAR_PX = 2.0
"""An answer this close to a particle is one of it."""

AROUND_PX = 41
"""Side of what a pixel's background is the median of."""


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    figures = {}
    if options.particles:
        counts, full = read(options.particles)
        adjusted = read_frames(options.particles)
        gain, offset = calibrate(adjusted)
        x, y, _, _ = single((adjusted - offset) * gain, SIDE)
        places = np.stack([x, y], axis=1)
        print("| | isolated particles found | scatter (px) | within 1, 1.96 sd |")
        print("|---|---|---|---|")
        for name, told in (
            ("nothing told", {}),
            ("gain, offset", {"gain": gain, "offset": offset}),
        ):
            figures[name] = particles(counts, places, {**told, "saturation": full})
            row = "{found:.0f} of {all:.0f} | {scatter:.4f} [{low:.4f}, {high:.4f}]"
            row += " | {within_68:.1%}, {within_95:.1%}"
            print(f"| {name} | {row.format(**figures[name])} |")
    if options.stars:
        figures["stars"] = stars(*read(options.stars))
        print("\n| | found | in the corners | in the middle |\n|---|---|---|---|")
        for name in ("stars", "ghosts"):
            cells = [
                f"{figures['stars'][f'{name}{part}']:.0f}" for part in ("", "_corners", "_middle")
            ]
            print(f"| {name} | {' | '.join(cells)} |")
    return figures


def read(file: Path) -> tuple[torch.Tensor, float | None]:
    """Return all frames of a file, (F, H, W), counts, and what a pixel holds at most."""
    with open_frames(file) as frames:
        counts = np.stack([frames.read(frame) for frame in range(frames.count)])
        return torch.from_numpy(counts), None if frames.floating else frames.white


def particles(counts: torch.Tensor, places: np.ndarray, told: dict[str, Any]) -> dict[str, float]:
    """Return how many of some places (N, 2) have an answer in each frame, and how these scatter."""
    locator = Locator(**told)
    print(*locator.learn(counts), sep="\n")
    columns = {name: column.numpy() for name, column in locator(counts).items()}
    found = np.full((len(counts), len(places), 4), np.nan)
    for frame in range(len(counts)):
        rows = np.nonzero(columns["frame"] == frame)[0]
        xy = np.stack([columns["x"][rows], columns["y"][rows]], axis=1)
        away = np.linalg.norm(places[:, None] - xy, axis=2)
        nearest = rows[away.argmin(axis=1)]
        answers = np.stack([columns[name][nearest] for name in ("x", "y", "sd_x", "sd_y")], axis=1)
        near = away.min(axis=1) <= NEAR_PX
        found[frame, near] = answers[near]
    answered = np.isfinite(found).all(axis=(0, 2))
    fitted = np.nanmean(found[:, :, :2], axis=0)
    return {
        "found": answered.sum(),
        "all": len(places),
        **repeats(found[:, answered], fitted[answered]),
    }


def stars(counts: torch.Tensor, full: float | None) -> dict[str, float]:
    """Return how many stars and ghosts there are, in all, in the corners and in the middle."""
    locator = Locator(saturation=full)
    print("", *locator.learn(counts), sep="\n")
    background = torch.from_numpy(median_filter(counts.numpy(), (1, AROUND_PX, AROUND_PX)))
    figures = {}
    height, width = counts.shape[1:]
    for name, image in (("stars", counts), ("ghosts", 2 * background - counts)):
        columns = locator(image)
        away_x = ((columns["x"] + 0.5) / width - 0.5).abs()
        away_y = ((columns["y"] + 0.5) / height - 0.5).abs()
        figures[name] = float(len(away_x))
        figures[f"{name}_corners"] = float(((away_x > 0.25) & (away_y > 0.25)).sum())
        figures[f"{name}_middle"] = float(((away_x < 0.25) & (away_y < 0.25)).sum())
    return figures


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--particles", type=Path, help="frames of what does not move, a TIFF")
    parser.add_argument("--stars", type=Path, help="a picture of stars")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
