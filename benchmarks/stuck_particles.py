"""Measure how well a real camera's spots are found: the scatter of particles that do not move.

    python benchmarks/stuck_particles.py stuck_particles.tif --checkpoint best.ckpt

Reads the frames of one field of view, finds the isolated particles in their mean, and lets every
program of ``programs.py`` locate each of them in each frame, in the same crops. The scatter of a
particle's positions, less what all particles of a frame share, is the precision, and what the
programs' own deviations are held against. An answer that hardly moves scatters little, too: how far
it follows is the slope of a program's mean positions over those fitted to the mean of the frames,
across the particles. Prints a Markdown table; intervals (95%) are bootstraps over particles.

Gain and offset follow from the frames: from how pixels' variances over the frames grow with their
means. All noise then counts as that of light; how much of it is the camera's own, they do not tell.
"""

import argparse
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import answers
from PIL import Image, ImageSequence
from programs import SIDE, Spots, load_programs, versions
from scipy.ndimage import gaussian_filter, maximum_filter
from threadpoolctl import threadpool_limits

from pixel_spotter import estimators
from pixel_spotter.data.spots import SpotDataModule

APART_PX = 12
"""No other spot is closer to an isolated one."""


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    table = {}
    with threadpool_limits(1):
        programs = load_programs(options.checkpoint, options.only)
        side = max([SIDE, *(program.side | 1 for program in programs.values())])
        frames = read_frames(options.file)
        gain, offset = calibrate(frames)
        spots, bound = isolated((frames - offset) * gain, side)
        count = len(spots.frames) // len(frames)
        print(f"{count} particles in {len(frames)} frames, {spots.sigma_px:.2f} px wide;", end=" ")
        print(f"{gain:.1f} photons a count, {offset:.0f} counts of no light; {versions()}\n")
        print(f"| | scatter (px), bound {bound:.4f} | follows | within 1, 1.96 sd | no answer |")
        print("|---|---|---|---|---|")
        for name, program in programs.items():
            found = answers(program, spots).reshape(len(frames), count, 4)
            figures = {"bound": bound, **repeats(found, spots.start[:count, 0])}
            table[name] = figures
            cells = ["{scatter:.4f} [{low:.4f}, {high:.4f}]".format(**figures)]
            cells += ["{follows:.2f}".format(**figures)]
            known = "within_68" in figures
            cells += ["{within_68:.1%}, {within_95:.1%}".format(**figures) if known else ""]
            print(f"| {name} | {' | '.join(cells)} | {figures['no_answer']:.1%} |", flush=True)
    return table


def read_frames(file: Path) -> np.ndarray:
    """Return the frames of a file in counts, (M, H, W), all with the same median."""
    with Image.open(file) as image:
        frames = np.stack([np.array(one, float) for one in ImageSequence.Iterator(image)])
    level = np.median(frames, axis=(1, 2), keepdims=True)
    return frames - level + level.mean()


def calibrate(frames: np.ndarray) -> tuple[float, float]:
    """Return photons per count, and the counts of no light: variance = (count - offset) / gain.

    A straight line through the variances of pixels about equally bright. They are grouped by what
    is around them, as their own noise would put the brighter half of dark pixels into brighter
    groups; all that may be background is one group.
    """
    mean, variance = frames.mean(axis=0), frames.var(axis=0, ddof=1)
    around = gaussian_filter(mean, 1.0) - np.median(mean)
    least = 4 * np.sqrt(variance.mean() / len(frames)) / np.sqrt(4 * np.pi)  # of smoothed noise
    edges = [-np.inf, *np.linspace(least, around.max(), 12)]
    groups = [(around >= low) & (around < high) for low, high in pairwise(edges)]
    groups = [group for group in groups if group.sum() >= 10]
    count = np.array([group.sum() for group in groups])
    means, variances = (np.array([one[g].mean() for g in groups]) for one in (mean, variance))
    line = np.array([0.0, variance.mean()])
    for _ in range(3):  # a variance's own error grows with it
        line = np.polyfit(means, variances, 1, w=np.sqrt(count) / np.polyval(line, means))
    return float(1 / line[0]), float(-line[1] / line[0])


