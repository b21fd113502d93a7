import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT

import pixel_spotter

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stripped = [line.split("#")[0].strip() for line in lines]
    found = {}
    for line in filter(None, stripped):
        name, equals, version = line.partition("==")
        assert equals, f"{line!r} is not pinned"
        found[canonical(name)] = version.split(";")[0].strip()
    return found


REQUIREMENTS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_constraints_pin_every_dependency(requirement: str) -> None:
    name = canonical(requirement)
    assert name in pins()
    for operator, bound in re.findall(r"(>=|!=)\s*([\d.]+)", requirement):
        pinned, limit = (tuple(map(int, re.findall(r"\d+", v))) for v in (pins()[name], bound))
        assert pinned >= limit if operator == ">=" else pinned != limit, f"{name} {pinned}"


def test_the_version_is_written_twice_and_the_same() -> None:
    assert PROJECT["version"] == pixel_spotter.__version__


def test_every_import_is_a_declared_dependency() -> None:
    top_level = metadata.packages_distributions()
    extras = PROJECT["optional-dependencies"]
    optional = ("fits", "nd2", "picasso", "onnx", "demo")
    needed = [*PROJECT["dependencies"], *(one for extra in optional for one in extras[extra])]
    declared = {canonical(requirement) for requirement in needed}
    imported = set()
    for file in (ROOT / "pixel_spotter").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), re.MULTILINE))
    third_party = imported - sys.stdlib_module_names - {"pixel_spotter"}
    assert len(third_party) > 5
    for module in third_party:
        assert declared & {canonical(name) for name in top_level[module]}, module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.mark.slow
def test_the_wheel_has_configs_and_licence(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert f"pixel_spotter/conf/{file.relative_to(ROOT / 'conf')}" in names
    assert {f"pixel_spotter/weights/{name}.ckpt" for name in ("heatmap", "spotter")} <= names
    for file in (ROOT / "pixel_spotter").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert str(file.relative_to(ROOT)) in names
    assert "pixel_spotter/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    (info,) = (name for name in names if name.endswith("dist-info/METADATA"))
    text = wheel.read(info).decode()
    assert "License-File: LICENSE" in text
    assert "License-Expression: MIT" in text
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pixel_spotter"}


@pytest.mark.slow
def test_the_wheel_runs_from_anywhere(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "pixel_spotter.train", "--cfg", "job", "optim.lr=0.125"],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "lr: 0.125" in ended.stdout
    assert "_target_: pixel_spotter.data.pixels.PixelDataModule" in ended.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import pixel_spotter; print(pixel_spotter.__file__)"],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path / "site") in where.stdout, "the checkout was run, not the wheel"
