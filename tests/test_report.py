import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CommandServer, read_json
from PIL import Image
from sweeps import columns, images_of, metrics_of, plan, write_cell

from pixel_spotter import metrics, runs
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import Figure
from pixel_spotter.report import find_sweep, print_report, write_report
from pixel_spotter.reporting.page import Report
from pixel_spotter.reporting.table import read_sweep
from pixel_spotter.reporting.verdict import seconds

NASTY = "<script>alert(1)</script> & | *why* `x` [a](b) _c_ $d$"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models on two splits; one never ran, one is half done."""
    folder = tmp_path_factory.mktemp("sweeps") / "mine"
    for split, seen in (("uniform", 0.0), ("iid", 0.64)):
        for seed in (0, 1):
            share = {"test/seen_in_training": seen}
            write_cell(
                folder, "cnn", split, seed, 0.25 + 0.5 * seed, epochs=(4.0, 2.0, 1.0), **share
            )
            write_cell(folder, "argmax", split, seed, 0.0, parameters=0, **share)
            write_cell(folder, "resnet18", split, seed, failure=NASTY)
    own = {"test/box_iou": 0.75, "test/own_figure": 0.125, "ended": "early_stopping"}
    own |= {"train_seconds": 2.34}
    write_cell(folder, "yolo", "uniform", 0, 5.0, **own)
    write_cell(folder, "yolo", "uniform", 1, finished=False)
    (folder / "seed=9,left_out").mkdir()
    write_report(folder)
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out of reports."""
    monkeypatch.setattr("pixel_spotter.reporting.page.FIGURES", ())


@pytest.fixture(scope="module")
def page(sweep: Path) -> str:
    return (sweep / "report.html").read_text()