def single(
    photons: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, dict[str, torch.Tensor], float]:
    """Return the pixels of single spots that have no others around them.

    Args:
        photons: frames (M, H, W).
        side: of the images that fit around them, px.

    Returns:
        ``x`` and ``y``, (N,), what is fitted to the frames' mean in `SIDE` pixels around them, and
        their width, px.
    """
    image = photons.mean(axis=0)
    seen = gaussian_filter(image, 1.0) - np.median(image)
    noise = 1.4826 * np.median(np.abs(seen))
    y, x = np.nonzero((seen == maximum_filter(seen, 5)) & (seen > 6 * noise))
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + np.diag(np.full(len(x), np.inf))
    chosen = (apart.min(axis=1) >= APART_PX) & (seen[y, x] > seen[y, x].max() / 2)
    for place, length in ((x, image.shape[1]), (y, image.shape[0])):
        chosen &= (place >= side // 2) & (place < length - side // 2)
    x, y = x[chosen], y[chosen]

    settings: dict[str, Any] = {"read_noise": 0.0, "margin_px": SIDE // 2 - 1}
    averages = torch.from_numpy(_around(image[None], x, y, SIDE))
    theta = estimators.maximum_likelihood(averages, **settings)
    width = theta["sigma_px"].median().item()
    alone = (theta["sigma_px"] / width - 1).abs() < 0.2
    names = ("x", "y", "photons", "background", "sigma_px")
    truth = {f"{name}_true": theta[name][alone] for name in names}
    return x[alone.numpy()], y[alone.numpy()], truth, width


def isolated(photons: np.ndarray, side: int) -> tuple[Spots, float]:
    """Return single spots that have no others around them, and the bound of their positions, px.

    Args:
        photons: frames (M, H, W).
        side: of the images to cut around them, px.

    Returns:
        The M N crops of N spots, frame by frame, and the root mean square of the bounds.
    """
    x, y, truth, width = single(photons, side)
    floor = SpotDataModule(SIDE, sigma_px=(0.99 * width, 1.01 * width)).floor(truth)
    bounds = torch.stack([floor["bound_x"], floor["bound_y"]], dim=1).numpy()

    frames = _around(photons, x, y, side)
    corner = np.full(2, (side - SIDE) // 2)
    near = np.stack([truth["x_true"], truth["y_true"]], axis=1)
    start = np.tile(near[:, None], (len(photons), 1, 1))
    crops = frames[:, corner[1] : corner[1] + SIDE, corner[0] : corner[0] + SIDE]
    spots = Spots(
        frames, np.ascontiguousarray(crops), corner, SIDE // 2 - 1, start, width,
        start[:, 0] + corner, (bounds, bounds),
    )  # fmt: skip
    return spots, float(np.sqrt((bounds.astype(float) ** 2).mean()))


def _around(frames: np.ndarray, x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    """Cut images (M N, S, S) around pixels (N,) from frames (M, H, W)."""
    to = np.arange(side) - side // 2
    parts = frames[:, (y[:, None] + to)[:, :, None], (x[:, None] + to)[:, None]]
    return parts.reshape(-1, side, side).astype(np.float32)


def repeats(found: np.ndarray, fitted: np.ndarray) -> dict[str, float]:
    """Return the scatter of positions, px, and how often they are within their own deviations.

    Args:
        found: ``x, y, sd_x, sd_y`` of N particles in M frames, (M, N, 4).
        fitted: where they are in the mean of the frames, (N, 2).
    """
    answered = np.isfinite(found[:, :, :2]).all(axis=2)
    found, fitted = found[:, answered.all(axis=0)], fitted[answered.all(axis=0)]
    frames, count = found.shape[:2]
    xy = found[:, :, :2]
    rest = xy - xy.mean(axis=0) - xy.mean(axis=1, keepdims=True) + xy.mean(axis=(0, 1))
    rest /= np.sqrt((1 - 1 / frames) * (1 - 1 / count))  # what both means took along
    square = (rest**2).mean(axis=(0, 2))
    drawn = np.random.default_rng(0).integers(0, count, (2000, count))
    low, high = np.quantile(np.sqrt(square[drawn].mean(axis=1)), [0.025, 0.975])
    figures = {"scatter": np.sqrt(square.mean()), "low": low, "high": high}
    apart = fitted - fitted.mean(axis=0)
    figures["follows"] = (apart * xy.mean(axis=0)).sum() / (apart**2).sum()
    figures["no_answer"] = 1 - answered.mean()
    if np.isfinite(found[:, :, 2:]).all():
        away = np.abs(rest / found[:, :, 2:])
        figures |= {"within_68": (away <= 1).mean(), "within_95": (away <= 1.96).mean()}
    return {name: float(value) for name, value in figures.items()}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("file", type=Path, help="frames of the same field of view, a TIFF")
    parser.add_argument(
        "--checkpoint", type=Path, action="append", default=[], help="a model's; repeatable"
    )
    parser.add_argument("--only", nargs="*", help="programs with one of these in their names")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
