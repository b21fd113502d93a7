"""A grid's report: one list of sections, as a page, as Markdown, and as a table for machines."""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from pixel_spotter import metrics, runs
from pixel_spotter.reporting import groups as grouping
from pixel_spotter.reporting.groups import MANY, Entry, Group, Section, by_split, texts
from pixel_spotter.reporting.table import MEAN_ERROR, SEEN, Sweep, Unfinished, is_figure
from pixel_spotter.reporting.verdict import judge, seconds

FIGURES = [
    import_module(f"pixel_spotter.reporting.figures.{name}")
    for name in (
        *("frontier", "photons", "efficiency", "over_bound", "coverage", "phase", "speed"),
        *("examples", "curves", "error_maps", "predictions"),
    )
]
"""The pictures, in the order in which they are shown."""

Writes = tuple[str, Callable[..., str]]  # what a table calls a figure, and how it writes one

_COST: dict[str, Writes] = {
    "epochs": ("epochs", metrics.whole),
    "parameters": ("parameters", metrics.whole),
    "train_seconds": ("training (s)", seconds),
    "train_images_per_second": ("images/s", metrics.whole),
    "test_images_per_second": ("tested images/s", metrics.whole),
}

_USUAL = {"test/found": 1.0, "test/flagged": 0.0}  # not in tables where all are so
_PLACES = ("threads", "device")  # where runs ran, told if it differs
_ENDED = {"early_stopping": "stopped early", "max_time": "out of time"}

_TERMS = {
    "error": "Euclidean distance between prediction and truth; the figures are over a run's test "
    "positions.",
    "mse, rmse, bias": "Mean square of the differences of prediction and truth over both axes, its "
    "root, and the mean of each axis.",
    "exact hit": "The prediction lies in the true pixel.",
    "±": "Half the width of the 95% interval of the mean over seeds, after Student's t. Seeds "
    "change the training, the samples and, where positions are drawn at random, the positions.",
    "uniform": "Test positions at random, none of them trained on.",
    "quadrant": "The lower-right quadrant is tested and never trained on.",
    "border": "The outermost ring is tested and never trained on.",
    "iid": "Independent draws for training and test: many test positions were seen in training.",
    "closed form": "Computed, not trained, without parameters: the floor for the others.",
    "training (s)": "Time of the training epochs. Cells side by side share the machine.",
    "images/s": "Training images that went through in a second; tested: those that were answered.",
}

_SPOT_TERMS = {
    "bound": "The Cramér-Rao bound, per axis: no unbiased estimate has a smaller rmse. Root mean "
    "square over the spots.",
    "bound / rmse": "The efficiency; 1 is as good as can be.",
    "within 1 sd": "How often the truth lies within one answered deviation, per axis; 68.3% if "
    "these are right, and 95% within 1.96.",
    "pixel locking": "The part of the error that repeats with every pixel.",
    "found": "How many spots have an answer; the others have no error.",
    "flagged": "How many rows come with a reason to doubt them.",
}


