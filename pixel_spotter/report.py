"""Report on a grid: ``python -m pixel_spotter.report sweep=NAME``."""

import csv
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from pixel_spotter.cli.start import run_command
from pixel_spotter.errors import UserError
from pixel_spotter.files import atomic_write, write_text
from pixel_spotter.reporting import page, plots
from pixel_spotter.reporting.cells import Cell, read_sweep
from pixel_spotter.reporting.groups import MEAN_ERROR
from pixel_spotter.reporting.page import Report

SWEEPS = Path("outputs/sweeps")
PAGE = "report.html"

_LISTED = 20
"""So many unfinished cells are named on the command line; the page names them all."""


def write_report(folder: Path) -> Report:
    """Write a grid's report into its folder.

    ``report.html`` is one file with everything in it; ``report.md`` has its pictures in
    ``report/``; ``report.csv`` has a row for each model and setting, ``comparison.csv`` for each
    run.

    Raises:
        UserError: if the folder holds no finished run, or something that is not ours.
        OSError: if it cannot be read or written.
    """
    report = Report.of(read_sweep(folder))
    curves = page.training_curves(report)
    _write_runs(folder / "comparison.csv", report.sweep.finished)
    write_text(folder / "report.csv", page.table_csv(report))
    drawn = page.pictures(report, curves)
    for old in (folder / "report").glob("*.png"):
        if old.name not in {picture.name for picture in drawn}:
            old.unlink()
    for picture in drawn:
        plots.save(picture.figure, folder / "report" / picture.name)
    write_text(folder / "report.md", page.page_markdown(report, drawn))
    write_text(folder / PAGE, page.page_html(report, curves))
    return report


def print_report(report: Report, folder: Path) -> None:
    """Print the answer, what is unfinished, and where the page is."""
    print(f"\n{report.verdict.headline}")
    for reason in report.verdict.reasons:
        print(f"  {reason}")
    print(f"\n{report.state()}. {report.seeds()}")
    unfinished = [*report.sweep.failed, *report.sweep.open]
    for cell in unfinished[:_LISTED]:
        print(f"  {cell.name}: {cell.state}{f': {cell.reason}' if cell.reason else ''}")
    if len(unfinished) > _LISTED:
        print(f"  ... and {len(unfinished) - _LISTED} more, named on the page")
    print(f"Report: {folder / PAGE}")


def find_sweep(sweep: str) -> Path:
    """Return the folder that a grid's name, or a path, stands for.

    Raises:
        UserError: if there is none.
    """
    named = SWEEPS / sweep
    if sweep and Path(sweep).name == sweep and named.is_dir():
        return named
    if not sweep or not Path(sweep).is_dir():
        raise UserError(f"sweep={sweep} is neither a grid in {SWEEPS} nor a folder")
    return Path(sweep)


def _write_runs(path: Path, cells: Sequence[Cell]) -> None:
    """Write every run's figures, the smallest mean error first."""
    rows = [{"cell": cell.folder.name, **cell.metrics} for cell in cells]
    rows.sort(key=lambda row: row[MEAN_ERROR])
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "versions"))
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def run(cfg: DictConfig) -> None:
    """Report on the grid that the config names."""
    folder = find_sweep(str(cfg.sweep))
    print_report(write_report(folder), folder)


def main() -> None:
    """Run the command."""
    run_command("report", run, paths=("sweep",))


if __name__ == "__main__":
    main()
