"""Reads the frames of files, many at a time, and tells what is to be said of the files."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pixel_spotter.data.frames import Frames, UnreadableImageError, open_frames
from pixel_spotter.data.remarks import Remarks
from pixel_spotter.data.values import saturated_at
from pixel_spotter.estimators.locating import LEAST_SIDE

MOST_PIXELS = 2**22
"""So many pixels are looked at at once."""


class Batch(NamedTuple):
    """Frames of files of one kind, in their order.

    Args:
        counts: (F, H, W), float32.
        places: of which file each is, by its number, and which of its frames.
        kind: of the files, see `kind_of`.
        white: what the files declare to be white, counts; None if they do not.
    """

    counts: np.ndarray
    places: list[tuple[int, int]]
    kind: str = ""
    white: float | None = None


class Reading:
    """Reads the frames of files, so many pixels at a time.

    Args:
        files: in their order.
        saturation: what a pixel holds at most, counts; None: what each file declares to be white.
    """

    def __init__(self, files: Sequence[Path], saturation: float | None = None) -> None:
        self.files, self.saturation = files, saturation
        self.failures: dict[Path, list[str]] = {}
        self.remarks = Remarks()
        self.said: list[str] = []
        self.guessed: dict[str, float] = {}  # what pixels hold at most, by the kind of files
        self.left = 0  # frames, about: as if files had as many as the one that is read
        self._usual: dict[str, tuple[float, Path]] = {}
        self.progress = tqdm(disable=not sys.stderr.isatty(), unit="frame")

    def batches(self, after: tuple[int, int] = (-1, -1)) -> Iterator[Batch]:
        """Yield the frames after a place, a file's number and that of its frame."""
        batch = Batch(np.empty(0), [])
        gathered: list[np.ndarray] = []
        for place, counts, kind, white in self._frames(after):
            many = (len(gathered) + 1) * counts.size > MOST_PIXELS
            if gathered and (many or batch.kind != kind):
                yield batch._replace(counts=np.stack(gathered))
                gathered, batch = [], Batch(np.empty(0), [])
            gathered.append(counts)
            batch = batch._replace(kind=kind, white=white)
            batch.places.append(place)
        if gathered:
            yield batch._replace(counts=np.stack(gathered))

    def say(self, line: str) -> None:
        """Write a line on stderr, beside the progress, and keep it."""
        self.said.append(line)
        self.progress.write(line, file=sys.stderr)

    def full(self, batch: Batch) -> float | None:
        """Return what a pixel holds at most, also where a file has more bits than its camera."""
        if self.saturation is not None:
            return self.saturation
        full, guessed = saturated_at(batch.counts, batch.white, self.guessed.get(batch.kind))
        if guessed and full is not None:
            self.guessed[batch.kind] = full
            self.remarks.add(self.files[batch.places[0][0]], guessed, f"full at {full}")
        return full

    def compare(self, batch: Batch, noise_ratio: Callable[[int], float | None]) -> None:
        """Remark on files that show another noise than the first of their kind does.

        Each file's first frame is looked at by itself, as that is enough.

        Args:
            batch: frames.
            noise_ratio: returns, of one of them, its variance over that of the camera.
        """
        begun = [k for k, (_, frame) in enumerate(batch.places) if frame == 0]
        for k in begun if len(self.files) > 1 else ():
            file = self.files[batch.places[k][0]]
            if ratio := noise_ratio(k):
                usual, first = self._usual.setdefault(batch.kind, (ratio, file))
                if not 0.5 < ratio / usual < 2:
                    self.remarks.add(
                        file,
                        f"shows {ratio / usual:.2g} times the noise that {first.name} has, for "
                        f"their light: if the camera was another, locate them by themselves",
                        f"noise of {batch.kind}",
                    )

    def _frames(
        self, after: tuple[int, int]
    ) -> Iterator[tuple[tuple[int, int], np.ndarray, str, float | None]]:
        for number, file in enumerate(self.files):
            if number < after[0]:
                continue
            reasons: list[str] = []
            try:
                with open_frames(file, gaps=True) as frames:
                    if min(frames.size) < LEAST_SIDE:
                        sides = "{}x{}".format(*frames.size)
                        raise UnreadableImageError(
                            f"is {sides} px: a spot needs {LEAST_SIDE} px on each side"
                        )
                    if len(self.files) == 1:
                        self.progress.reset(frames.count)
                    for note in frames.notes:
                        self.remarks.add(file, note)
                    white = None if frames.floating else frames.white
                    for frame, counts in frames.readable(reasons):
                        self.progress.update()
                        more = len(self.files) - number
                        self.left = more * frames.count - frame - 1
                        if (number, frame) > after:
                            yield (number, frame), counts, kind_of(frames), white
            except UnreadableImageError as error:
                reasons.append(str(error))
            for reason in reasons:
                self.fail(file, reason)

    def fail(self, file: Path, reason: str) -> None:
        """Say once that a file cannot be used, or not in whole, and why."""
        reasons = self.failures.setdefault(file, [])
        if reason not in reasons:
            reasons.append(reason)
            self.say(f"{file}: {reason}")


def kind_of(frames: Frames) -> str:
    """Say what a file is as all are whose camera may be the same: format, size, range of values."""
    white = None if frames.floating else frames.white
    values = "floating-point" if frames.floating else "whole numbers"
    if white is not None:
        values = f"0 to {white:g}"
    form = frames.path.suffix[1:].lower() or "file"
    return f"{form} of {frames.size[0]}x{frames.size[1]} px, {values}"
