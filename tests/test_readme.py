"""Every code block of the README, and of the pages it sends to, works as it is printed.

A block whose first comment names a file (``# mymodels.py``) is written there; other Python runs
in the order of the page. Commands are composed with all their settings; those of the first ten
minutes run. What they train is scaled down, by the settings and words named here.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import hydra
import numpy as np
import pytest
import tifffile
import torch
import yaml
from conftest import ROOT, CommandServer, ModelFiles, choices, predicted, save_checkpoint
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from test_locate import movie

import pixel_spotter
from pixel_spotter import train
from pixel_spotter.cli.help import COMMANDS, CONF_DIR, known_settings
from pixel_spotter.cli.mistakes import refuse_unknown_settings
from pixel_spotter.cli.start import text_as_it_is
from pixel_spotter.coordinates import as_xy
from pixel_spotter.errors import UserError
from pixel_spotter.metrics import errors_px
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.spotter import SpotterRegressor
from pixel_spotter.simulation.pixels import render_pixels

PAGES = (
    *("README.md", "CONTRIBUTING.md", "docs/studies.md"),
    *("docs/models.md", "docs/results.md", "docs/spots.md", "docs/peers.md", "docs/design.md"),
    *("docs/locate.md", "docs/demo.md", "docs/speed.md"),
)

SMALL = ("trainer=cpu", "data.image_size=16", "data.train_samples=300", "data.batch_size=16")
"""Added to commands that run."""

SMALL_WORDS = {
    "image_size=50, batch_size=32": "image_size=16, batch_size=16, train_samples=600",
    "HeatmapRegressor(image_size=50)": "HeatmapRegressor(image_size=16)",
    "L.Trainer(max_epochs=4,": "L.Trainer(max_epochs=4, accelerator='cpu',",
    "np.zeros((2, 50, 50)": "np.zeros((2, 16, 16)",
}
"""Replaced in the Python that runs; each stands in the README."""

PROGRAMS = {"make", "source", "pip", "pytest", "tensorboard", "pixel-spotter", "python", "git", "R"}
"""What commands start with: another one is a new kind of command, for which there is no test."""


class Block(NamedTuple):
    """A code block: its language, its text, and the file that it names."""

    language: str
    text: str
    file: str | None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert text.count("```") == 2 * len(found), "a block that this test does not see"
    named = (
        re.match(r"(?:# @package.*\n)?# (\S+\.(?:py|yaml))\n", content) for _, content in found
    )
    return [
        Block(language, content, name and name[1])
        for (language, content), name in zip(found, named, strict=True)
    ]


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each command in a page's blocks."""
    for block in blocks(page):
        if block.language == "bash":
            variables: dict[str, str] = {}
            for line in block.text.replace("\\\n", " ").splitlines():
                line = re.sub(r"\$(\w)\b", lambda name: variables[name[1]], line)  # noqa: B023
                words = shlex.split(line, comments=True)
                if len(words) == 1 and (assigned := re.fullmatch(r"(\w)=(.*)", words[0])):
                    variables[assigned[1]] = assigned[2]
                elif words:
                    yield words


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """Return which of our commands the words of one are, and its arguments."""
    if words[0] == "pixel-spotter" or words[:3] == ["python", "-m", "pixel_spotter"]:
        rest = words[1:] if words[0] == "pixel-spotter" else words[3:]
        return rest[0], rest[1:]
    if words[:2] == ["python", "-m"] and words[2].startswith("pixel_spotter."):
        return words[2].removeprefix("pixel_spotter."), words[3:]
    return None


OURS = {
    " ".join([asked[0], *asked[1]]): pytest.param(*asked, id=f"{page}: {asked[0]} {asked[1]}")
    for page in PAGES
    for words in commands(page)
    if (asked := ours(words))
}
"""Our commands, with their arguments; one that stands on several pages once."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages write, and a few images."""
    folder = tmp_path_factory.mktemp("reader")
    for page in PAGES[:3]:
        for block in blocks(page):
            if block.file:
                path = folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                assert not path.exists(), f"{block.file} is written twice"
                path.write_text(block.text, encoding="utf-8")
    np.save(folder / "mypsf.npy", np.ones((11, 11)))
    tifffile.imwrite(folder / "stack.tif", movie())
    (folder / "photos").mkdir()
    for k in range(3):
        grey = np.zeros((16, 16), np.uint8)
        grey[3 + k, 5] = 255
        Image.fromarray(grey).save(folder / f"photos/{k}.png")
    return folder


