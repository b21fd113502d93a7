"""Measure how well all spots of frames are found, beside other programs: the same frames, one run.

    pip install '.[peers]'
    pip install --no-deps picassosr smappy-smlm
    python benchmarks/frames.py                    # --speed times only, --only our leaves peers out

Frames of 256x256 px from a camera of one electron a count, 100 counts of no light. All programs are
told camera, read noise and width, as far as they have a use for it, but for two rows of ours, which
are not told the width, or nothing. The others need a threshold: of many, with each side of their
boxes, each gets what suits it best, the largest F1, on the first of the very frames that are
measured; on empty frames, what suits it best on frames with 100 spots of 1,000 photons that have
the same background. Ours has no threshold, but how many false alarms are accepted.

An answer is right if it is within 2 px of a spot that has no other answer, all together as close as
can be. rmse is per axis, of spots with no other within 8 px, those at the frame's edge included,
over the Cramér-Rao bound of the very same: with the width known where the program was told it, with
it unknown where each spot was fitted with its own, which differs at the edge. Prints Markdown
tables, and writes ``frames.csv`` and ``empty.csv``.

Of timing, each program's round after one that is not counted, in which they compile, takes its turn
with the others'. On one thread, seconds are those that the process computed; with two processes,
each of which has half of the frames, those of the clock. What locate learns of frames, once a run,
is in the round that is not counted.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from programs import versions
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits
from throughput import machine, summary

from pixel_spotter.models.locator import Locator
from pixel_spotter.simulation.bound import crlb, fisher_information, pixel_information
from pixel_spotter.simulation.camera import Camera
from pixel_spotter.simulation.psf import GaussianPSF, expected_image, light

SIDE, WIDTH_PX, OFFSET = 256, 1.1, 100.0
AT_A_TIME = 64
"""`locate` reads so many frames of this size at a time, and learns from the first of them."""

NEAR_PX = 2.0
"""A right answer is no further away."""

ALONE_PX = 8.0
"""An isolated spot has no other within this."""

EDGE_PX = 4.0
"""Boxes of others do not fit around spots that are closer to the edge."""

BOXES = (7, 9, 11)
SHARES = np.concatenate([np.linspace(0.5, 1.1, 25), np.linspace(1.2, 2, 5)])
"""Thresholds that are tried let through so many candidates, times the spots that there are."""

TUNED_ON = 1000
"""Thresholds are tried on the frames of so many spots."""

KINDS: dict[str, dict[str, Any]] = {
    "20 spots": {"spots": 20},
    "100 spots": {"spots": 100},
    "200 spots": {"spots": 200},
    "100 of 300 photons": {"spots": 100, "photons": (300, 300)},
    "100 of 200 to 5,000": {"spots": 100, "photons": (200, 5000)},
    "100, read noise 3 e": {"spots": 100, "read_noise": 3.0},
    "20 at the edge": {"spots": 20, "edge": True},
}
"""Spots of 1,000 photons on 10 a pixel, where nothing else is said; brightness is log-uniform."""

EMPTY: dict[str, dict[str, Any]] = {
    "10 photons a pixel": {},
    "1 photon": {"background": 1.0},
    "10, read noise 3 e": {"read_noise": 3.0},
    "1, read noise 3 e": {"background": 1.0, "read_noise": 3.0},
    "100, vignetting to 30%": {"background": 100.0, "vignetting": True},
    "100, 40 hot pixels": {"background": 100.0, "hot": 40},
}


class Frames(NamedTuple):
    """What all programs get, and what is true of it.

    Args:
        counts: (F, H, W), float32.
        read_noise: electrons.
        frame: of which frame each spot is, (N,).
        xy: where it is, px, (N, 2).
        photons: how bright, (N,).
        background: photons a pixel, where it is even.
    """

    counts: np.ndarray
    read_noise: float
    frame: np.ndarray
    xy: np.ndarray
    photons: np.ndarray
    background: float

    def first(self, spots: int) -> "Frames":
        """Return the first frames, which hold at least so many spots, if there are so many."""
        last = self.frame[min(spots, len(self.frame)) - 1]
        kept = self.frame <= last
        return self._replace(
            counts=self.counts[: last + 1],
            frame=self.frame[kept],
            xy=self.xy[kept],
            photons=self.photons[kept],
        )


class Table(NamedTuple):
    """A program's answers: which frame, (M,), and x, y, sd_x, sd_y, px, (M, 4)."""

    frame: np.ndarray
    found: np.ndarray


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    threadpool_limits(1)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    programs = {name: way for name, way in WAYS.items() if not options.only or any(
        part in name for part in options.only)}  # fmt: skip
    programs = {name: way for name, way in programs.items() if is_installed(name, way)}
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"{machine()}; {versions()}\n")
    if options.speed:
        print(
            as_speeds(
                measure_speed(programs, options.frames, options.rounds, options.busy), programs
            )
        )
        return
    rows = []
    for kind, settings in KINDS.items():
        if not options.kinds or any(part in kind for part in options.kinds):
            frames = make_frames(**settings, count=enough(options.frames, settings["spots"]))
            for name, way in programs.items():
                tuned = way.tune(frames.first(TUNED_ON))
                figures = measure(way.find(frames, tuned), frames, way.knows_width)
                tuning = {} if tuned is None else tuned._asdict()
                rows.append({"program": name, "kind": kind, **figures, **tuning})
                print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(options.output / "frames.csv", index=False)
    print("\n" + as_markdown(pd.DataFrame(rows)))
    rows = []
    for kind, settings in EMPTY.items():
        if not options.kinds or any(part in kind for part in options.kinds):
            count = options.empty
            with_spots = make_frames(**settings, spots=100, count=10)
            for name, way in programs.items():
                if "width not told" in name:
                    continue  # between the other two
                tuned = way.tune(with_spots)
                for asked in (0.1, 0.01) if name.startswith("our") else (None,):
                    chances = [
                        len(way.find(frames, asked or tuned).frame)
                        for frames in in_parts(settings, count)
                    ]
                    rows.append(
                        {"program": name if asked is None else f"{name}, {asked} asked for"}
                        | {"kind": kind, "asked": asked, "false_alarms": sum(chances) / count}
                        | {"frames": count}
                    )
                    print(rows[-1], flush=True)
    if rows:
        pd.DataFrame(rows).to_csv(options.output / "empty.csv", index=False)
        print("\n" + as_empty(pd.DataFrame(rows)))


