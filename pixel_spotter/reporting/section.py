"""What a report is made of: the page and the Markdown show the same sections."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure


class Entry(NamedTuple):
    """A table's cell: its text, beside it a smaller note and a tag, before it a rank."""

    text: str = ""
    note: str = ""
    tag: str = ""
    rank: str = ""


class Section(NamedTuple):
    """A section of a report; those in a row that have the same title are its parts.

    Args:
        title: what it shows.
        caption: how to read it; parts that have the same say it once.
        part: a split, where each has its part.
        note: what is true of this part.
        head: a table's titles.
        rows: its rows, each with its kind: ``best``, ``open`` or nothing in particular.
        name: the picture's file name, without its ending.
        figure: the picture.
        code: commands.
        terms: words and what they mean.
    """

    title: str
    caption: str = ""
    part: str = ""
    note: str = ""
    head: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[Entry]]] = ()
    name: str = ""
    figure: Figure | None = None
    code: Sequence[str] = ()
    terms: Mapping[str, str] = {}
