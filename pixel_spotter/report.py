"""Report on a grid: ``python -m pixel_spotter.report sweep=NAME``."""

from pixel_spotter.cli.begin import begin

if __name__ == "__main__":
    begin("report")  # before anything slow is imported

from pathlib import Path

from omegaconf import DictConfig

from pixel_spotter.cli.start import run_command
from pixel_spotter.errors import UserError
from pixel_spotter.files import write_text
from pixel_spotter.reporting.figures.drawing import save
from pixel_spotter.reporting.page import Report, first_of, render
from pixel_spotter.reporting.table import comparison, read_sweep

SWEEPS = Path("outputs/sweeps")
PAGE = "report.html"

_LISTED = 5  # so many cells are named for each reason; the page names more


def write_report(folder: Path) -> Report:
    """Write a grid's report into its folder; refuse one without finished runs, or that is damaged.

    ``report.html`` is one file with all in it; ``report.md`` has its pictures in ``report/``;
    ``report.csv`` has a row for each model and setting, ``comparison.csv`` for each run.
    """
    report = Report(read_sweep(folder))
    write_text(folder / "comparison.csv", comparison(report.sweep.runs))
    write_text(folder / "report.csv", report.csv())
    sections, pictures, drawn = [], folder / "report", set()
    for section in report.sections():
        sections.append(section)
        if section.figure is not None:
            drawn.add(f"{section.name}.png")
            save(section.figure, pictures / f"{section.name}.png", dpi=192)  # twice the page's
            section.figure.clear()  # its size is all that is still needed
    for old in pictures.glob("*.png"):
        if old.name not in drawn:
            old.unlink()
    for name in ("report.md", PAGE):
        write_text(folder / name, render(name, report, sections, pictures))
    return report


def print_report(report: Report, folder: Path) -> None:
    """Print the answer, what is unfinished, and where the page is."""
    print(f"\n{report.verdict.headline}")
    for reason in report.verdict.reasons:
        print(f"  {reason}")
    print(f"\n{report.state()}. {report.seeds()}")
    for reason, cells in report.missing().items():
        print(f"  {len(cells)} {reason}", *first_of(cells, _LISTED), sep="\n    ")
    print(f"Report: {folder / PAGE}")


def find_sweep(sweep: str) -> Path:
    """Return the folder that a grid's name, or a path, stands for."""
    named, path = SWEEPS / sweep, Path(sweep).expanduser()
    if sweep and Path(sweep).name == sweep and named.is_dir():
        return named
    if not sweep or not path.is_dir():
        raise UserError(f"sweep={sweep} is neither a grid in {SWEEPS} nor a folder")
    return path


def run(cfg: DictConfig) -> None:
    """Report on the grid that the config names."""
    folder = find_sweep(str(cfg.sweep))
    print_report(write_report(folder), folder)


if __name__ == "__main__":
    run_command("report", run)
