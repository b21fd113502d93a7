"""What version 0.1 reported of the comparison of all models, from what its runs found."""

import ast
import csv
from pathlib import Path

import pytest
import yaml
from sweeps import columns

from pixel_spotter import runs
from pixel_spotter.reporting.page import Report
from pixel_spotter.reporting.table import comparison, read_sweep

GOLDEN = Path(__file__).parents[1] / "golden"

VERDICT = """\
Of the trained models, use heatmap.
Of 8 trained models it has the smallest error where it does worst: 0.002 ± 0.003 px on uniform; \
0.002 ± 0.004 px on quadrant and 0.002 ± 0.003 px on border.
It has 153 parameters and trains in 7.8 s (1,329 images/s).
The floor: argmax and centroid, computed in closed form without any training, find every position \
exactly. On images as clean as these nothing needs to be learned; the trained models show what \
learning costs.
More than a pixel off, on average, where positions were never seen: yolo (1.205 ± 2.033 px on \
border), resnet18_scratch (12.08 ± 1.71 px on quadrant), coordconv (15.12 ± 4.89 px on border), \
cnn (15.24 ± 1.69 px on quadrant), ensemble (15.59 ± 1.63 px on quadrant), simcc (17.37 ± 7.29 px \
on quadrant) and svm (18.04 ± 0.32 px on quadrant)."""


def value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def read(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("compare")
    for row in read("compare_comparison.csv"):
        cell = folder / row["cell"]
        metrics = {k: value(v) for k, v in row.items() if k != "cell" and v}
        runs.write_metrics(cell, metrics)
        positions = [[0, 0]] * int(row["test/count"])
        runs.write_predictions(cell, columns(positions, positions))
        config = {"seed": metrics["seed"], "data": {"split": row["split"], "seed": "${seed}"}}
        (cell / ".hydra").mkdir()
        (cell / runs.CONFIG).write_text(yaml.safe_dump(config))
        (cell / runs.OVERRIDES).write_text(yaml.safe_dump(row["cell"].split(",")))
    for split in ("uniform", "quadrant", "border", "iid"):
        for seed in (0, 1, 2):
            cell = folder / f"data.split={split},model=resnet18,seed={seed}"
            (cell / ".hydra").mkdir(parents=True)
            (cell / runs.OVERRIDES).write_text(yaml.safe_dump(cell.name.split(",")))
            (cell / runs.FAILURE).write_text("no weights\n")
    return Report(read_sweep(folder))


def test_every_figure_of_the_report_is_the_same(report: Report) -> None:
    golden = read("compare_report.csv")
    found = list(csv.DictReader(report.csv().splitlines()))
    assert len(found) == len(golden) == 44
    shown = [{key: row[key] for key in old} for row, old in zip(found, golden, strict=True)]
    assert shown == golden


def test_every_figure_of_the_runs_is_the_same(report: Report) -> None:
    written = list(csv.DictReader(comparison(report.sweep.runs).splitlines()))
    assert written == read("compare_comparison.csv")


def test_the_verdict_says_the_same(report: Report) -> None:
    verdict = report.verdict
    rival = "Next is yolo with 1.205 ± 2.033 px on border, in 62 s"
    assert verdict.reasons[2].startswith(rival)
    assert [verdict.headline, *verdict.reasons[:2], *verdict.reasons[3:]] == VERDICT.splitlines()
    assert report.state() == "184 of 196 cells finished, 12 failed"