def composed(command: str, arguments: list[str], folder: Path) -> DictConfig:
    """Compose a command's config, the first of what it sweeps, and refuse what it would not use."""
    assert command in COMMANDS
    words = [text_as_it_is(word) for word in arguments]
    if "--config-dir" in words:
        place = words.index("--config-dir")
        own = folder / words[place + 1]
        assert own.is_dir(), own
        words[place : place + 2] = [f"hydra.searchpath=[file://{own}]"]
    options = [word for word in words if word.startswith("-")]
    assert {*options} <= {"--multirun", "--cfg", "--package"}, options
    words = [word for word in words if "=" in word]
    chosen = []
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_sweep_override() and override.is_discrete_sweep():
            assert "--multirun" in options or any(w.startswith("experiment=") for w in words)
            first = next(iter(override.sweep_string_iterator()))
            chosen.append(f"{override.get_key_element()}={first}")
        else:
            chosen.append(override.input_line)
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return refuse_unknown_settings(hydra.compose(command, chosen), command)


@pytest.mark.parametrize(("command", "arguments"), OURS.values())
def test_every_command_is_accepted(
    command: str,
    arguments: list[str],
    folder: Path,
    model_files: ModelFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as it can be known without training: all settings, and what is made from them."""
    for plugin in ("optuna", "submitit"):
        if any(plugin in word for word in arguments):
            pytest.importorskip(plugin)
    monkeypatch.syspath_prepend(folder)
    cfg = composed(command, arguments, folder)
    if command != "train":
        return
    needed = {}
    if cfg.model.get("weights") is not None:
        needed["weights"] = str(model_files.weights)
    if cfg.model.get("checkpoints"):
        model_files.compose(["model=ensemble_of_checkpoints"])  # makes such files
        needed["checkpoints"] = [str(model_files.folder / f"50_{seed}.ckpt") for seed in (0, 1)]
    if "model.estimator" in OmegaConf.missing_keys(cfg):
        needed["estimator"] = "centroid"  # a grid names several
    if cfg.model.get("checkpoint"):
        needed["checkpoint"] = str(folder / "spotter.ckpt")
        save_checkpoint(folder / "spotter.ckpt", SpotterRegressor(15, margin_px=6), 15)
    cfg.model.update(needed)
    train.refuse_out_of_range(cfg)
    monkeypatch.chdir(folder)
    cfg.start_from = None  # another command of the page makes it
    train.make(cfg, "a model")


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_others(page: str) -> None:
    """Programs that are known; make's targets, pip's extras and our scripts are there."""
    makefile = (ROOT / "Makefile").read_text()
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    for words in commands(page):
        words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        assert words[0] in PROGRAMS, words
        if words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:.*##", makefile, flags=re.MULTILINE), target
        for extra in re.findall(r"\[(\w+)\]", " ".join(words)) if words[0] == "pip" else ():
            assert re.search(rf"^{extra} = \[", extras, flags=re.MULTILINE), extra
        if words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, heading = link.partition("#")
            if "://" in file:
                continue
            target = (ROOT / page).parent / file if file else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), flags=re.M)
                anchors = [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]
                assert heading in anchors, f"{page}: {link}"


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (latest, *_) = re.findall(r"^## \[(.*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert latest == (pixel_spotter.__version__, citation["date-released"])
    assert citation["version"] == pixel_spotter.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert pixel_spotter.__version__ in (ROOT / "CONTRIBUTING.md").read_text()


def test_a_setting_that_is_not_there_would_be_found(folder: Path) -> None:
    """Or else the test above would pass for any command."""
    for wrong in (["optim.learning_rate=1"], ["modle=cnn"], ["experiment=no"], ["+lr=0.1"]):
        with pytest.raises((UserError, hydra.errors.HydraException)):
            composed("train", wrong, folder)
    assert ours(["python", "-m", "pixel_spotter.train", "a=b"]) == ("train", ["a=b"])
    assert sum("experiment=compare" in words for words in OURS) > 2


def test_the_table_of_settings() -> None:
    """Each key is there, with this default; each choice of a group is named."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| `(\S+)` \| (.*) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) > 15
    known = known_settings("train")
    for key, default, words in rows:
        assert key in known, key
        if (CONF_DIR / key).is_dir():
            text = (CONF_DIR / "train.yaml").read_text()
            assert re.search(rf"^  - {key}: {default}\b", text, flags=re.M), key
            if key not in ("ablation", "model"):
                missing = [
                    name for name in choices(key) if f"`{name}`" not in f"`{default}` {words}"
                ]
                assert not missing, (key, missing)
            continue
        file, _, name = key.rpartition(".")
        own = {"data": "data/pixel", "optim": "optim/adam", "trainer": "trainer/auto"}
        written = OmegaConf.load(CONF_DIR / f"{own.get(file, 'train')}.yaml")
        value = OmegaConf.select(written, name if file in own else key)
        assert OmegaConf.create({"value": value}) == OmegaConf.from_dotlist([f"value={default}"]), (
            key
        )


def run_python(text: str, names: dict[str, object], replaced: Mapping[str, str]) -> None:
    for printed, small in replaced.items():
        text = text.replace(printed, small)
    exec(compile(text, "README.md", "exec"), names)


@pytest.mark.filterwarnings("ignore")
def test_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [b.text for b in blocks("README.md") if b.language == "python" and not b.file]
    assert len(texts) == 2
    for printed in SMALL_WORDS:
        assert any(printed in text for text in texts), f"the README no longer says {printed}"
    names: dict[str, object] = {}
    training, predicting = texts
    run_python(training, names, SMALL_WORDS)
    error = names["model"].figures["test"]["mean_error_px"]  # type: ignore[attr-defined]
    assert str(error) in capsys.readouterr().out
    assert error < 0.3
    run_python(predicting, names, SMALL_WORDS)
    assert capsys.readouterr().out.split() == re.findall(r"print.*# (.*)", predicting)[0].split()
    assert len([line for line in training.splitlines() if line and "import" not in line]) < 10


@pytest.mark.filterwarnings("ignore")
def test_locating_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", movie())
    (text,) = [b.text for b in blocks("docs/locate.md") if b.language == "python"]
    run_python(text, {}, {})
    *_, last = capsys.readouterr().out.split()
    assert 0.5 < float(last) < 1.5, "deviations are about the bound"


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_and_shows_what_it_finds(capsys: pytest.CaptureFixture[str]) -> None:
    cells = json.loads((ROOT / "docs/locate.ipynb").read_text("utf-8"))["cells"]
    names: dict[str, object] = {}
    printed = []
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        run_python(cell["source"], names, {"plt.show()": "plt.close()"})
        printed.append(capsys.readouterr().out)
        shown = [out["text"] for out in cell["outputs"] if out["output_type"] == "stream"]
        assert bool(printed[-1]) == bool(shown), "run the notebook again"
    (share, others) = re.findall(r"found ([\d.]+)%, and (\d+) where there is nothing", printed[-1])[
        0
    ]
    assert float(share) > 99
    assert int(others) <= 1


class TestTheFirstTenMinutes:
    """The commands under "Train, measure, predict" and of a model of one's own, in their order."""

    def test_every_spot_in_a_stack(self, run_command: CommandServer, folder: Path) -> None:
        self.run(run_command, folder, "pixel-spotter locate images=stack.tif")
        assert len((folder / "spots.csv").read_text().splitlines()) == 1 + 24

    def run(self, run_command: CommandServer, folder: Path, wanted: str) -> str:
        """Run the README's only command that has these words, scaled down."""
        asked = [ours(words) for words in commands("README.md") if wanted in " ".join(words)]
        assert len(asked) == 1, (wanted, asked)
        assert asked[0]
        command, arguments = asked[0]
        more = SMALL if command == "train" else ("trainer=cpu",) if command == "evaluate" else ()
        ended = run_command(command, *arguments, *more, cwd=folder)
        assert ended.code == 0, ended.stderr
        return ended.stdout

    def test_train_evaluate_predict(self, run_command: CommandServer, folder: Path) -> None:
        out = self.run(run_command, folder, "train name=first")
        assert "heatmap on 52 test positions, none of them seen in training" in out
        assert "% of them seen in training" in self.run(run_command, folder, "evaluate checkpoint")
        self.run(run_command, folder, "images=photos/ output=found.csv")
        head, *rows = (folder / "found.csv").read_text().splitlines()
        assert head == "file,x,y,score,flag,frame"
        assert [row.split(",")[0] for row in rows] == [f"photos/{k}.png" for k in range(3)]
        out = self.run(run_command, folder, "start_from=")
        assert "8 epochs" in out

    def test_elsewhere(
        self,
        run_command: CommandServer,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = self.run(run_command, folder, "output=first.onnx")
        assert "heatmap, for images (batch, 1, height, width) of any size" in out
        monkeypatch.chdir(folder)
        text = (folder / "elsewhere.py").read_text("utf-8")
        run_python(text, {}, {"(2, 1, 50, 50)": "(2, 1, 16, 16)"})
        said = re.findall(r"print.*# (.*)", text)[0]
        assert re.sub(r"-(?=0\.)", "", capsys.readouterr().out).split()[:4] == said.split()

    def test_a_model_of_ones_own(
        self, run_command: CommandServer, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = self.run(run_command, folder, "name=mine")
        (error,) = re.findall(r"mean error +([\d.]+) px", out)
        assert float(error) < 1, "the trivial answer, the centre, errs by 6 px on 16x16 px"
        assert "twofilters on 52" in out
        out = self.run(run_command, folder, "trust=mymodels images=photos/")
        found = np.loadtxt(out.splitlines()[1:], delimiter=",", usecols=(1, 2))
        np.testing.assert_allclose(found, [[5, 3], [5, 4], [5, 5]], atol=1)
        monkeypatch.syspath_prepend(folder)
        model, _ = load_model(folder / "outputs/runs/mine/checkpoints/best.ckpt", ["mymodels"])
        xy = torch.tensor([[0, 0], [15, 15], [7, 3]])
        image = render_pixels(xy, (16, 16))
        with torch.no_grad():
            torch.testing.assert_close(as_xy(model.estimate(image)), model(image))
            alone = torch.cat([model(one) for one in image.split(1)])
            torch.testing.assert_close(model(image), alone, atol=1e-4, rtol=0)
        assert errors_px(predicted(model(image).detach(), xy)).max() < 2

    def test_it_keeps_the_contract(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It learns a batch by heart, for images that need not be square."""
        monkeypatch.syspath_prepend(folder)
        arguments = ["--config-dir", "myconf", "model=twofilters", "data.image_size=[24,32]"]
        cfg = composed("train", arguments, folder)
        assert (cfg.optim.lr, cfg.trainer.max_epochs) == (0.02, 4)
        torch.manual_seed(0)
        _, model = train.make(cfg, "twofilters")
        (optimizer,), _ = model.configure_optimizers()
        xy = torch.tensor([[1, 2], [30, 3], [5, 20], [16, 11]])
        image, truth = render_pixels(xy, (24, 32)), xy.float()
        first = errors_px(predicted(model(image).detach(), truth)).mean()
        for _ in range(150):
            optimizer.zero_grad()
            true = {"x_true": truth[:, 0], "y_true": truth[:, 1]}
            model.training_loss(image, true).backward()
            optimizer.step()
        assert errors_px(predicted(model(image).detach(), truth)).mean() < 0.15 * first
        with pytest.raises(ValueError, match="expected images"):
            model(image.mT)
