"""A finished grid, side by side: tables and plots."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from matplotlib.figure import Figure
from omegaconf import DictConfig

from pixel_spotter import plots, runs
from pixel_spotter.commands import user_message
from pixel_spotter.coordinates import as_size
from pixel_spotter.files import atomic_write, write_text

_TABLE = (
    ("cell", "cell", "{}"),
    ("model", "model", "{}"),
    ("split", "split", "{}"),
    ("lr", "lr", "{:g}"),
    ("epochs", "epochs", "{}"),
    ("seed", "seed", "{}"),
    ("test/mean_error_px", "mean error (px)", "{:.3f}"),
    ("test/median_error_px", "median (px)", "{:.3f}"),
    ("test/p95_error_px", "95% (px)", "{:.3f}"),
    ("test/max_error_px", "worst (px)", "{:.2f}"),
    ("test/hit_rate", "exact hits", "{:.1%}"),
    ("test/within_1px", "within 1 px", "{:.1%}"),
    ("test/seen_in_training", "positions seen in training", "{:.0%}"),
    ("parameters", "parameters", "{:,}"),
    ("train_seconds", "training (s)", "{:.0f}"),
    ("train_images_per_second", "images/s", "{:,.0f}"),
)
"""Columns of comparison.md: key in metrics.json, title, format."""


class CompareGrid(Callback):
    """Writes the comparison when a grid ends, and ends the command in an error if cells failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the failures of earlier tries: this one has its own."""
        for failure in Path(config.hydra.sweep.dir).glob(f"*/{runs.FAILURE}"):
            failure.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the grid's cells."""
        folder = Path(config.hydra.sweep.dir)
        # Hydra turns exceptions of callbacks into warnings; SystemExit goes through.
        try:
            failures = compare(folder)
        except Exception as error:
            raise SystemExit(
                f"error: no comparison: {user_message(error) or repr(error)}"
            ) from error
        print(f"\nComparison: {folder / 'comparison.md'}")
        if failures:
            lines = "\n".join(f"  {cell}: {reason}" for cell, reason in failures.items())
            raise SystemExit(f"error: {len(failures)} cells failed:\n{lines}")


def compare(folder: Path) -> dict[str, str]:
    """Write ``comparison.csv``, ``comparison.md`` and their plots into a grid's folder.

    Returns:
        The cells that failed, each with its reason.
    """
    cells = sorted(path for path in folder.iterdir() if path.is_dir())
    failures = {
        cell.name: (cell / runs.FAILURE).read_text(encoding="utf-8").strip()
        for cell in cells
        if (cell / runs.FAILURE).is_file()
    }
    finished = [cell for cell in cells if runs.is_finished(cell) and cell.name not in failures]
    rows = [{"cell": cell.name, **runs.read_metrics(cell)} for cell in finished]
    rows.sort(key=lambda row: row["test/mean_error_px"])
    _write_csv(folder / "comparison.csv", rows)
    if rows:
        plots.save(plots.error_against_epochs(rows), folder / "error_against_epochs.png")
        plots.save(plots.cost_against_error(rows), folder / "cost_against_error.png")
        plots.save(_error_maps(folder, rows), folder / "error_maps.png")
    write_text(folder / "comparison.md", _markdown(folder.name, rows, failures))
    return failures


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "versions"))
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _error_maps(folder: Path, rows: Sequence[dict[str, Any]]) -> Figure:
    maps = {}
    for row in rows:
        cell = folder / row["cell"]
        title = row["cell"].replace(",", "\n") + f"\n{row['test/mean_error_px']:.2f} px"
        maps[title] = (*runs.read_predictions(cell), as_size(row["image_size"]))
    return plots.error_maps(maps)


def _markdown(name: str, rows: Sequence[dict[str, Any]], failures: dict[str, str]) -> str:
    lines = [f"# {name}", "", f"{len(rows)} finished cells, best first.", ""]
    if rows:
        lines += [_protocol(rows), "", *_table(rows), ""]
        lines += [
            f"![{title}]({file}.png)\n"
            for title, file in (
                ("error against epochs", "error_against_epochs"),
                ("cost against error", "cost_against_error"),
                ("error by position", "error_maps"),
            )
        ]
    if failures:
        lines += [f"## Failed: {len(failures)}", ""]
        lines += [f"- `{cell}`: {reason}" for cell, reason in failures.items()]
        lines.append("")
    return "\n".join(lines)


def _protocol(rows: Sequence[dict[str, Any]]) -> str:
    """Say which figures are on positions that training never saw."""
    unseen = sum(row["test/seen_in_training"] == 0 for row in rows)
    if unseen == len(rows):
        return "All figures are on test positions never seen in training."
    shares = [row["test/seen_in_training"] for row in rows if row["test/seen_in_training"] > 0]
    low, high = math.floor(100 * min(shares)), math.ceil(100 * max(shares))
    span = f"{low}%" if low == high else f"{low} to {high}%"
    which = "All cells" if unseen == 0 else f"{len(shares)} of {len(rows)} cells"
    return (
        f"**{which} were tested on positions of which {span} were seen in training**: those "
        f"figures do not say how well a model does elsewhere. Where the column says 0%, test "
        f"positions were never seen."
    )


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    titles = [title for _, title, _ in _TABLE]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [layout.format(row[key]) for key, _, layout in _TABLE]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
