"""A grid's report as a page, as Markdown, and as a table for machines."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixel_spotter.reporting import charts, wording
from pixel_spotter.reporting.cells import Sweep
from pixel_spotter.reporting.groups import (
    MEAN_ERROR,
    Curve,
    Estimate,
    Group,
    Miss,
    baselines,
    curves_over,
    extra_figures,
    group_runs,
    seen_share,
    splits_of,
    training_curve,
)
from pixel_spotter.reporting.plots import ERROR_RANGE_PX
from pixel_spotter.reporting.verdict import Verdict, judge
from pixel_spotter.simulation.pixels import render_pixels

WORST = 4
"""So many of a model's worst predictions are shown on each split."""

_AXES = (("data.train_samples", "training samples"), ("trainer.max_epochs", "epochs"))
"""Settings over which curves are drawn where they vary, and the words on the axis."""

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@dataclass(frozen=True)
class Column:
    """A column of the ranking table: the figure's key, its title, and how it is written."""

    key: str
    title: str
    write: Callable[..., str]
    constant: bool = False
    """Whether the figure is the same in every run, as a rule: then it has no interval."""


_ACCURACY = (
    Column(MEAN_ERROR, "mean error (px)", wording.pixels),
    Column("test/median_error_px", "median (px)", wording.pixels),
    Column("test/p95_error_px", "95% (px)", wording.pixels),
    Column("test/max_error_px", "worst (px)", wording.pixels),
    Column("test/hit_rate", "exact hits", wording.share),
    Column("test/within_1px", "within 1 px", wording.share),
)
_COST = (
    Column("epochs", "epochs", wording.whole, constant=True),
    Column("parameters", "parameters", wording.whole, constant=True),
    Column("train_seconds", "training (s)", wording.seconds),
    Column("train_images_per_second", "images/s", wording.whole),
)


@dataclass(frozen=True)
class Entry:
    """A cell of a table: a figure and its interval, as written; both empty where there is none."""

    text: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a ranking table."""

    rank: int | None
    group: Group
    entries: list[Entry]
    seeds: str
    ran_on: str
    missing: str
    why: str


@dataclass(frozen=True)
class Report:
    """What a report says about a grid, before any of it is drawn.

    Args:
        sweep: the grid.
        groups: its runs, put together over seeds and ranked.
        verdict: which model to use.
    """

    sweep: Sweep
    groups: list[Group]
    verdict: Verdict

    @classmethod
    def of(cls, sweep: Sweep) -> "Report":
        """Sum up a grid."""
        groups = group_runs(sweep.finished, sweep.unfinished)
        return cls(sweep, groups, judge(groups))

    @property
    def splits(self) -> list[str]:
        """Return the splits, in the order in which they are shown."""
        return splits_of(self.groups)

    @property
    def columns(self) -> list[Column]:
        """Return the figures of the ranking tables."""
        extra = [
            Column(key, key.removeprefix("test/").replace("_", " "), wording.plain)
            for key in extra_figures(self.groups)
        ]
        return [*_ACCURACY, *extra, *_COST]

    def on(self, split: str) -> list[Group]:
        """Return a split's groups, the smallest mean error first, the open ones last."""
        return [group for group in self.groups if group.split == split]

    def done(self, split: str) -> list[Group]:
        """Return a split's groups that have finished runs."""
        return [group for group in self.on(split) if group.cells]

    def rows(self, split: str) -> list[Row]:
        """Return the lines of a split's ranking table."""
        ranks = {id(group): rank for rank, group in enumerate(self.done(split), 1)}
        return [
            Row(
                ranks.get(id(group)),
                group,
                [_entry(group, column) for column in self.columns],
                _seeds(group),
                f"{group.texts('threads')} / {group.texts('device')}" if group.cells else "",
                _missing(group),
                next((cell.reason for cell in group.unfinished if cell.reason), ""),
            )
            for group in self.on(split)
        ]

    def protocol(self, split: str) -> str:
        """Say whether training had seen a split's test positions."""
        done = self.done(split)
        if not done:
            return "nothing finished yet"
        if all(group.unseen for group in done):
            return "no test position was seen in training"
        return f"{seen_share(done)} of test positions were seen in training"

    def seeds(self) -> str:
        """Say over how many seeds the figures are means."""
        counts = sorted({len(group.cells) for group in self.groups if group.cells})
        if counts == [1]:
            return "One seed each: no intervals, and differences may be chance."
        span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        alone = " A single seed has no interval." if counts[0] == 1 else ""
        return f"Figures are means over {span} seeds, ± the 95% interval of the mean.{alone}"

    def state(self) -> str:
        """Say how much of the grid is finished: ``150 of 180 cells finished, 30 failed``."""
        finished = len(self.sweep.finished)
        parts = [
            f"{len(cells)} {word}"
            for cells, word in ((self.sweep.failed, "failed"), (self.sweep.open, "open"))
            if cells
        ]
        if not parts:
            return f"{finished} {'cell' if finished == 1 else 'cells'} finished, none open"
        whole = finished + len(self.sweep.unfinished)
        return f"{finished} of {whole} cells finished, {', '.join(parts)}"


