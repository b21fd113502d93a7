import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import CommandServer, read_json
from omegaconf import OmegaConf
from PIL import Image
from sweeps import write_cell
from torch.utils.tensorboard import SummaryWriter

from pixel_spotter.errors import UserError
from pixel_spotter.report import find_sweep, write_report
from pixel_spotter.reporting import wording
from pixel_spotter.reporting.cells import read_sweep
from pixel_spotter.reporting.page import Report

NASTY = "<script>alert(1)</script> & | *why*"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models on two splits; one never ran, one is half done."""
    folder = tmp_path_factory.mktemp("sweeps") / "mine"
    for split, seen in (("uniform", 0.0), ("iid", 0.64)):
        for seed in (0, 1):
            share = {"test/seen_in_training": seen}
            run = write_cell(folder, "cnn", split, seed, 0.25 + 0.5 * seed, **share)
            with SummaryWriter(str(run)) as writer:
                for epoch in range(3):
                    writer.add_scalar("val/mean_error_px", 4.0 / (epoch + 1), epoch)
            write_cell(folder, "argmax", split, seed, 0.0, parameters=0, **share)
            write_cell(folder, "resnet18", split, seed, failure=NASTY)
    own = {"test/box_iou": 0.75}
    write_cell(folder, "yolo", "uniform", 0, 5.0, **own)
    write_cell(folder, "yolo", "uniform", 1, finished=False)
    (folder / "seed=9,left_out").mkdir()
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(sweep: Path) -> str:
    return (sweep / "report.html").read_text()


class Tables(HTMLParser):
    """The ranking tables: split -> rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.current: list[list[str]] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "table":
            split = named.get("data-split")
            self.current = self.rows.setdefault(split, []) if split else None
        elif self.current is not None and tag == "tr":
            self.current.append([])
        elif self.current is not None and tag in ("td", "th"):
            self.current[-1].append("")
        elif self.current is not None and tag == "small":
            self.current[-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.current = None

    def handle_data(self, data: str) -> None:
        if self.current and self.current[-1]:
            self.current[-1][-1] += data.strip()


def table(sweep: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((sweep / "report.csv").read_text())))


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    sources = re.findall(r'(?:src|href|xlink:href|action|data|poster|srcset)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"https?:|@import|<script|<link(?! rel=\"icon\" href=\"data:)", page)
    assert all(one.startswith("#") for one in re.findall(r"url\((.*?)\)", page))


def test_the_page_starts_with_the_verdict(page: str) -> None:
    assert page.index("Of the trained models, use cnn.") < page.index("<table")
    assert "The floor: argmax" in page


def test_what_a_user_wrote_is_text_on_the_page(page: str, sweep: Path) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; | *why*" in page
    text = (sweep / "report.md").read_text()
    assert "<script>" not in text
    assert "\\| \\*why\\*" in text


def test_the_ranking_has_the_best_first_and_the_open_last(page: str) -> None:
    rows = Tables(page).rows
    assert list(rows) == ["uniform", "iid"]
    assert [row[0] for row in rows["uniform"][1:]] == ["1argmax", "2cnn", "3yolo", "resnet18"]
    assert [row[0] for row in rows["iid"][1:]] == ["1argmax", "2cnn", "resnet18"]
    assert rows["uniform"][-1][1].startswith("open: 2 failed: <script>")
    assert rows["uniform"][-1][-1] == "0 of 2"
    assert rows["uniform"][3][-1] == "1 of 2 1 open"


def test_mean_and_interval_of_the_seeds_are_on_the_page(page: str) -> None:
    # errors 0.25 and 0.75: t(0.975, 1) = 12.7062, times 0.25
    cells = dict(zip(*(Tables(page).rows["uniform"][k] for k in (0, 2)), strict=True))
    assert cells["mean error (px)"] == "0.500 ±3.177"
    assert cells["parameters"].strip() == "1,234"
    assert cells["exact hits"].split()[0] == "50.0%"


def test_one_seed_has_no_interval_and_extra_figures_a_column(page: str) -> None:
    cells = dict(zip(*(Tables(page).rows["uniform"][k] for k in (0, 3)), strict=True))
    assert cells["mean error (px)"].strip() == "5.000"
    assert cells["box iou"].strip() == "0.750"
    cells = dict(zip(*(Tables(page).rows["uniform"][k] for k in (0, 2)), strict=True))
    assert cells["box iou"] == "-"


def test_the_csv_has_the_figures_of_the_page(page: str, sweep: Path) -> None:
    ways = {
        "mean error (px)": ("test/mean_error_px", wording.pixels),
        "worst (px)": ("test/max_error_px", wording.pixels),
        "exact hits": ("test/hit_rate", wording.share),
        "training (s)": ("train_seconds", wording.seconds),
        "images/s": ("train_images_per_second", wording.whole),
    }
    rows = Tables(page).rows
    compared = 0
    for line in table(sweep):
        if line["seeds"] == "0":
            assert line["rank"] == line["test/mean_error_px"] == ""
            assert line["failed"] == "2"
            continue
        shown = dict(
            zip(rows[line["split"]][0], rows[line["split"]][int(line["rank"])], strict=True)
        )
        for title, (key, write) in ways.items():
            mean, half = float(line[key]), line[f"{key}_ci95"]
            assert shown[title].split()[0] == write(mean)
            if half:
                assert shown[title].split()[1] == "±" + write(float(half), mean)
            compared += 1
    assert compared == 5 * len(ways)


def test_the_csv_has_the_figures_of_the_runs(sweep: Path) -> None:
    (line,) = (one for one in table(sweep) if (one["model"], one["split"]) == ("cnn", "iid"))
    files = [f for f in sweep.glob("*/metrics.json") if "split=iid,model=cnn" in f.parent.name]
    metrics = [read_json(file) for file in files]
    assert len(metrics) == int(line["seeds"]) == 2
    for key in ("test/mean_error_px", "test/p95_error_px", "train_seconds"):
        assert float(line[key]) == pytest.approx(sum(m[key] for m in metrics) / 2)


def test_what_was_seen_in_training_is_said_plainly(page: str, sweep: Path) -> None:
    for text in (page, (sweep / "report.md").read_text()):
        assert "64% of test positions were seen in training" in text
        assert "no test position was seen in training" in text


def test_pictures_of_every_kind(page: str, sweep: Path) -> None:
    for section in ("frontier", "training", "maps", "worst"):
        part = page.split(f'id="{section}"')[1].split("</section>")[0]
        assert "<svg" in part or "data:image/png" in part, section
    text = (sweep / "report.md").read_text()
    linked = re.findall(r"\]\((report/.*?)\)", text)
    assert {f"report/{file.name}" for file in (sweep / "report").iterdir()} == set(linked)
    assert len(linked) >= 5
    for name in linked:
        with Image.open(sweep / name) as image:
            image.load()
            assert len(image.convert("RGB").getcolors(10**6) or []) > 20


def test_open_and_failed_cells_are_named(page: str) -> None:
    assert "9 of 14 cells finished, 4 failed, 1 open" in page
    part = page.split('id="unfinished"')[1].split("</section>")[0]
    assert "data.split=uniform,model=yolo,seed=1" in part.replace("<wbr>", "")
    assert part.count("<td>failed</td>") == 4
    assert "left_out" not in page


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
    assert "data.split=uniform,model=cnn,seed=1: failed: no weights" in ended.stdout
    assert "outputs/sweeps/mine/report.html" in ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"], "something was left behind"


def test_a_name_before_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("outputs/sweeps/mine", "mine", "other"):
        Path(folder).mkdir(parents=True)
    assert find_sweep("mine") == Path("outputs/sweeps/mine")
    assert find_sweep("./mine").resolve() == Path("mine").resolve()
    assert find_sweep("other") == Path("other")


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


@pytest.mark.parametrize("content", ["{", "[]", '{"accuracy": 1}', "\x00", '{"model": "cnn"}'])
def test_figures_that_are_not_ours(content: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / "metrics.json").write_text(content)
    assert "metrics.json" in error_of(tmp_path)


def test_figures_that_are_no_numbers(tmp_path: Path) -> None:
    file = write_cell(tmp_path, "cnn") / "metrics.json"
    file.write_text(re.sub(r'("train_seconds": )[\d.]+', r"\1NaN", file.read_text()))
    assert "train_seconds" in error_of(tmp_path)


def test_figures_without_a_config(tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / ".hydra/config.yaml").unlink()
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
        "\x00\x01",
    ],
)
def test_predictions_that_are_not_ours(content: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / "predictions.csv").write_text(content)
    assert "predictions.csv" in error_of(tmp_path)


