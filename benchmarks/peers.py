"""Measure Pixel Spotter beside other programs: the same spots, the same thread, one run.

    pip install '.[peers]'
    pip install --no-deps picassosr smappy-smlm
    python benchmarks/peers.py --checkpoint outputs/runs/NAME/checkpoints/best.ckpt

Every program gets the same 13x13 crops in photons, the spot in their middle pixel; at the frame's
edge, frames, in which it finds the spot as it always does. Those that take the width are told the
true one, those that need a start get one within 0.3 px of the truth. rmse is per axis, and held
against the Cramér-Rao bound of what the program was told: with the width or without. Prints every
measurement, and writes ``peers.csv`` and, as tables, ``peers.md``. What is not installed is left
out.

Programs take turns in each round of timing, after a round that is not counted, in which they
compile. Their seconds are those that this process computed, whatever else the machine did; with
``--device cuda``, on which only ours run, those of the clock.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from programs import SIDE, Program, Spots, load_programs, versions
from threadpoolctl import threadpool_limits
from throughput import machine, summary

from pixel_spotter.data.spots import SpotDataModule

FRAME = 33
"""Side of the frames that crops are cut from, px; larger with a model of larger images."""
TIMED = "1,000 photons, 10, 1.0 px"
CONDITIONS: dict[str, dict[str, Any]] = {
    f"{photons:,} photons, {background}, {sigma_px} px": {
        "photons": photons, "background": background, "sigma_px": sigma_px,
    }
    for photons, background, sigma_px in [
        (300, 1, 1.0), (300, 10, 1.0), (300, 20, 1.5), (1000, 10, 0.8), (1000, 10, 1.0),
        (1000, 10, 1.5), (1000, 20, 2.0), (3000, 10, 1.5), (10_000, 20, 1.0),
    ]
} | {
    "edge, to be found": {},
    "edge, crop given": {},
    "neighbour at 4 px": {"neighbour_probability": 1.0, "neighbour_px": 4.0},
    "neighbour at 3 px": {"neighbour_probability": 1.0, "neighbour_px": 3.0},
    "read noise of 4 e": {"camera": {"read_noise": 4.0}},
}  # fmt: skip
"""Photons, background per pixel, width; the others are of 1,000 photons, 10 and 1.0 px."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    threadpool_limits(1)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    programs = load_programs(options.checkpoint, options.only, options.device)
    frame = max([FRAME, *(program.side | 1 for program in programs.values())])
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    chosen = [
        condition
        for condition in CONDITIONS
        if not options.conditions or any(part in condition for part in options.conditions)
    ]
    for condition in chosen * (not options.speed):
        spots = make_spots(condition, options.spots, frame)
        for name, program in programs.items():
            rows.append({"condition": condition, "program": name, **measure(program, spots)})
            print(
                *(f"{k} {v:.4g}" if isinstance(v, float) else v for k, v in rows[-1].items()),
                flush=True,
            )
            pd.DataFrame(rows).to_csv(options.output / "peers.csv", index=False)
    spots = make_spots(TIMED, options.spots, frame)
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    rates = measure_speed(programs, spots, options.rounds, clock)
    tables = [as_markdown(pd.DataFrame(rows))] if rows else []
    text = "\n".join([f"{machine()}; {versions()}\n", *tables, speeds(rates)])
    (options.output / "peers.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


def make_spots(condition: str, count: int, frame: int) -> Spots:
    """Draw spots in the middle pixel of frames, or at their left edge, 0 to 1 px from it."""
    settings = {"sigma_px": 1.0, **CONDITIONS[condition]}
    sigma_px, edge, middle = settings["sigma_px"], "edge" in condition, frame // 2
    numbers = torch.arange(-(-count // 32) * 32)  # the noise is drawn for 32 at a time
    data = SpotDataModule(frame, margin_px=middle, **settings)
    truth = data.truth("test", 0, numbers)
    if edge:
        truth["x_true"] -= middle
    frames = data.render(truth, "test", 0, numbers)[:, 0].numpy()
    bounds = []
    for width in ([0.999 * sigma_px, 1.001 * sigma_px], sigma_px):  # drawn from a range: unknown
        floor = SpotDataModule(frame, **{**settings, "sigma_px": width}).floor(truth)
        bounds.append(torch.stack([floor["bound_x"], floor["bound_y"]], dim=1).numpy())
    corner = np.array([0 if edge else middle - SIDE // 2, middle - SIDE // 2])
    x, y = (slice(first, first + SIDE) for first in corner)
    names = ["", "neighbour_"] if "neighbour_x_true" in truth else [""]
    places = [torch.stack([truth[f"{name}{axis}_true"] for axis in "xy"], dim=1) for name in names]
    start = torch.stack(places, dim=1).numpy() - corner
    return Spots(
        frames=frames,
        crops=None if condition == "edge, to be found" else np.ascontiguousarray(frames[:, y, x]),
        corner=corner,
        margin_px=0 if edge else SIDE // 2,
        start=start + np.random.default_rng(0).uniform(-0.3, 0.3, start.shape),
        sigma_px=sigma_px,
        xy=places[0].numpy(),
        bounds=(bounds[0], bounds[1]),
    )


def answers(program: Program, spots: Spots) -> np.ndarray:
    """Let a program find spots: rows in the frames, (N, 4)."""
    spots, corner = spots.first(program.most), spots.corner
    if program.side and (spots.margin_px or program.find is None):
        corner = (corner + (SIDE - program.side) // 2).clip(min=0)
        x, y = (slice(first, first + program.side) for first in corner)
        spots = spots._replace(crops=np.ascontiguousarray(spots.frames[:, y, x]))
    if spots.crops is not None:
        found = program.fit(spots)
    else:
        corner = np.zeros(2)
        found = np.full((len(spots.frames), 4), np.nan)
        for row, several in enumerate(program.find(spots.frames, spots.sigma_px)):
            away = np.hypot(*(several[:, :2] - spots.xy[row]).T)
            if np.isfinite(away).any():
                found[row] = several[np.nanargmin(away)]
    return np.concatenate([found[:, :2] + corner, found[:, 2:]], axis=1)


def measure(program: Program, spots: Spots) -> dict[str, float]:
    """Return rmse over bound with its 95% interval (bootstrap over spots), coverage and failures.

    An answer is none if it lies outside the crop, or, found in a frame, more than 2 px away.
    """
    found, count = answers(program, spots), program.most
    error, deviation = found[:, :2] - spots.xy[:count], found[:, 2:]
    bound = spots.bounds[program.told_width][:count]
    near = 2 if spots.crops is None else SIDE / 2
    good = (np.abs(error) <= near).all(axis=1)  # nan is not
    figures = {"no_answer": 1 - good.mean()}
    if good.any():
        square, limit = (part[good].astype(float) ** 2 for part in (error, bound))
        drawn = np.random.default_rng(0).integers(0, len(square), (500, len(square)))
        sums = [part.sum(axis=1)[drawn].sum(axis=1) for part in (square, limit)]
        low, high = np.quantile(np.sqrt(sums[0] / sums[1]), [0.025, 0.975])
        figures |= {"ratio": np.sqrt(square.sum() / limit.sum()), "low": low, "high": high}
        for name, ratio in zip("xy", np.sqrt(square.sum(axis=0) / limit.sum(axis=0)), strict=True):
            figures[f"ratio_{name}"] = ratio
    if np.isfinite(deviation[good]).any():
        within = np.abs(error / deviation)[good]
        figures |= {"within_68": (within <= 1).mean(), "within_95": (within <= 1.96).mean()}
    return {name: float(value) for name, value in figures.items()}


def measure_speed(
    programs: dict[str, Program], spots: Spots, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return how many spots each program fits in a second, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for counted in range(-1, rounds):
        for name, program in programs.items():
            start_s = clock()
            found = answers(program, spots)
            if counted >= 0:
                rates[name].append(len(found) / (clock() - start_s))
    return rates


def as_markdown(rows: pd.DataFrame) -> str:
    """Write tables of programs by conditions: spots alone in a crop, and all others."""

    def table(title: str, cell: Callable[[pd.Series], str], kind: pd.DataFrame) -> str:
        written = kind.assign(cell=kind.apply(cell, axis=1))
        wide = written.pivot(index="program", columns="condition", values="cell")
        wide = wide.loc[kind["program"].unique(), kind["condition"].unique()]
        lines = ["| | " + " | ".join(wide.columns) + " |", "|---" * (1 + wide.shape[1]) + "|"]
        lines += [f"| {name} | " + " | ".join(cells) + " |" for name, *cells in wide.itertuples()]
        return "\n".join([title, "", *lines, ""])

    def ratio(row: pd.Series) -> str:
        half = (row["high"] - row["low"]) / 2
        return f"{row['ratio']:.3f} ± {half:.3f}" if row["no_answer"] < 0.5 else ""

    def coverage(row: pd.Series) -> str:
        known = row["no_answer"] < 0.5 and not np.isnan(row.get("within_68", np.nan))
        return f"{row['within_68']:.1%}, {row['within_95']:.1%}" if known else ""

    alone = rows["condition"].str.contains("photons")
    return "\n".join(
        table(title, cell, kind)
        for kind in (rows[alone], rows[~alone])
        if len(kind)
        for title, cell in (
            ("rmse / bound, ± half of its 95% interval:", ratio),
            ("Truths within 1 and 1.96 deviations:", coverage),
            ("No answer:", lambda row: f"{row['no_answer']:.1%}"),
        )
    )


def speeds(rates: dict[str, list[float]]) -> str:
    """Write a table of spots/s, and of ratios to Picasso's of the same round."""
    lines = [f"Speed, {TIMED}, median [min, max] of the rounds:", ""]
    lines += ["| | spots/s | times Picasso's |", "|---|---|---|"]
    for name, rate in rates.items():
        ratios = [a / b for a, b in zip(rate, rates.get("Picasso", []), strict=False)]
        cells = [summary(rate, ",.0f"), summary(ratios, ".2f") if ratios else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/peers"))
    parser.add_argument(
        "--checkpoint", type=Path, action="append", default=[], help="a model's; repeatable"
    )
    parser.add_argument("--only", nargs="*", help="programs with one of these in their names")
    parser.add_argument("--conditions", nargs="*", help="likewise; by default all")
    parser.add_argument("--speed", action="store_true", help="measure the speed only")
    parser.add_argument("--spots", type=int, default=4000, help="of each condition")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of ours")
    parser.add_argument("--rounds", type=int, default=7, help="of timing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