@dataclass(frozen=True)
class Picture:
    """A picture beside the Markdown: file name, title, what to see, and the drawing."""

    name: str
    title: str
    caption: str
    figure: Figure


_ENVIRONMENT.filters["soft"] = lambda text: _soft(text)


def table_csv(report: Report) -> str:
    """Write one row a group: means, half-widths of their 95% intervals, costs, seeds."""
    keys = [column.key for column in report.columns]
    header = ["split", "rank", "model", "settings", "seeds", "failed", "open"]
    for key in ("test/seen_in_training", *keys):
        header += [key, f"{key}_ci95"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, "threads", "device"])
    for split in report.splits:
        for row in report.rows(split):
            group = row.group
            failed = sum(cell.state == "failed" for cell in group.unfinished)
            line: list[Any] = [
                split,
                row.rank or "",
                group.model,
                group.label,
                len(group.cells),
                failed,
                len(group.unfinished) - failed,
            ]
            for key in ("test/seen_in_training", *keys):
                known = group.figure(key) if group.cells and group.has(key) else None
                line += ["", ""] if known is None else [known.mean, _blank(known.half)]
            places = [group.texts("threads"), group.texts("device")] if group.cells else ["", ""]
            writer.writerow([*line, *places])
    return text.getvalue()


def page_html(report: Report, curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """Write the page, with everything it needs inside.

    Args:
        report: what to say.
        curves: the training curves, see `training_curves`.
    """
    lines = _line_charts(report, curves)
    return _ENVIRONMENT.get_template("report.html").render(
        **_words(report),
        frontier_legend=_model_colours(report) if any(g.label for g in report.groups) else {},
        frontiers={
            split: charts.svg(charts.panel(draw, (4.8, 3.5)))
            for split, draw in _frontiers(report).items()
        },
        lines=[
            chart.drawn(
                {t: charts.svg(charts.panel(d, chart.size)) for t, d in chart.draws.items()}
            )
            for chart in lines
        ],
        maps={split: [_map(group) for group in report.done(split)] for split in report.splits},
        error_bar=charts.png(charts.error_bar()),
        error_range=ERROR_RANGE_PX,
        enlarged=charts.ENLARGED_PX,
        worst={split: _worst(report.done(split)) for split in report.splits},
    )


def page_markdown(report: Report, pictures: Sequence[Picture]) -> str:
    """Write the report as Markdown, which shows pictures from the folder ``report``."""
    return _ENVIRONMENT.get_template("report.md").render(**_words(report), pictures=pictures)


def pictures(report: Report, curves: Mapping[str, Mapping[str, Curve]]) -> list[Picture]:
    """Draw the pictures that stand beside the Markdown."""
    found = []
    frontiers = _frontiers(report)
    if frontiers:
        caption = (
            "Training time against mean error, both logarithmic. The dashed line joins the models "
            "that none beats in both."
        )
        figure = charts.sheet(frontiers, columns=2, size=(4.8, 3.6))
        found.append(Picture("frontier.png", "Accuracy and cost", caption, figure))
    for chart in _line_charts(report, curves):
        figure = charts.sheet(chart.draws, legend=chart.legend)
        found.append(Picture(f"{chart.name}.png", chart.title, chart.caption, figure))
    for split in report.splits:
        maps = {
            f"{group.variant}, {wording.pixels(group.error.mean)} px".replace(", ", "\n"): (
                group.error_by_position()
            )
            for group in report.done(split)
        }
        if maps:
            caption = "Mean error at every test position, over seeds; grey was never tested."
            figure = charts.error_sheet(maps)
            found.append(
                Picture(f"error_{split}.png", f"Error by position: {split}", caption, figure)
            )
    for split in report.splits:
        missing = [group for group in report.done(split) if not group.exact]
        for size in dict.fromkeys(group.size for group in missing):
            rows = {g.variant: g.worst(WORST) for g in missing if g.size == size}
            caption = (
                f"The largest errors over all seeds: ring at the truth, cross at the prediction. "
                f"Where the error is below {charts.ENLARGED_PX} px, a part of the image is shown."
            )
            figure = charts.misses_sheet(rows, size)
            name = f"worst_{split}_{size[0]}x{size[1]}.png"
            found.append(Picture(name, f"Worst predictions: {split}", caption, figure))
    return found


def training_curves(report: Report) -> dict[str, dict[str, Curve]]:
    """Read the training curves: panel -> line -> curve.

    A model is a panel, with a line for each split, or for each of its settings; a model that has
    several of both has a panel for each setting.
    """
    several_splits = len(report.splits) > 1
    labels: dict[str, set[str]] = {}
    for group in report.groups:
        if group.cells:
            labels.setdefault(group.model, set()).add(group.label)
    panels: dict[str, dict[str, Curve]] = {}
    for group in report.groups:
        curve = training_curve(group) if group.cells and group.trained else None
        if curve is None or len(curve.x) < 2:
            continue
        by_setting = len(labels[group.model]) > 1 and several_splits
        line = group.split if several_splits else group.label or group.split
        panels.setdefault(group.variant if by_setting else group.model, {})[line] = curve
    return panels


@dataclass(frozen=True)
class LineChart:
    """Small multiples of curves.

    Args:
        name: the picture's file name.
        title: what stands above.
        caption: what to see.
        legend: what the colours mean.
        draws: the drawing of each panel, by its title.
    """

    name: str
    title: str
    caption: str
    legend: dict[str, str]
    draws: dict[str, Callable[[Axes], None]]

    @property
    def size(self) -> tuple[float, float]:
        """Return a panel's width and height, inches: few panels are shown larger."""
        return (4.8, 3.4) if len(self.draws) < 3 else (3.3, 2.5)

    def drawn(self, panels: Mapping[str, str]) -> dict[str, Any]:
        """Return what the page shows of it."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "legend": self.legend,
            "panels": panels,
        }


def _line_charts(report: Report, curves: Mapping[str, Mapping[str, Curve]]) -> list[LineChart]:
    found = []
    for key, words in _AXES:
        by_split = {split: curves_over(key, report.done(split)) for split in report.splits}
        exact = {n for lines in by_split.values() for n, c in lines.items() if not c.positive}
        by_split = {
            split: {name: curve for name, curve in lines.items() if curve.positive}
            for split, lines in by_split.items()
        }
        by_split = {split: lines for split, lines in by_split.items() if lines}
        if by_split:
            name = f"over_{words.split()[-1]}"
            caption = (
                f"Mean error on test positions against the number of {words}, a line a model, "
                f"with its 95% interval; both axes are logarithmic."
            )
            if exact:
                caption += f" Not drawn, as their error is 0: {', '.join(sorted(exact))}."
            found.append(_line_chart(name, f"Error against {words}", caption, by_split, words))
    if curves:
        caption = (
            "Mean error on validation positions after each epoch, mean over seeds with its 95% "
            "interval. The error axis is the same in every panel. In quadrant and border these "
            "positions lie in the region that is trained on: a good curve says nothing about the "
            "test."
        )
        found.append(_line_chart("training", "Learning curves", caption, curves, ""))
    return found


def _line_chart(
    name: str, title: str, caption: str, panels: Mapping[str, Mapping[str, Curve]], over: str
) -> LineChart:
    """Arrange curves; ``over`` is the setting on a logarithmic axis, empty for epochs passed."""
    names = list(dict.fromkeys(line for lines in panels.values() for line in lines))
    if any("=" in name for name in names):  # settings: by their values, not by the errors
        names.sort(key=_natural)
    colours = charts.colours_of(names)
    values = [
        y.mean for lines in panels.values() for c in lines.values() for y in c.y if y.mean > 0
    ]
    span = (min(values) / 1.5, max(values) * 1.5) if values else None
    draws: dict[str, Callable[[Axes], None]] = {
        panel: partial(
            charts.draw_curves,
            curves=lines,
            colours=colours,
            x_label=over or "epoch",
            log_x=bool(over),
            log_range=span,
        )
        for panel, lines in panels.items()
    }
    return LineChart(name, title, caption, colours, draws)


def _natural(text: str) -> list[tuple[float, str]]:
    """Sort numbers inside a text by their values."""
    words = re.split(r"([\d.]+(?:e[+-]?\d+)?)", text)
    return [(float(w), "") if k % 2 and w.strip(".") else (0.0, w) for k, w in enumerate(words)]


def _soft(text: str) -> Markup:
    """Allow a long name to be broken where its words end."""
    return Markup(re.sub(r"([_,=])", r"\1<wbr>", str(escape(text))))


def _frontiers(report: Report) -> dict[str, Callable[[Axes], None]]:
    """Return the drawing of time against error for each split that has trained models."""
    colours = _model_colours(report)
    draws: dict[str, Callable[[Axes], None]] = {}
    for split in report.splits:
        done = report.done(split)
        trained = [group for group in done if group.trained]
        if trained:
            draws[split] = partial(
                charts.draw_frontier,
                points={g.variant: (g.figure("train_seconds").mean, g.error) for g in trained},
                floor={g.model: g.error.mean for g in reversed(done) if not g.trained},
                colours={g.variant: colours[g.model] for g in trained},
                names={g.variant: g.label or g.model for g in trained},
            )
    return draws


def _model_colours(report: Report) -> dict[str, str]:
    return charts.colours_of(g.model for g in report.groups if g.cells and g.trained)


def _words(report: Report) -> dict[str, Any]:
    """Return what the page and the Markdown both say."""
    cells = report.sweep.finished
    versions: dict[str, set[str]] = {}
    for cell in cells:
        for name, version in (cell.metrics.get("versions") or {}).items():
            versions.setdefault(name, set()).add(str(version))
    splits = [
        {
            "name": split,
            "protocol": report.protocol(split),
            "unseen": all(group.unseen for group in report.done(split)),
            "positions": "/".join(
                str(n) for n in sorted({len(g.cells[0].xy_true) for g in report.done(split)})
            ),
            "rows": report.rows(split),
        }
        for split in report.splits
    ]
    command = report.sweep.command
    train = "python -m pixel_spotter.train " + " ".join(
        [*([] if any(o.startswith("experiment=") for o in command) else ["--multirun"]), *command]
    )
    return {
        "name": report.sweep.name,
        "verdict": report.verdict,
        "state": report.state(),
        "seeds": report.seeds(),
        "splits": splits,
        "columns": report.columns,
        "baselines": baselines(report.groups),
        "overview": _overview(report),
        "unfinished": [*report.sweep.failed, *report.sweep.open],
        "repeated": report.sweep.repeated,
        "train_command": train if command else "",
        "report_command": f"python -m pixel_spotter.report sweep={report.sweep.name}",
        "versions": {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())},
        "devices": ", ".join(sorted({str(cell.metrics.get("device", "?")) for cell in cells})),
        "threads": ", ".join(sorted({str(cell.metrics.get("threads", "?")) for cell in cells})),
    }


def _overview(report: Report) -> list[dict[str, Any]]:
    """Return a line for each model: its error on every split, and what it costs."""
    by_variant: dict[str, dict[str, Group]] = {}
    for group in report.groups:
        by_variant.setdefault(group.variant, {})[group.split] = group
    done = [name for name in by_variant if any(g.cells for g in by_variant[name].values())]
    ranked = report.verdict.ranking
    order = [
        *ranked,
        *(n for n in done if n not in ranked),
        *(n for n in by_variant if n not in done),
    ]
    lines = []
    for name in order:
        found = [group for group in by_variant[name].values() if group.cells]
        entries = []
        for split in report.splits:
            here = by_variant[name].get(split)
            entry = _entry(here, _ACCURACY[0]) if here else Entry()
            colour = charts.error_colour(here.error.mean) if here and here.cells else ""
            entries.append((entry, colour))
        lines.append(
            {
                "name": name,
                "best": name == report.verdict.best,
                "trained": not found or found[0].trained,
                "entries": entries,
                "parameters": wording.whole(_mean(found, "parameters")) if found else "",
                "seconds": wording.seconds(_mean(found, "train_seconds")) if found else "",
                "open": not found,
            }
        )
    return lines


def _mean(groups: Sequence[Group], key: str) -> float:
    return sum(group.figure(key).mean for group in groups) / len(groups)


def _entry(group: Group, column: Column) -> Entry:
    """Write a figure of a group; nothing where it has none."""
    if not group.cells or not group.has(column.key):
        return Entry()
    figure = group.figure(column.key)
    return Entry(column.write(figure.mean), _interval(figure, column))


def _interval(figure: Estimate, column: Column) -> str:
    if figure.half is None or (column.constant and figure.half == 0):
        return ""
    return "±" + column.write(figure.half, figure.mean)


def _seeds(group: Group) -> str:
    whole = len(group.cells) + len(group.unfinished)
    return f"{len(group.cells)}" if not group.unfinished else f"{len(group.cells)} of {whole}"


def _missing(group: Group) -> str:
    """Say what is missing of a group: ``3 failed, 1 open``."""
    failed = sum(cell.state == "failed" for cell in group.unfinished)
    counts = ((failed, "failed"), (len(group.unfinished) - failed, "open"))
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def _map(group: Group) -> dict[str, Any]:
    height, width = group.size
    picture = charts.png(charts.error_colours(group.error_by_position()))
    return {
        "name": group.variant,
        "error": wording.pixels(group.error.mean),
        "picture": picture,
        "height": height,
        "width": width,
    }


def _worst(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "name": group.variant,
            "exact": group.exact,
            "misses": [] if group.exact else [_miss(m, group) for m in group.worst(WORST)],
        }
        for group in groups
    ]


def _miss(miss: Miss, group: Group) -> dict[str, Any]:
    height, width = group.size
    image = render_pixels(miss.xy_true[None].long(), group.size)[0, 0]
    (x, y), (x_pred, y_pred) = miss.xy_true.tolist(), miss.xy_pred.tolist()
    left, top, shown_width, shown_height = charts.view(miss, group.size)
    return {
        "picture": charts.png(charts.grey(image.numpy())),
        "view": f"{left:g} {top:g} {shown_width} {shown_height}",
        "true": (f"{x:g}", f"{y:g}"),
        "cross": (
            round(min(max(x_pred, left), left + shown_width), 3),
            round(min(max(y_pred, top), top + shown_height), 3),
        ),
        "guess": (f"{x_pred:.2f}", f"{y_pred:.2f}"),
        "error": wording.pixels(miss.error),
        "seed": miss.seed,
        "height": height,
        "width": width,
        "unit": round(max(shown_width, shown_height) / 50, 3),
    }
