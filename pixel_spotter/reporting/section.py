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

    Each part has a ``note`` of its own, the caption stands once. Of a table's rows, each has its
    kind: ``best``, ``open`` or nothing in particular. ``name`` is the picture's, without ending.
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
