"""Tables that grow as rows come: whole in the end, and what was written is not written twice."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from pixel_spotter import runs
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text


class Table:
    """A CSV table that rows are added to.

    Args:
        file: to write to.
        digits: after the point.
        state: a file that says how far the table is, if it can be gone on with.
        of: what the table is of, for the state.
        place: where to go on; empty at the beginning.
    """

    def __init__(
        self,
        file: TextIO,
        digits: int,
        state: Path | None = None,
        of: Any = None,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = dict(place or {})
        self._file, self._digits, self._state, self._of = file, digits, state, of
        self._begun = bool(place)

    def add(self, rows: pd.DataFrame, place: Mapping[str, Any] | None = None) -> None:
        """Write rows, and remember the place up to which the table has all, if one is given."""
        rows.to_csv(
            self._file,
            header=not self._begun,
            index=False,
            float_format=f"%.{self._digits}f",
            na_rep="nan",
            lineterminator="\n",
        )
        self._file.flush()
        self._begun = True
        if place is not None:
            self.place = dict(place)
            if self._state is not None:
                length = self._file.tell()
                write_text(
                    self._state, json.dumps({"of": self._of, "place": self.place, "bytes": length})
                )


@contextmanager
def growing(
    output: Path | None,
    digits: int,
    of: Any = None,
    finish: Callable[[Path], None] | None = None,
) -> Iterator[Table]:
    """Give a table that grows: a file, or standard output.

    The file grows under the name ``OUTPUT.part`` and gets its own when it is complete; whatever
    ends the work early leaves what was found by then, if anything was. If it says what it is of,
    plain values, the same work goes on from its last place. ``finish`` may write the output from
    the complete table.

    Raises:
        UserError: if another process is at work on it.
    """
    if output is None:
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # names that are no text
        yield Table(sys.stdout, digits)
        return
    part, state, lock = (
        output.with_name(name)
        for name in (f"{output.name}.part", f".{output.name}.json", f".{output.name}.lock")
    )
    with runs.owned(output, lock):
        place, length = _gone_so_far(part, state, of)
        try:
            with part.open(
                "r+" if place else "w", newline="", encoding="utf-8", errors="surrogateescape"
            ) as file:
                file.seek(length)
                file.truncate()
                yield Table(file, digits, None if of is None else state, of, place)
            if finish is None:
                part.replace(output)
            else:
                finish(part)
                part.unlink()
            state.unlink(missing_ok=True)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = error.filename or str(part)
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
            elif part.exists():
                then = "goes on from there" if _gone_so_far(part, state, of)[1] else "starts over"
                words = "" if of is None else f": the same command {then}"
                print(f"what was found so far is in {part}{words}", file=sys.stderr)
            raise
        finally:
            with suppress(OSError):  # some systems delete no open file
                lock.unlink()


def _gone_so_far(part: Path, state: Path, of: Any) -> tuple[dict[str, Any], int]:
    """Return the place, and the length of the table, where the same work was interrupted."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        before = json.loads(state.read_text(encoding="utf-8"))
        same = of is not None and before["of"] == json.loads(json.dumps(of))
        if same and 0 < int(before["bytes"]) <= part.stat().st_size:
            return dict(before["place"]), int(before["bytes"])
    return {}, 0


def check_output(output: Path, key: str = "output") -> None:
    """Refuse an output that could not be written in the end, naming its setting."""
    if not output.name or (output.exists() and not output.is_file()):
        raise UserError(f"{key}={output} cannot be replaced by a file, give another name")
    nearest = next(folder for folder in output.absolute().parents if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise UserError(f"{key}={output}: {nearest} is not a folder that can be written to")
