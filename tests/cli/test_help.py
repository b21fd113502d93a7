import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, compose

from pixel_spotter import __version__
from pixel_spotter.cli.help import COMMANDS, CONF_DIR, known_settings, show_help

SLOW_TO_IMPORT = ("torch", "lightning", "hydra", "omegaconf", "numpy", "pandas", "matplotlib")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``pixel-spotter`` and say on stderr what it has imported."""
    code = (
        "import sys\nfrom pixel_spotter.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["--version"], *([command, "--help"] for command in COMMANDS), ["trian"]],
)
def test_what_a_command_says_of_itself_imports_nothing_slow(arguments: list[str]) -> None:
    ended = run(*arguments)
    assert not {*ended.stderr.split()} & {*SLOW_TO_IMPORT}
    assert (ended.returncode == 0) == (arguments != ["trian"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_other_way_to_start_a_command_is_as_fast(command: str) -> None:
    asked = [sys.executable, "-X", "importtime", "-m", f"pixel_spotter.{command}", "--help"]
    ended = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "pixel_spotter.cli.help" in imported
    assert not imported & {*SLOW_TO_IMPORT}
    assert (ended.returncode, ended.stdout) == (0, run(command, "--help").stdout)


def test_version_and_overview() -> None:
    assert run("--version").stdout == f"pixel-spotter {__version__}\n"
    for command, words in COMMANDS.items():
        assert f"{command:8}  {words}" in run("--help").stdout


def test_a_command_that_is_none() -> None:
    assert "error: there is no command trian: did you mean train?" in run("trian").stderr


def test_settings_choices_and_comments(capsys: pytest.CaptureFixture[str]) -> None:
    show_help("train")
    text = capsys.readouterr().out
    for file in (CONF_DIR / "model").glob("*.yaml"):
        assert file.stem in text
    assert "  model=heatmap, " in text, "the default is the first"
    assert "data.image_size=50" in text
    assert "px, or [height, width]" in text
    assert "_target_" not in text
    assert "hydra" not in text


def test_settings_of_what_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    show_help("train", ["model=resnet18_scratch"])
    text = capsys.readouterr().out
    assert "model.stem=imagenet" in text
    assert "model.js_weight" not in text


def test_groups_that_a_choice_brings_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_help("train")
    text = capsys.readouterr().out
    assert "  camera=ideal, emccd, scmos, with data=spots\n  psf=gaussian, measured, with" in text
    assert "camera.gain" not in text
    show_help("train", ["data=spots", "camera=scmos"])
    text = capsys.readouterr().out
    assert "camera.gain=0.46 " in text
    assert "psf.ratio=1.0 " in text
    assert {"camera", "psf", "camera.em_gain", "psf.file"} <= {*known_settings("train")}


@pytest.mark.parametrize(
    ("given", "lr", "epochs"),
    [
        ([], "0.02", "4"),
        (["model=svm"], "0.001", "64"),
        (["model=resnet18_scratch"], "0.001", "16"),
        (["model=coordconv"], "0.01", "32"),
        (["experiment=learning_curve"], "0.02", "16"),
    ],
)
def test_settings_are_those_of_the_models_recipe(
    given: list[str], lr: str, epochs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = compose(["model=heatmap", *given])
    assert (cfg.optim.lr, cfg.trainer.max_epochs) == (float(lr), int(epochs))
    show_help("train", given)
    text = capsys.readouterr().out
    assert re.findall(r"  (optim.lr|trainer.max_epochs)=(\S+) +\w", text) == [
        ("optim.lr", lr),
        ("trainer.max_epochs", epochs),
    ]


def test_every_setting_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        show_help(command, ["model=resnet18_scratch"])
        told = re.findall(r"^  ([\w.]+)=(\S+)", capsys.readouterr().out, flags=re.MULTILINE)
        names = [name for name, _ in told]
        assert len({*names}) == len(names)
        assert not [name for name, value in told if value.startswith("#")]


def test_every_setting_says_what_it_means() -> None:
    """A key in ``conf/`` without a comment is a setting that help cannot explain."""
    silent = []
    for file in sorted(Path(CONF_DIR).rglob("*.yaml")):
        studies = ("experiment", "ablation", "recipe", "model_for", "scenario")
        if file.parent.name in studies or file.read_text().startswith("defaults:"):
            continue
        for line in file.read_text().partition("\nhydra:")[0].splitlines():
            key, colon, value = line.partition(": ")
            derived = value.startswith("${") or key.strip().startswith(("_", "- "))
            if colon and not derived and "#" not in line:
                silent.append(f"{file.relative_to(CONF_DIR)}: {line}")
    assert silent == []