class Report:
    """What a report says about a grid: its runs put together over seeds, and which model to use."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.groups = grouping.group_runs(sweep.runs, sweep.unfinished)
        self.done = [group for group in self.groups if not group.runs.empty]
        self.verdict = judge(self.groups)
        ranked = [pair for own in by_split(self.done).values() for pair in enumerate(own, start=1)]
        self._rank = {group: rank for rank, group in ranked}  # among those of its split

    @cached_property
    def columns(self) -> dict[str, Writes]:
        """Return the figures of the tables: those of `metrics`, a user's own, and the cost."""
        table = self.sweep.runs
        known = {f"test/{one.name}": (one.heading, one.write) for one in metrics.FIGURES}
        own = [key for key in table if key.startswith("test/") and key not in (*known, SEEN)]
        names = {key: key.removeprefix("test/").replace("_", " ") for key in own}
        known |= {key: (name, metrics.plain) for key, name in names.items()}
        found = [key for key in known if key in table and table[key].map(is_figure).any()]
        for key, usual in _USUAL.items():  # says nothing
            if key in found and (table[key].dropna() == usual).all():
                found.remove(key)
        cost = {key: writes for key, writes in _COST.items() if key in table}
        return {key: known[key] for key in found} | cost

    def seeds(self) -> str:
        """Say over how many seeds the figures are means."""
        counts = [len(group.runs) for group in self.done]
        if max(counts) == 1:
            return "One seed each: no intervals, and differences may be chance."
        alone = " A single seed has no interval." if min(counts) == 1 else ""
        over = f"Figures are means over {_span(counts)} seeds"
        return f"{over}, ± the 95% interval of the mean.{alone}"

    def state(self) -> str:
        """Say how much of the grid is finished: ``150 of 180 cells finished, 30 failed``."""
        done, missing = len(self.sweep.runs) + len(self.sweep.repeated), self.sweep.unfinished
        if not missing:
            return f"{done} {'cell' if done == 1 else 'cells'} finished, none open"
        return f"{done} of {done + len(missing)} cells finished, {_states(missing)}"

    def missing(self) -> dict[str, list[str]]:
        """Return the cells that failed or are open, by what is to be said of them."""
        cells = self.sweep.unfinished
        return runs.by_reason({c.name: ": ".join(filter(None, (c.state, c.reason))) for c in cells})

    def csv(self) -> str:
        """Write one row a group: means, half-widths of their 95% intervals, costs, seeds."""
        lines = []
        for group in self.groups:
            rank = self._rank.get(group)
            failed = sum(cell.state == "failed" for cell in group.unfinished)
            line: dict[str, Any] = {"split": group.split, "rank": rank}
            line |= {"model": group.model, "settings": group.label, "seeds": len(group.runs)}
            line |= {"failed": failed, "open": len(group.unfinished) - failed}
            for key in (SEEN, *self.columns):
                line[key], line[f"{key}_ci95"] = group.figure(key) or (None, None)
            for key in _PLACES:
                line[key] = texts(group.runs, key) if rank else None
            lines.append(line)
        return str(pd.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n"))

    def sections(self) -> Iterator[Section]:
        """Yield everything below the verdict, drawn."""
        splits = [*by_split(self.groups)]
        if len(splits) > 1:
            yield self._overview(splits)
        yield from map(self._ranking, splits)
        for figure in FIGURES:
            yield from figure.sections(self.done)
        if self.sweep.unfinished:
            yield self._unfinished()
        yield self._made()
        yield Section("Terms", terms=self._terms())

    def _overview(self, splits: Sequence[str]) -> Section:
        table: dict[str, dict[str, Group]] = {}
        for group in [*self.done, *self.groups]:
            table.setdefault(group.variant, {})[group.split] = group
        rows = []
        for name in [*dict.fromkeys([*self.verdict.ranking, *table])][:MANY]:
            own = [group for group in table[name].values() if not group.runs.empty]
            kind = "best" if name == self.verdict.best else "" if own else "open"
            tag = {"best": "use this" if self.verdict.holds else "errs least", "open": "open"}
            closed = "" if not own or own[0].trained else "closed form"
            entries = [Entry(name, tag=tag.get(kind, closed))]
            entries += [_entry(table[name].get(s), MEAN_ERROR, metrics.pixels) for s in splits]
            for key in ("parameters", "train_seconds"):
                means = [cost.mean for group in own if (cost := group.figure(key))]
                entries.append(Entry(_COST[key][1](sum(means) / len(means)) if means else ""))
            rows.append((kind, entries))
        caption = (
            "Mean error in px on each split, ± its 95% interval. Sorted by the error where a model "
            f"does worst among: {', '.join(self.verdict.splits)}."
        )
        head = ["model", *splits, "parameters", "training (s)"]
        return Section("Overview", caption, head=head, rows=rows)

    def _ranking(self, split: str) -> Section:
        table = self.sweep.runs
        columns = {k: one for k, one in self.columns.items() if k != "test/count"}  # the note says
        places = [key for key in _PLACES if len(set(table.get(key, []))) > 1]
        rows = []
        for group in by_split(self.groups)[split][:MANY]:
            rank = self._rank.get(group)
            name = Entry(group.model, group.label, "" if rank else "open", str(rank or ""))
            entries = [_entry(group, key, write) for key, (_, write) in columns.items()]
            ran = [Entry(texts(group.runs, key) if rank else "") for key in places]
            kind = "best" if group.variant == self.verdict.best else "" if rank else "open"
            rows.append((kind, [name, *entries, *ran, _seeds(group)]))
        caption = f"The smallest mean error first. {self.seeds()} Cost stands beside accuracy."
        for model, settings in grouping.baselines(self.groups).items():
            caption += f" The baseline of {model} is {settings}; other rows say what they change."
        head = ["model", *(title for title, _ in columns.values()), *places, "seeds"]
        return Section("Ranking", caption, split, self._protocol(split), head, rows)

    def _protocol(self, split: str) -> str:
        done = [group for group in self.done if group.split == split]
        if not done:
            return "Nothing finished yet."
        counts = [count for group in done for count in group.runs["tested"]]
        tested = f"{_span(counts)} test positions a run"
        if (many := len(by_split(self.groups)[split])) > MANY:
            tested = f"The first {MANY} of {many:,}, all are in report.csv; {tested}"
        if all(group.unseen for group in done):
            return f"{tested}; no test position was seen in training."
        return (
            f"{tested}; {grouping.seen_share(done)} of test positions were seen in training: these "
            f"figures do not say how well a model does on positions it has not seen."
        )

    def _unfinished(self) -> Section:
        caption = f"{self.state()}. The command that runs the grid continues it."
        rows = [
            ("open", [Entry(reason), Entry(str(len(cells))), Entry("\n".join(first_of(cells)))])
            for reason, cells in self.missing().items()
        ]
        head = ("state and reason", "cells", "which")
        return Section("Open and failed cells", caption, head=head, rows=rows)

    def _terms(self) -> dict[str, str]:
        """Explain what stands in the report: of splits and figures of spots, those that it has."""
        titles = {title.partition(" (")[0] for title, _ in self.columns.values()}
        absent = {*grouping.SPLITS, *_SPOT_TERMS} - {*by_split(self.groups), *titles}
        terms = _TERMS | _SPOT_TERMS
        return {term: meaning for term, meaning in terms.items() if term not in absent}

    def _made(self) -> Section:
        sweep, code = self.sweep, []
        for command in sweep.commands:
            named = any(override.startswith("experiment=") for override in command)
            grid = [] if named else ["--multirun"]
            code.append(" ".join(["python -m pixel_spotter.train", *grid, *command]))
        code.append(f"python -m pixel_spotter.report sweep={sweep.name}")
        found = [one for one in sweep.runs.get("versions", []) if isinstance(one, dict)]
        versions = pd.DataFrame(found, dtype=object)
        terms = {key: texts(sweep.runs, key) for key in reversed(_PLACES)}
        terms |= {str(name): texts(versions, name) for name in sorted(versions)}
        if sweep.repeated:
            names = ", ".join(first_of(sweep.repeated))
            terms["left out"] = f"{len(sweep.repeated)}, other runs' settings and seeds: {names}"
        caption = (
            "The same figures, unrounded, are in report.csv (a row a group) and comparison.csv (a "
            "row a run)."
        )
        return Section("How this was made", caption, code=code, terms=terms)


def render(template: str, report: Report, sections: Sequence[Section], pictures: Path) -> str:
    """Write ``report.html``, with the pictures inside, or ``report.md``, with links to them."""

    def inlined(name: str) -> str:
        return base64.b64encode((pictures / f"{name}.png").read_bytes()).decode()

    page = environment.get_template(template)
    return page.render(report=report, sections=sections, inlined=inlined)


def first_of(cells: Sequence[str], most: int = MANY) -> list[str]:
    """Return cells' names; of very many the first, and how many more there are."""
    more = [f"... and {len(cells) - most:,} more"] if len(cells) > most else []
    return [*cells[:most], *more]


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _states(cells: Sequence[Unfinished]) -> str:
    """Say how many cells are missing: ``3 failed, 1 open``."""
    counts = Counter("failed" if cell.state == "failed" else "open" for cell in cells)
    return ", ".join(f"{counts[word]} {word}" for word in sorted(counts))


def _entry(group: Group | None, key: str, write: Callable[..., str]) -> Entry:
    mean, half = (group and group.figure(key)) or (None, None)
    if mean is None:
        return Entry()
    fixed = half == 0 and key in ("epochs", "parameters")
    return Entry(write(mean), "" if half is None or fixed else f"± {write(half, mean)}")


def _seeds(group: Group) -> Entry:
    """Say how many seeds are finished, what is missing, and what ended before its last epoch."""
    whole = len(group.runs) + len(group.unfinished)
    ended = Counter(_ENDED[end] for end in group.runs.get("ended", []) if end in _ENDED)
    notes = [_states(group.unfinished), *(f"{ended[how]} {how}" for how in sorted(ended))]
    text = f"{len(group.runs)} of {whole}" if group.unfinished else str(whole)
    return Entry(text, ", ".join(filter(None, notes)))


def _as_markdown(text: object) -> str:
    plain = str(text).replace("&", "&amp;").replace("<", "&lt;")
    plain = re.sub(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain)
    return plain.replace("\n", "<br>")


environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
environment.filters["md"] = _as_markdown