class Tables(HTMLParser):
    """The tables of a page by their classes and parts: rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[tuple[str | None, str | None], list[list[str]]] = {}
        self.current: list[list[str]] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "table":
            self.current = self.rows.setdefault((named["class"], named["data-part"]), [])
        elif self.current is not None and tag == "tr":
            self.current.append([])
        elif self.current is not None and tag in ("td", "th"):
            self.current[-1].append("")
        elif self.current is not None and tag in ("small", "span") and self.current[-1][-1]:
            self.current[-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.current = None

    def handle_data(self, data: str) -> None:
        if self.current and self.current[-1]:
            self.current[-1][-1] += data.strip()


def ranking(page: str, split: str) -> list[dict[str, str]]:
    head, *rows = Tables(page).rows["ranking", split]
    return [dict(zip(head, row, strict=True)) for row in rows]


def markdown_tables(text: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for part in text.split("\n## ")[1:]:
        title = part.split("\n")[0]
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.split("\n") if line[:1] == "|"]
        cells = [[one.strip() for one in line] for line in lines]
        found[title] = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return found


def table(sweep: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((sweep / "report.csv").read_text())))


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    sources = re.findall(r'(?:src|href|xlink:href|action|data|poster|srcset)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"https?:|@import|<script|<link(?! rel=\"icon\" href=\"data:)", page)
    assert all(one.startswith("#") for one in re.findall(r"url\((.*?)\)", page))


def test_every_link_within_the_page_leads_somewhere(page: str) -> None:
    links = set(re.findall(r'<a href="#([^"]*)"', page))
    assert {"ranking", "open-and-failed-cells", "terms"} <= links
    assert links <= set(re.findall(r'<h2 id="([^"]*)"', page))


def test_the_page_starts_with_the_verdict(page: str) -> None:
    assert page.index("Of the trained models, use cnn.") < page.index("<table")
    assert "The floor: argmax" in page


def test_what_a_user_wrote_is_text_on_the_page(page: str, sweep: Path) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; | *why*" in page
    text = (sweep / "report.md").read_text()
    written = r"&lt;script>alert(1)&lt;/script> &amp; \| \*why\* \`x\` \[a\](b) \_c\_ \$d\$"
    assert f"failed: {written}" in text
    assert "<script>" not in text


def test_names_of_splits_and_models_are_text_too(tmp_path: Path) -> None:
    for model in ("<b>", "a_b"):
        write_cell(tmp_path, model, "<i>|", epochs=(2.0, 1.0))
    write_report(tmp_path)
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert not re.search(r"<b>|<i>\|", page + text)
    assert "&lt;b>" in text
    assert "a_b" in text
    assert "## Ranking: &lt;i>\\|" in text
    for name in re.findall(r"\]\(report/(.*?)\)", text):
        assert (
            tmp_path / "report" / name.replace("%3C", "<").replace("%3E", ">").replace("%7C", "|")
        ).is_file()


def test_the_ranking_has_the_best_first_and_the_open_last(page: str) -> None:
    uniform, iid = ranking(page, "uniform"), ranking(page, "iid")
    assert [row["model"] for row in uniform] == ["1argmax", "2cnn", "3yolo", "resnet18 open"]
    assert [row["model"] for row in iid] == ["1argmax", "2cnn", "resnet18 open"]
    assert [row["seeds"] for row in uniform] == [
        "2",
        "2",
        "1 of 2 1 open, 1 stopped early",
        "0 of 2 2 failed",
    ]
    assert set(uniform[-1].values()) == {"resnet18 open", "-", "0 of 2 2 failed"}


def test_the_best_and_the_open_stand_out(page: str) -> None:
    kind_and_name = r'<tr class="(\w*)">\s*<th>(?:<span class="rank">\d+</span>)?(\w+)'
    rows = re.findall(kind_and_name, page.partition('class="open" data-part')[0])
    assert {*rows} == {("best", "cnn"), ("", "argmax"), ("", "yolo"), ("open", "resnet18")}


def test_the_overview_is_in_the_order_of_the_verdict(page: str) -> None:
    head, *rows = Tables(page).rows["overview", ""]
    assert head == ["model", "uniform", "iid", "parameters", "training (s)"]
    assert [row[0] for row in rows] == [
        "argmax closed form", "cnn use this", "yolo", "resnet18 open"
    ]  # fmt: skip
    assert rows[1][1:] == ["0.500 ± 3.177", "0.500 ± 3.177", "1,234", "10"]
    assert rows[2][1:3] == ["5.000", "-"]


def test_mean_and_interval_of_the_seeds_are_on_the_page(page: str) -> None:
    # errors 0.25 and 0.75: t(0.975, 1) = 12.7062, times 0.25
    row = ranking(page, "uniform")[1]
    assert row["mean error (px)"] == "0.500 ± 3.177"
    assert row["parameters"] == "1,234"
    assert row["epochs"] == "2"
    assert row["exact hits"].split()[0] == "50.0%"
    assert row["training (s)"] == "10 ± 0"


def test_one_seed_has_no_interval_and_own_figures_a_column(page: str) -> None:
    seeds = (
        "means over 1 to 2 seeds, ± the 95% interval of the mean. A single seed has no interval."
    )
    assert seeds in page
    argmax, cnn, yolo, _ = ranking(page, "uniform")
    assert yolo["mean error (px)"] == "5.000"
    assert yolo["box IoU"] == "0.750"
    assert yolo["own figure"] == "0.125"
    assert argmax["box IoU"] == cnn["own figure"] == "-"


def test_the_markdown_has_the_tables_of_the_page(page: str, sweep: Path) -> None:
    tables = markdown_tables((sweep / "report.md").read_text())
    for split in ("uniform", "iid"):
        shown, written = ranking(page, split), tables[f"Ranking: {split}"]
        assert len(shown) == len(written)
        for one, other in zip(shown, written, strict=True):
            assert one.keys() == other.keys()
            assert {k: v for k, v in one.items() if k != "model" and v != "-"} == {
                k: v.replace("&lt;", "<") for k, v in other.items() if k != "model" and v
            }
    names = [row["model"] for row in tables["Ranking: uniform"]]
    assert names == ["1. argmax", "2. cnn", "3. yolo", "resnet18 *open*"]


def test_the_csv_has_the_figures_of_the_page(page: str, sweep: Path) -> None:
    ways = {
        "mean error (px)": ("test/mean_error_px", metrics.pixels),
        "worst (px)": ("test/max_error_px", metrics.pixels),
        "rmse (px)": ("test/rmse_px", metrics.pixels),
        "bias y (px)": ("test/bias_y_px", metrics.plain),
        "exact hits": ("test/hit_rate", metrics.share),
        "training (s)": ("train_seconds", seconds),
        "images/s": ("train_images_per_second", metrics.whole),
    }
    compared = 0
    for line in table(sweep):
        if line["seeds"] == "0":
            assert line["rank"] == line["test/mean_error_px"] == line["device"] == ""
            assert (line["failed"], line["open"]) == ("2", "0")
            continue
        shown = ranking(page, line["split"])[int(line["rank"]) - 1]
        assert shown["model"] == line["rank"] + line["model"]
        for title, (key, write) in ways.items():
            mean, half = float(line[key]), line[f"{key}_ci95"]
            interval = f" ± {write(float(half), mean)}" if half else ""
            assert shown[title] == write(mean) + interval
            compared += 1
    assert compared == 5 * len(ways)


def test_the_csv_has_the_figures_of_the_runs(sweep: Path) -> None:
    (line,) = (one for one in table(sweep) if (one["model"], one["split"]) == ("cnn", "iid"))
    files = [f for f in sweep.glob("*/metrics.json") if "split=iid,model=cnn" in f.parent.name]
    found = [read_json(file) for file in files]
    assert len(found) == int(line["seeds"]) == 2
    for key in ("test/mean_error_px", "test/p95_error_px", "test/count", "train_seconds"):
        assert float(line[key]) == pytest.approx(sum(m[key] for m in found) / 2)
    assert (line["threads"], line["device"], line["failed"], line["open"]) == ("1", "cpu", "0", "0")
    yolo = next(one for one in table(sweep) if one["model"] == "yolo")
    assert (yolo["failed"], yolo["open"], yolo["test/own_figure"]) == ("0", "1", "0.125")


def test_every_run_is_in_the_comparison_the_best_first(sweep: Path) -> None:
    with (sweep / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    errors = [float(row["test/mean_error_px"]) for row in rows]
    assert errors == sorted(errors)
    assert len(rows) == 9
    assert rows[-1]["cell"] == "data.split=uniform,model=yolo,seed=0"
    assert rows[-1]["image_size"] == "[16, 16]"
    assert rows[-1]["epochs"] == "2"
    assert not {"versions", "folder", "settings", "predictions"} & rows[0].keys()


@pytest.mark.usefixtures("undrawn")
def test_a_new_figure_is_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = Figure("luck_px", "luck", "px", metrics.pixels, ("x",), lambda c: 0.375)
    monkeypatch.setattr(metrics, "FIGURES", (*metrics.FIGURES[:2], new, *metrics.FIGURES[2:]))
    for seed in (0, 1):
        write_cell(tmp_path, "cnn", seed=seed, **{"test/luck_px": 0.25 + 0.25 * seed})
    write_report(tmp_path)
    head, row = Tables((tmp_path / "report.html").read_text()).rows["ranking", "uniform"]
    assert head[3] == "luck (px)"
    assert row[3] == "0.375 ± 1.588"
    (written,) = markdown_tables((tmp_path / "report.md").read_text())["Ranking: uniform"]
    assert written["luck (px)"] == "0.375 ± 1.588"
    assert table(tmp_path)[0]["test/luck_px"] == "0.375"
    assert "test/luck_px" in (tmp_path / "comparison.csv").read_text().split("\n")[0]


def test_every_figure_that_runs_have_is_shown_in_its_order(page: str) -> None:
    head = [*ranking(page, "uniform")[0]]
    assert head == [
        "model", "mean error (px)", "median (px)", "95% (px)", "worst (px)", "mse (px²)",
        "rmse (px)", "exact hits", "within 1 px", "bias x (px)", "bias y (px)", "box IoU",
        "own figure", "epochs", "parameters", "training (s)", "images/s", "seeds",
    ]  # fmt: skip
    assert "3 test positions a run" in page


@pytest.mark.usefixtures("undrawn")
def test_places_are_told_apart_where_they_differ(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn", threads=4)
    write_cell(tmp_path, "cnn", seed=1, threads=2)
    write_cell(tmp_path, "svm", threads=1)
    write_report(tmp_path)
    rows = ranking((tmp_path / "report.html").read_text(), "uniform")
    assert [row["threads"] for row in rows] == ["2, 4", "1"]
    assert "device" not in rows[0]


def test_what_was_seen_in_training_is_said_plainly(page: str, sweep: Path) -> None:
    for text in (page, (sweep / "report.md").read_text()):
        assert "64% of test positions were seen in training" in text
        assert "no test position was seen in training" in text


def test_pictures_of_every_kind_are_drawn_once(page: str, sweep: Path) -> None:
    text = (sweep / "report.md").read_text()
    linked = re.findall(r"\]\((report/.*?)\)", text)
    assert {f"report/{file.name}" for file in (sweep / "report").iterdir()} == set(linked)
    assert len(linked) == len(set(linked))
    inlined = re.findall(r'<img src="data:image/png;base64,(.*?)" alt="(.*?)"', page)
    assert [base64.b64decode(data) for data, _ in inlined] == [
        (sweep / name).read_bytes() for name in linked
    ]
    assert [alt for _, alt in inlined] == re.findall(r"!\[(.*?)\]", text)
    widths = [int(width) for width in re.findall(r'style="max-width:(\d+)px', page)]
    kinds = {re.split(r"[_.]", name.removeprefix("report/"))[0] for name in linked}
    assert kinds == {"frontier", "training", "error", "worst"}
    for name, width in zip(linked, widths, strict=True):
        with Image.open(sweep / name) as image:
            image.load()
            assert image.width == pytest.approx(2 * width, abs=3), "sharp on fine screens as well"
            assert len(image.convert("RGB").getcolors(10**6) or []) > 20


def test_pictures_of_an_earlier_report_go(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn")
    (tmp_path / "report").mkdir()
    for name in ("old.png", "mine.txt"):
        (tmp_path / "report" / name).write_text("")
    write_report(tmp_path)
    assert {"mine.txt", "frontier.png"} <= {file.name for file in (tmp_path / "report").iterdir()}
    assert not (tmp_path / "report/old.png").exists()


def test_open_and_failed_cells_are_named_and_equal_reasons_told_once(
    page: str, sweep: Path
) -> None:
    assert "9 of 14 cells finished, 4 failed, 1 open" in page
    head, failed, open_ = Tables(page).rows["open", ""]
    assert head == ["state and reason", "cells", "which"]
    assert failed[:2] == [f"failed: {NASTY}", "4"]
    assert failed[2].split("\n") == [
        f"data.split={split},model=resnet18,seed={seed}"
        for split in ("iid", "uniform")
        for seed in (0, 1)
    ]
    assert open_ == ["interrupted or running", "1", "data.split=uniform,model=yolo,seed=1"]
    assert "left_out" not in page
    assert (sweep / "report.md").read_text().count("alert(1)") == 1


def test_reasons_are_put_together(sweep: Path) -> None:
    assert [*runs.by_reason(runs.failures(sweep))] == [NASTY]
    assert runs.by_reason({"a": "x", "b": "y", "c": "x"}) == {"x": ["a", "c"], "y": ["b"]}


def test_the_same_runs_make_the_same_files(sweep: Path) -> None:
    before = {file.name: file.read_bytes() for file in sweep.glob("report.*")}
    write_report(sweep)
    assert {file.name: file.read_bytes() for file in sweep.glob("report.*")} == before


def test_the_command(run_command: CommandServer, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/sweeps/mine"
    write_cell(folder, "cnn", error=0.5)
    write_cell(folder, "cnn", seed=1, failure="no weights")
    ended = run_command("report", "sweep=mine", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "Use cnn." in ended.stdout
    assert "1 of 2 cells finished, 1 failed" in ended.stdout
    assert "1 failed: no weights\n    data.split=uniform,model=cnn,seed=1\n" in ended.stdout
    assert "outputs/sweeps/mine/report.html" in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"], "something was left behind"


def test_a_reason_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(tmp_path, "cnn", error=0.5)
    for seed in range(7):
        write_cell(tmp_path, "svm", seed=seed, failure="no weights")
    print_report(Report(read_sweep(tmp_path)), tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("no weights") == 1
    assert "  7 failed: no weights\n" in printed
    assert printed.count("model=svm,seed=") == 5
    assert "    ... and 2 more\n" in printed


def test_a_name_before_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    for folder in ("outputs/sweeps/mine", "mine", "other/grid"):
        Path(folder).mkdir(parents=True)
    assert find_sweep("mine") == Path("outputs/sweeps/mine")
    assert find_sweep("./mine").resolve() == Path("mine").resolve()
    assert find_sweep("other") == Path("other")
    assert find_sweep("~/grid") == tmp_path / "other/grid"


def error_of(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        write_report(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_folder_that_is_not_there(run_command: CommandServer, tmp_path: Path) -> None:
    error = run_command("report", "sweep=nothing", cwd=tmp_path).error()
    assert "nothing is neither a grid" in error


def test_an_empty_folder(run_command: CommandServer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no run folders" in run_command("report", "sweep=empty", cwd=tmp_path).error()
    assert list((tmp_path / "empty").iterdir()) == []


def test_nothing_finished(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn", seed=0, failure="no weights")
    write_cell(tmp_path, "cnn", seed=1, finished=False)
    error = error_of(tmp_path)
    assert "1 failed" in error
    assert "1 interrupted" in error
    assert "no weights" in error


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"accuracy": 1}', "\x00", '{"model": "cnn"}', '{"model": 1}']
)
def test_figures_that_are_not_ours(content: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / runs.METRICS).write_text(content)
    assert "metrics.json" in error_of(tmp_path)


@pytest.mark.parametrize("value", ["NaN", "null", '"many"', "[1]"])
def test_figures_that_are_no_numbers(value: str, tmp_path: Path) -> None:
    file = write_cell(tmp_path, "cnn") / runs.METRICS
    file.write_text(re.sub(r'("train_seconds": )[\d.]+', rf"\1{value}", file.read_text()))
    assert "train_seconds" in error_of(tmp_path)


def test_a_size_that_is_none(tmp_path: Path) -> None:
    for k, size in enumerate((None, [16], "16", [16, 0])):
        write_cell(tmp_path / str(k), "cnn", image_size=size)
        assert "metrics.json" in error_of(tmp_path / str(k))


def test_figures_without_a_config(tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / runs.CONFIG).unlink()
    assert "lacks .hydra/config.yaml" in error_of(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a,b\n1,2\n",
        "split,x_true,y_true,x_pred,y_pred\n",
        "split,x_true,y_true,x_pred,y_pred\ntest,1,2,3\n",
        "split,x_true,y_true,x_pred,y_pred\ntest,1,2,3,many\n",
        "split,x_true,y_true,x_pred,y_pred\ntest,1,2,nan,1\n",
        "split,x_true,y_true,x_pred,y_pred\ntest,1,2,3,4\n",  # one of three
        "split,x_true,y_true,x_pred,y_pred\n" + "test,99,2,3,4\n" * 3,
        "x,y,x_true,y_true\n" + "1,2,1,15.6\n" * 3,
        "x,y,x_true,y_true\n" + "1,2,-0.6,1\n" * 3,
        "\x00\x01",
    ],
)
def test_predictions_that_are_not_ours(content: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / runs.PREDICTIONS).write_text(content)
    assert "predictions.csv" in error_of(tmp_path)


def test_predictions_that_are_gone(run_command: CommandServer, tmp_path: Path) -> None:
    (write_cell(tmp_path / "mine", "cnn") / runs.PREDICTIONS).unlink()
    assert "predictions.csv" in run_command("report", "sweep=mine", cwd=tmp_path).error()


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml"])
@pytest.mark.parametrize("content", ["{a: [", "1"])
def test_a_damaged_config(name: str, content: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / ".hydra" / name).write_text(content)
    assert name in error_of(tmp_path)


@pytest.mark.parametrize("name", [runs.EPOCHS, runs.WORST])
def test_damage_beside_the_figures(name: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / name).write_text("damage")
    assert name in error_of(tmp_path)


def test_truths_between_pixels_up_to_the_edges_of_the_image(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "cnn")
    tested = columns(
        [[0.2, 0.0], [3.0, 4.0], [15.0, 15.0]], [[-0.3, -0.5], [3.4, 4.0], [15.5, 15.5]]
    )
    inside = {name: values.clamp(-0.5, 15.49) for name, values in tested.items()}
    runs.write_predictions(folder, tested)
    runs.write_images(folder, runs.WORST, tested, images_of(inside))
    runs.write_metrics(folder, metrics_of("cnn", "uniform", 0, tested))
    write_report(tmp_path)
    assert (tmp_path / "report/worst_uniform.png").is_file()


def test_runs_of_version_0_1_are_read(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "cnn")
    (folder / runs.WORST).unlink()
    rows = "test,1,2,2,2\ntest,3,4,3,5\ntest,15,0,14,0\n"
    (folder / runs.PREDICTIONS).write_text("split,x_true,y_true,x_pred,y_pred\n" + rows)
    (folder.parent / "multirun.yaml").write_text("hydra: {}\n")
    report = write_report(tmp_path)
    assert report.state() == "1 cell finished, none open"
    assert not list((tmp_path / "report").glob("worst*"))
    assert not list((tmp_path / "report").glob("training*"))


@pytest.mark.usefixtures("undrawn")
def test_the_same_settings_and_seed_count_once(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn").rename(tmp_path / "again")
    write_cell(tmp_path, "cnn")
    write_cell(tmp_path, "cnn", seed=1)
    report = write_report(tmp_path)
    assert [len(group.runs) for group in report.groups] == [2]
    assert report.sweep.repeated == ["data.split=uniform,model=cnn,seed=0"]
    assert "left out" in (tmp_path / "report.md").read_text()


def test_a_precision_that_nobody_chose_tells_runs_of_before_not_apart(tmp_path: Path) -> None:
    """It was 32-true by default, and is auto; what was chosen stands in a cell's overrides."""
    for seed, default in enumerate(("32-true", "auto")):
        config = write_cell(tmp_path, "cnn", seed=seed) / runs.CONFIG
        settings = yaml.safe_load(config.read_text())
        settings["trainer"]["precision"] = default
        config.write_text(yaml.safe_dump(settings))
    chosen = {"trainer.precision": "32-true"}
    write_cell(tmp_path, "cnn", seed=0, settings=chosen)
    groups = Report(read_sweep(tmp_path)).groups
    assert {group.label: len(group.runs) for group in groups} == {
        "precision=auto": 2,
        "precision=32-true": 1,
    }