def enough(frames: int, spots: int) -> int:
    """Return how many frames there are of so many spots."""
    return max(1, frames * 100 // spots)


def in_parts(settings: dict[str, Any], count: int) -> Sequence[Frames]:
    """Return empty frames, 100 at a time."""
    return [
        make_frames(**settings, spots=0, count=min(100, count - first), seed=first + 1)
        for first in range(0, count, 100)
    ]


def make_frames(
    spots: int,
    count: int,
    photons: tuple[float, float] = (1000, 1000),
    background: float = 10.0,
    read_noise: float = 0.0,
    edge: bool = False,
    vignetting: bool = False,
    hot: int = 0,
    seed: int = 0,
) -> Frames:
    """Expose frames."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, spots, 2, generator=generator) * SIDE - 0.5
    if edge:  # up to EDGE_PX inside one of the four sides
        away = torch.rand(count, spots, generator=generator) * EDGE_PX - 0.5
        side = torch.randint(4, (count, spots), generator=generator)
        away = torch.where(side % 2 == 0, away, SIDE - 1 - away)
        xy[..., 0] = torch.where(side < 2, away, xy[..., 0])
        xy[..., 1] = torch.where(side >= 2, away, xy[..., 1])
    low, high = (np.log(one) for one in photons)
    much = (torch.rand(count, spots, generator=generator) * (high - low) + low).exp()
    around = torch.linspace(-1, 1, SIDE)
    shape = 1 - 0.35 * vignetting * (around.square() + around[:, None].square())
    pixels = torch.rand(SIDE, SIDE, generator=generator).flatten()
    heat = torch.zeros(SIDE * SIDE)
    heat[pixels.argsort()[:hot]] = 10 * background * (0.5 + pixels[:hot])  # the same in each frame
    camera = Camera(read_noise=read_noise, gain=1.0, offset=OFFSET, bits=16)
    counts = []
    for one, bright in zip(xy, much, strict=True):
        spot = torch.cat([one, bright[:, None]], dim=1)[None]
        flat, wide = torch.zeros(1), torch.full((1,), WIDTH_PX)
        expected = background * shape + heat.view(SIDE, SIDE)
        if spots:
            expected = expected + light(GaussianPSF(), spot, flat, wide, (SIDE, SIDE))[0]
        counts.append(camera.expose(expected[None], generator)[0])
    return Frames(
        torch.stack(counts).float().numpy(),
        read_noise,
        np.repeat(np.arange(count), spots),
        xy.reshape(-1, 2).double().numpy(),
        much.flatten().double().numpy(),
        background,
    )


class Ours:
    """Pixel Spotter: camera and width told, or not.

    Args:
        camera: whether gain, offset and read noise are told.
        width: whether the spots' width is.
    """

    def __init__(self, camera: bool, width: bool) -> None:
        self.camera, self.knows_width = camera, width
        self.learned: tuple[Frames, Locator] | None = None

    def tune(self, frames: Frames) -> None:
        """Have nothing to tune."""

    def find(self, frames: Frames, false_alarms: float | None) -> Table:
        """Locate all spots; of the same frames again, with what was learned from them."""
        counts = torch.from_numpy(frames.counts)
        if self.learned is None or self.learned[0] is not frames:
            told: dict[str, Any] = {"sigma_px": WIDTH_PX} if self.knows_width else {}
            if self.camera:
                told |= {"gain": 1.0, "offset": OFFSET, "read_noise": frames.read_noise}
            self.learned = frames, Locator(**told)
            self.learned[1].learn(counts[:AT_A_TIME])
        locator = self.learned[1]
        locator.false_alarms = false_alarms or 0.01
        parts = []
        for first in range(0, len(counts), AT_A_TIME):
            columns = locator(counts[first : first + AT_A_TIME])
            columns["frame"] = columns["frame"] + first
            parts.append(columns)
        names = ("frame", "x", "y", "sd_x", "sd_y")
        frame, *found = (torch.cat([part[name] for part in parts]).numpy() for name in names)
        return Table(frame, np.stack(found, axis=1))


class Tuned(NamedTuple):
    """A side of the box, px, and a threshold."""

    box: int
    threshold: float


class Picasso:
    """Picasso: net gradient, maximum likelihood with a round Gaussian of unknown width."""

    knows_width = False

    def tune(self, frames: Frames) -> Tuned:
        """Return the box and the least net gradient with the largest F1."""
        found = {box: self.scored(frames, box, self.least(frames, box)) for box in BOXES}
        tries = {
            Tuned(box, least): Table(table.frame[strength > least], table.found[strength > least])
            for box, (table, strength) in found.items()
            for least in thresholds(strength, len(frames.xy))
        }
        return best(tries, frames)

    def find(self, frames: Frames, tuned: Tuned) -> Table:
        """Find and fit spots."""
        return self.scored(frames, *tuned)[0]

    @staticmethod
    def least(frames: Frames, box: int) -> float:
        """Return the lowest threshold that is tried."""
        from picasso import localize

        places, _ = localize.identify(frames.counts, 0.0, box, threaded=False)
        return thresholds(places["net_gradient"].to_numpy(), len(frames.xy)).min() - 1e-3

    @staticmethod
    def scored(frames: Frames, box: int, least: float) -> tuple[Table, np.ndarray]:
        """Find and fit spots; return how far they stand out, too."""
        from picasso import localize

        places, _ = localize.identify(frames.counts, least, box, threaded=False)
        frame, x, y = (places[name].to_numpy() for name in ("frame", "x", "y"))
        around = np.arange(box) - box // 2
        cut = frames.counts[
            frame[:, None, None], (y[:, None] + around)[:, :, None], (x[:, None] + around)[:, None]
        ]
        crops = np.ascontiguousarray(cut - OFFSET, dtype=np.float32)
        if not len(crops):
            return Table(frame, np.zeros((0, 4))), frame
        variance = np.full_like(crops, frames.read_noise**2) if frames.read_noise else None
        settings = {"mle": True, "spherical": True}
        theta, likelihood, iterations, _ = localize.fit_spots_gauss(
            crops, return_stats=True, variance=variance, **settings
        )
        table = localize.locs_from_fits_gauss(
            places, theta, box, False, log_likelihood=likelihood, iterations=iterations,
            variance=variance, **settings,
        )  # fmt: skip
        found = table[["x", "y", "lpx", "lpy"]].to_numpy(float)
        return Table(table["frame"].to_numpy(), found), table["net_gradient"].to_numpy()


class SMAPpy:
    """SMAPpy: difference of Gaussians, maximum likelihood, the width fitted from the true one."""

    knows_width = False

    def tune(self, frames: Frames) -> Tuned:
        """Return the box and the cutoff, photons, with the largest F1."""
        from smappy.detect import DoGFilter, local_maxima

        strength = local_maxima(DoGFilter(WIDTH_PX)(frames.counts - OFFSET), 0.0, n_threads=1)[3]
        cutoffs = thresholds(strength, len(frames.xy))
        tries = {Tuned(BOXES[0], one): self.find(frames, Tuned(BOXES[0], one)) for one in cutoffs}
        cutoff = best(tries, frames).threshold  # which hardly depends on the box
        tries |= {Tuned(box, cutoff): self.find(frames, Tuned(box, cutoff)) for box in BOXES[1:]}
        return best(tries, frames)

    def find(self, frames: Frames, tuned: Tuned) -> Table:
        """Find and fit spots."""
        from smappy import api

        camera = {"conversion": 1.0, "offset": OFFSET, "pixelsize_um": 0.001}  # 1 nm is 1 px
        table = api.fit(
            frames.counts, camera={**camera, "read_noise_e": frames.read_noise}, sigma=WIDTH_PX,
            cutoff=tuned.threshold, cutoff_mode="absolute", roisize=tuned.box, threads=1,
        )  # fmt: skip
        if not len(table):
            return Table(np.zeros(0, int), np.zeros((0, 4)))
        names = ("x_nm", "y_nm", "x_err_nm", "y_err_nm")
        found = np.stack([table.columns[name] for name in names], axis=1).astype(float)
        return Table(np.asarray(table.columns["frame"]), found)


WAYS: dict[str, Any] = {
    "our locate": Ours(True, True),
    "our locate, width not told": Ours(True, False),
    "our locate, nothing told": Ours(False, False),
    "Picasso": Picasso(),
    "SMAPpy": SMAPpy(),
}


def is_installed(name: str, way: Any) -> bool:
    """Say so if a program is not there."""
    try:
        frames = make_frames(20, 1)
        way.find(frames, way.tune(frames))
    except ImportError as error:
        print(f"{name} is left out ({error}): see docs/peers.md for how to install it")
        return False
    return True


def thresholds(strength: np.ndarray, spots: int) -> np.ndarray:
    """Return thresholds that let some of the candidates through, by shares of the spots."""
    ordered = np.sort(strength)[::-1]
    places = np.unique((SHARES * spots).astype(int).clip(0, len(ordered) - 1))
    return ordered[places]


def best(tries: dict[Tuned, Table], frames: Frames) -> Tuned:
    """Return what has the largest F1."""

    def worth(tuned: Tuned) -> float:
        table = tries[tuned]
        return 2 * len(matches(table, frames)[0]) / (len(table.frame) + len(frames.frame))

    return max(tries, key=worth)


def matches(table: Table, frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of an answer's and a spot's number, no more than `NEAR_PX` apart."""
    pairs: list[tuple[int, int]] = []
    far = 1e3 * NEAR_PX
    finite = np.isfinite(table.found[:, :2]).all(axis=1)
    for frame in np.unique(table.frame):
        answers = np.nonzero((table.frame == frame) & finite)[0]
        spots = np.nonzero(frames.frame == frame)[0]
        if len(answers) and len(spots):
            away = table.found[answers, None, :2] - frames.xy[spots]
            distance = np.hypot(away[..., 0], away[..., 1])
            rows, columns = linear_sum_assignment(np.where(distance <= NEAR_PX, distance, far))
            near = distance[rows, columns] <= NEAR_PX
            pairs += zip(answers[rows[near]], spots[columns[near]], strict=True)
    found = np.array(pairs, int).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def measure(table: Table, frames: Frames, knows_width: bool) -> dict[str, float]:
    """Return recall, precision, rmse over bound, and coverage."""
    answers, spots = matches(table, frames)
    inside = ((frames.xy >= EDGE_PX) & (frames.xy <= SIDE - 1 - EDGE_PX)).all(axis=1)
    figures = {
        "spots": len(frames.xy),
        "recall": len(spots) / len(frames.xy),
        "recall_inside": inside[spots].sum() / inside.sum() if inside.any() else np.nan,
        "precision": len(answers) / max(1, len(table.frame)),
    }
    place = np.column_stack([frames.xy, 1e4 * frames.frame])
    nearest = cKDTree(place).query(place, 2)[0][:, 1]
    apart = nearest[spots]
    error = table.found[answers, :2] - frames.xy[spots]
    bound = bounds(frames, knows_width)[spots]
    alone = apart > ALONE_PX
    edge = alone & ~inside[spots]
    for name, chosen in (("", alone), ("_edge", edge)):
        figures |= {f"found{name}": chosen.sum(), f"ratio{name}": rms(error, bound, chosen)}
    drawn = np.random.default_rng(0).choice(np.nonzero(alone)[0], (300, alone.sum()))
    ratios = [rms(error, bound, rows) for rows in drawn]
    figures["unsure"] = float(np.subtract(*np.quantile(ratios, [0.975, 0.025])) / 2)
    for low, high in ((3, 4), (4, 6)):
        chosen = (apart >= low) & (apart < high)
        figures |= {f"found_{low}": chosen.sum(), f"ratio_{low}": rms(error, bound, chosen)}
        there = (nearest >= low) & (nearest < high)
        figures[f"recall_{low}"] = chosen.sum() / max(1, there.sum())
    within = np.abs(error) <= table.found[answers, 2:]
    figures["within_68"] = within[alone].mean()
    return {name: float(value) for name, value in figures.items()}


def rms(error: np.ndarray, bound: np.ndarray, chosen: np.ndarray) -> float:
    """Return the root mean square of errors over that of bounds, nan without any."""
    if not len(error[chosen]):
        return float("nan")
    return float(np.sqrt((error[chosen] ** 2).sum() / (bound[chosen] ** 2).sum()))


def bounds(frames: Frames, knows_width: bool, side: int = 31) -> np.ndarray:
    """Return the bounds of spots as if each were alone, of what the frame shows, px, (N, 2)."""
    parts = []
    for xy, photons in zip(
        torch.from_numpy(frames.xy).split(512), torch.from_numpy(frames.photons).split(512),
        strict=True,
    ):  # fmt: skip
        corner = (xy + 0.5).floor() - side // 2
        spot = torch.cat([xy - corner, photons[:, None]], dim=1)[:, None]
        flat, wide = (torch.full_like(photons, one) for one in (frames.background, WIDTH_PX))
        expected, by_theta = expected_image(GaussianPSF(), spot, flat, wide, (side, side))
        place = corner[:, :, None] + torch.arange(side)
        inside = (place >= 0) & (place < SIDE)
        known = pixel_information(expected, frames.read_noise)
        known = known * (inside[:, 1, :, None] & inside[:, 0, None, :])
        parts.append(crlb(fisher_information(by_theta[:, : 5 - knows_width], known))[:, :2].sqrt())
    return torch.cat(parts).numpy()


class Timed(NamedTuple):
    """Frames/s of each round, on one thread and with two processes."""

    one: list[float]
    two: list[float]


def measure_speed(
    programs: dict[str, Any], frames: int, rounds: int, busy: bool
) -> dict[tuple[str, str], Timed]:
    """Return how many frames a second each program takes."""
    rates: dict[tuple[str, str], Timed] = {}
    with ProcessPoolExecutor(2, initializer=quiet) as pool:
        for kind in ("20 spots", "100 spots", "200 spots"):
            settings = {**KINDS[kind], "count": frames}
            tuned = {
                name: way.tune(make_frames(KINDS[kind]["spots"], 10))
                for name, way in programs.items()
            }
            for counted in range(-1, rounds):
                for name in programs:
                    task = name, tuple(sorted(settings.items())), tuned[name]
                    one = frames / timed(*task)[0]
                    start = time.perf_counter()
                    if not busy:
                        list(pool.map(timed, *zip(task, task, strict=True)))
                    two = np.nan if busy else 2 * frames / (time.perf_counter() - start)
                    if counted >= 0:
                        rates.setdefault((kind, name), Timed([], []))
                        rates[kind, name].one.append(one)
                        rates[kind, name].two.append(two)
    return rates


def quiet() -> None:
    threadpool_limits(1)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")


def timed(name: str, settings: tuple[tuple[str, Any], ...], tuned: Any) -> tuple[float, int]:
    """Return how long a program computes, and how many spots it finds."""
    frames = _made(settings)
    start = time.process_time()
    table = WAYS[name].find(frames, tuned)
    return time.process_time() - start, len(table.frame)


@cache
def _made(settings: tuple[tuple[str, Any], ...]) -> Frames:
    return make_frames(**dict(settings))


def as_markdown(rows: pd.DataFrame) -> str:
    """Write a table of each kind of frames."""
    titles = (
        "| | recall | {edge} px inside | precision | rmse / bound | at the edge | neighbour at "
        "3 to 4 px: found, rmse / bound | 4 to 6 px | within 1 sd |"
    ).format(edge=f"{EDGE_PX:g}")
    text = []
    for kind, group in rows.groupby("kind", sort=False):
        text += [f"{kind}:\n", titles, "|---" * 9 + "|"]
        for row in group.to_dict("records"):
            cells = [f"{row['recall']:.2%}"]
            cells += ["" if np.isnan(row["recall_inside"]) else f"{row['recall_inside']:.2%}"]
            cells += [f"{row['precision']:.2%}", f"{row['ratio']:.3f} ± {row['unsure']:.3f}"]
            cells += [f"{row['ratio_edge']:.2f}" if row["found_edge"] >= 20 else ""]
            for low in (3, 4):
                few = row[f"found_{low}"] < 10
                cells += ["" if few else "{:.1%}, {:.2f}".format(
                    row[f"recall_{low}"], row[f"ratio_{low}"])]  # fmt: skip
            cells += [f"{row['within_68']:.1%}"]
            text.append(f"| {row['program']} | {' | '.join(cells)} |")
        text.append("")
    return "\n".join(text)


def as_empty(rows: pd.DataFrame) -> str:
    """Write a table of false alarms in a frame."""
    wide = rows.pivot(index="program", columns="kind", values="false_alarms")
    wide = wide.loc[rows["program"].unique(), rows["kind"].unique()]
    lines = [f"False alarms in a frame, of {rows['frames'].max():,} empty ones:\n"]
    lines += ["| | " + " | ".join(wide.columns) + " |", "|---" * (1 + wide.shape[1]) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{value:.4g}" for value in values) + " |"
        for name, *values in wide.itertuples()
    ]
    return "\n".join(lines) + "\n"


def as_speeds(rates: dict[tuple[str, str], Timed], programs: dict[str, Any]) -> str:
    """Write a table of frames/s, one thread and two processes."""
    kinds = list(dict.fromkeys(kind for kind, _ in rates))
    titles = [f"{kind}, {how}" for kind in kinds for how in ("one thread", "two processes")]
    lines = ["Frames/s, median [min, max] of the rounds, nan where others computed:\n"]
    lines += ["| | " + " | ".join(titles) + " |", "|---" * (1 + len(titles)) + "|"]
    for name in programs:
        cells = [summary(way, ".0f") for kind in kinds for way in rates[kind, name]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/frames"))
    parser.add_argument("--only", nargs="*", help="programs with one of these in their names")
    parser.add_argument("--kinds", nargs="*", help="likewise, of frames; by default all")
    parser.add_argument("--speed", action="store_true", help="measure the speed only")
    parser.add_argument("--busy", action="store_true", help="one thread only: others compute, too")
    parser.add_argument("--frames", type=int, default=40, help="of 100 spots; more of fewer")
    parser.add_argument("--empty", type=int, default=2000, help="of each kind of empty frames")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