def test_predictions_that_are_gone(run_command: CommandServer, tmp_path: Path) -> None:
    (write_cell(tmp_path / "mine", "cnn") / "predictions.csv").unlink()
    assert "predictions.csv" in run_command("report", "sweep=mine", cwd=tmp_path).error()


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml"])
def test_a_damaged_config(name: str, tmp_path: Path) -> None:
    (write_cell(tmp_path, "cnn") / ".hydra" / name).write_text("{a: [")
    assert name in error_of(tmp_path)


def test_the_same_settings_and_seed_count_once(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn").rename(tmp_path / "again")
    write_cell(tmp_path, "cnn")
    report = Report.of(read_sweep(tmp_path))
    assert [len(group.cells) for group in report.groups] == [1]
    assert len(report.sweep.repeated) == 1


def plan(folder: Path, command: list[str], **params: str) -> None:
    exclude = ["name", "experiment"]
    content = {
        "sweeper": {"params": params},
        "overrides": {"task": command},
        "job": {"config": {"override_dirname": {"exclude_keys": exclude}}},
    }
    folder.mkdir(exist_ok=True)
    (folder / "multirun.yaml").write_text(OmegaConf.to_yaml({"hydra": content}))


def test_cells_that_were_never_begun_are_open(tmp_path: Path) -> None:
    plan(tmp_path, ["experiment=x", "seed=0,1"], model="cnn,svm", **{"data.split": "uniform"})
    write_cell(tmp_path, "cnn", seed=0)
    found = read_sweep(tmp_path)
    assert [(cell.model, cell.state) for cell in found.open] == [
        ("cnn", "not begun"), ("svm", "not begun"), ("svm", "not begun")
    ]  # fmt: skip
    report = Report.of(found)
    assert [(g.model, len(g.cells), len(g.unfinished)) for g in report.groups] == [
        ("cnn", 1, 1),
        ("svm", 0, 2),
    ]


def test_cells_left_out_on_purpose_are_not_open(tmp_path: Path) -> None:
    plan(tmp_path, ["seed=0,1,2,3"], model="cnn", **{"data.split": "uniform"})
    for seed in (0, 1):
        write_cell(tmp_path, "cnn", seed=seed, settings={"grid_seeds": 2}).rename(
            tmp_path / f"data.split=uniform,model=cnn,seed={seed}"
        )
    (tmp_path / "data.split=uniform,model=cnn,seed=2").mkdir()
    assert read_sweep(tmp_path).unfinished == []


@pytest.mark.parametrize("content", ["", "a: 1", "{", "hydra: 1", "[]"])
def test_a_plan_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn")
    (tmp_path / "multirun.yaml").write_text(content)
    assert read_sweep(tmp_path).unfinished == []


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
    assert (tmp_path / "report/over_epochs.png").is_file()


def test_a_failed_ablation_stands_with_its_model(tmp_path: Path) -> None:
    write_cell(tmp_path, "cnn")
    folder = tmp_path / "ablation=resnet18,seed=0"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "failure.txt").write_text("no weights\n")
    (folder / ".hydra/overrides.yaml").write_text("- ablation=resnet18\n- seed=0\n")
    (folder / ".hydra/config.yaml").write_text("seed: 0\ndata: {split: uniform}\n")
    chosen = "hydra:\n  runtime:\n    choices: {model: resnet18, ablation: resnet18}\n"
    (folder / ".hydra/hydra.yaml").write_text(chosen)
    (failed,) = read_sweep(tmp_path).failed
    assert (failed.model, failed.split, failed.reason) == ("resnet18", "uniform", "no weights")