def cells(*models: str, seeds: tuple[int, ...] = (0, 1)) -> list[dict[str, str]]:
    return [
        {"data.split": "uniform", "model": model, "seed": str(seed)}
        for model in models
        for seed in seeds
    ]


def test_cells_that_were_never_begun_are_open(tmp_path: Path) -> None:
    plan(tmp_path, ["experiment=x", "seed=0,1"], *cells("cnn", "svm"))
    write_cell(tmp_path, "cnn", seed=0)
    (tmp_path / "data.split=uniform,model=svm,seed=0").mkdir()
    (tmp_path / "data.split=uniform,model=svm,seed=1").mkdir()
    (tmp_path / "data.split=uniform,model=svm,seed=1" / runs.LOCK).touch()
    found = read_sweep(tmp_path)
    assert [(cell.model, cell.state) for cell in found.unfinished] == [
        ("cnn", "not begun"), ("svm", "not begun"), ("svm", "interrupted or running")
    ]  # fmt: skip
    report = Report(found)
    assert report.state() == "1 of 4 cells finished, 3 open"
    assert [(g.model, len(g.runs), len(g.unfinished)) for g in report.groups] == [
        ("cnn", 1, 1),
        ("svm", 0, 2),
    ]


def test_terms_and_columns_are_those_that_say_something(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn", "uniform", **{"test/found": 1.0, "test/flagged": 0.0})
    (terms,) = (
        one.terms for one in Report(read_sweep(tmp_path)).sections() if one.title == "Terms"
    )
    assert {"uniform", "error"} <= terms.keys()
    assert not terms.keys() & {"iid", "border", "bound", "found", "flagged"}
    assert "test/found" not in Report(read_sweep(tmp_path)).columns
    more = {"test/found": 0.9, "test/flagged": 0.1, "test/bound_px": 0.1}
    write_cell(tmp_path, "svm", "edge", **more)
    (terms,) = (
        one.terms for one in Report(read_sweep(tmp_path)).sections() if one.title == "Terms"
    )
    assert {"bound", "found", "flagged"} <= terms.keys()
    assert {*more} <= Report(read_sweep(tmp_path)).columns.keys()


@pytest.mark.usefixtures("undrawn")
def test_every_command_of_the_plan_is_shown(tmp_path: Path) -> None:
    plan(tmp_path, ["experiment=x", "seed=0,1"], *cells("cnn"))
    runs.add_to_plan(tmp_path, ["model=svm", "name=mine"], {})
    write_cell(tmp_path, "cnn", seed=0)
    write_report(tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "python -m pixel_spotter.train experiment=x seed=0,1\n" in text
        assert "python -m pixel_spotter.train --multirun model=svm name=mine\n" in text
        assert f"python -m pixel_spotter.report sweep={tmp_path.name}" in text


def test_a_damaged_plan(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn")
    (tmp_path / runs.PLAN).write_text(json.dumps({"cells": 1}))
    assert "plan.json" in error_of(tmp_path)


def test_settings_are_the_label(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for epochs in (1, 2):
            write_cell(
                tmp_path, "cnn", error=lr * epochs,
                settings={"optim.lr": lr, "trainer.max_epochs": epochs},
            )  # fmt: skip
    report = write_report(tmp_path)
    assert sorted(group.label for group in report.groups) == [
        f"lr={lr}, max_epochs={epochs}" for lr in (0.1, 0.2) for epochs in (1, 2)
    ]
    page = (tmp_path / "report.html").read_text()
    assert "Error against epochs" in page
    assert "One seed each: no intervals" in page
    assert ranking(page, "uniform")[0]["model"] == "1cnn lr=0.1, max_epochs=1"
    assert "| 1. cnn, lr=0.1, max_epochs=1 |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "report/over_epochs.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_the_baseline_of_an_ablation_is_told(tmp_path: Path) -> None:
    for settings in ({}, {"optim.lr": 0.5}, {"trainer.max_epochs": 9}):
        write_cell(tmp_path, "cnn", settings=settings)
    write_report(tmp_path)
    told = "The baseline of cnn is lr=0.001, max_epochs=2; other rows say what they change."
    assert told in (tmp_path / "report.html").read_text()
    assert told in (tmp_path / "report.md").read_text()


def test_what_a_solved_model_does_not_use_tells_none_apart(tmp_path: Path) -> None:
    for kind in (
        {"optim.lr": 0.1, "trainer.max_epochs": 8},
        {"optim.lr": 0.2, "scheduler._target_": "torch.optim.lr_scheduler.ConstantLR"},
    ):
        for seed in (0, 1):
            own = kind | {"model.blur_px": 1}
            write_cell(tmp_path, "svm", seed=seed, settings=own, lr=None)
            write_cell(tmp_path, "cnn", seed=seed, settings=kind)
    missing = {"optim.lr": 0.2, "model.blur_px": 1}
    write_cell(tmp_path, "svm", seed=2, settings=missing, failure="no memory")
    write_cell(tmp_path, "cnn", seed=2, settings={"optim.lr": 0.3}, failure="no memory")
    write_cell(tmp_path, "svm", settings={"model.blur_px": 3}, lr=None)
    report = Report(read_sweep(tmp_path))
    svm = [group for group in report.groups if group.model == "svm"]
    found = {group.label: (len(group.runs), len(group.unfinished)) for group in svm}
    assert found == {"blur_px=1": (2, 1), "blur_px=3": (1, 0)}
    assert len([group for group in report.groups if group.model == "cnn"]) == 3
    assert len(report.sweep.repeated) == 2
    assert report.state() == "9 of 11 cells finished, 2 failed"


def test_a_failed_ablation_stands_with_its_model(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn")
    folder = tmp_path / "ablation=resnet18,seed=0"
    (folder / ".hydra").mkdir(parents=True)
    (folder / runs.FAILURE).write_text("no weights\n")
    (folder / runs.OVERRIDES).write_text("- ablation=resnet18\n- seed=0\n")
    (folder / runs.CONFIG).write_text("seed: 0\ndata: {split: uniform}\n")
    chosen = "hydra:\n  runtime:\n    choices: {model: resnet18, ablation: resnet18}\n"
    (folder / runs.HYDRA).write_text(chosen)
    (failed,) = read_sweep(tmp_path).unfinished
    assert (failed.model, failed.split, failed.reason) == ("resnet18", "uniform", "no weights")
    assert failed.state == "failed"


def test_a_finished_cell_stays_finished_whatever_failed_in_it_later(tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / "failure.txt").write_text("holds a run with other settings")
    sweep = read_sweep(tmp_path)
    assert (len(sweep.runs), sweep.unfinished) == (1, [])


def scene(sweep: Path, scenario: str, estimator: str, finished: bool = True, **data: float) -> None:
    """Write a run of spots, whose data know of no split, as a cell of a grid of scenarios."""
    settings = {"model.estimator": estimator, **{f"data.{k}": v for k, v in data.items()}}
    speed: Any = {"test_images_per_second": 7}
    folder = write_cell(sweep, estimator, None, settings=settings, finished=finished, **speed)
    chosen = {"model": "closed_form", "model.estimator": estimator, "scenario": scenario}
    if "test_samples" in data:
        chosen["data.test_samples"] = str(data["test_samples"])
    (folder / runs.OVERRIDES).write_text(yaml.safe_dump([f"{k}={v}" for k, v in chosen.items()]))


def test_scenarios_are_splits_and_stand_for_their_settings(tmp_path: Path) -> None:
    for estimator in ("phasor", "centroid"):
        scene(tmp_path, "isolated", estimator, margin_px=8)
        scene(tmp_path, "edge", estimator, margin_px=0)
    scene(tmp_path, "edge", "least_squares", finished=False)
    report = write_report(tmp_path)
    assert sorted((g.split, g.variant, len(g.runs), len(g.unfinished)) for g in report.groups) == [
        ("edge", "centroid", 1, 0),
        ("edge", "least_squares", 0, 1),
        ("edge", "phasor", 1, 0),
        ("isolated", "centroid", 1, 0),
        ("isolated", "phasor", 1, 0),
    ]
    page = (tmp_path / "report.html").read_text()
    assert [row["model"] for row in ranking(page, "edge")][-1] == "least_squares open"
    assert {row["tested images/s"] for row in ranking(page, "isolated")} == {"7"}


@pytest.mark.usefixtures("undrawn")
def test_what_a_grid_of_scenarios_sets_still_tells_apart(tmp_path: Path) -> None:
    for samples in (10, 20):
        scene(tmp_path, "edge", "phasor", margin_px=0, test_samples=samples)
    labels = {group.label for group in write_report(tmp_path).groups}
    assert labels == {"test_samples=10", "test_samples=20"}
