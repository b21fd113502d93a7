"""Imports go one way, as docs/design.md says; read from the import statements, running nothing."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "pixel_spotter"
FOUNDATION = {
    "arguments",
    "coordinates",
    "randomness",
    "files",
    "errors",
    "metrics",
    "runs",
    "tables",
}
DOORS = {
    *("train", "evaluate", "predict", "locate", "demo", "export", "report", "api", "__main__"),
}
ROOMS = ["simulation", "estimators", "data", "models", "training"]
"""Each may import itself, the foundation and those before it."""

ALLOWED = {
    "": {"api"},  # which is imported when something of it is asked for
    **dict.fromkeys(FOUNDATION, FOUNDATION | {""}),
    **{room: FOUNDATION | {"", *ROOMS[: k + 1]} for k, room in enumerate(ROOMS)},
    "reporting": FOUNDATION | {"", "reporting"},
    "cli": FOUNDATION | {"", "cli"},
}
ALLOWED["training"] |= {"reporting"}
LAZY = {("cli", "report")}
"""Only inside a function: every command imports cli, and few need a report."""

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    """Return the room or module that a file is in; the package itself is ``""``."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py").replace("__init__", "")


def imports(file: Path) -> list[tuple[str, bool]]:
    """List the full names of what a file imports, and whether it does so when imported itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(name, id(node) not in inside) for name in names]
    return found


def rooms(file: Path) -> set[tuple[str, bool]]:
    """Return which rooms a file imports from."""
    return {
        (name.split(".")[1] if target_is_a_room(name) else "", at_once)
        for name, at_once in imports(file)
        if name.split(".")[0] == "pixel_spotter"
    }


def target_is_a_room(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and (
        (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    room = room_of(file)
    if room in DOORS:
        others = {other for other, _ in rooms(file)} & DOORS
        assert others <= ({"report", "api", "locate"} if room == "demo" else {"report", "api"})
        return
    assert room in ALLOWED, f"{file} is in no room"
    for other, at_once in rooms(file):
        lazy = (room, other) in LAZY and not at_once
        assert other in ALLOWED[room] or lazy, f"{room} imports {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_below_a_door_sees_a_config_object(file: Path) -> None:
    if room_of(file) in DOORS | {"cli"}:
        return
    tops = {name.split(".")[0] for name, _ in imports(file)}
    assert not tops & {"hydra", "omegaconf"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_is_public_says_what_it_does(file: Path) -> None:
    """Not hooks of a library, nor what a base class has described: hence not ruff's D102."""
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    own = [cls for _, cls in inspect.getmembers(module, inspect.isclass)]
    for cls in (cls for cls in own if cls.__module__ == module.__name__):
        for name, method in vars(cls).items():
            inherited = any(hasattr(base, name) for base in cls.__mro__[1:])
            described = name.startswith("_") or inherited or inspect.getdoc(method)
            is_method = inspect.isfunction(method) or isinstance(method, property | classmethod)
            assert described or not is_method, f"{cls.__name__}.{name}"


def test_nothing_is_called_utils() -> None:
    names = {part for file in FILES for part in file.relative_to(PACKAGE).with_suffix("").parts}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_the_test_sees_imports(tmp_path: Path) -> None:
    """Or else those above would pass for any code."""
    file = tmp_path / "file.py"
    file.write_text(
        "import omegaconf.errors\n"
        "from pixel_spotter import runs, __version__\n"
        "from pixel_spotter.models.base import PointRegressor\n"
        "def f():\n    from pixel_spotter.report import print_report\n"
    )
    assert ("omegaconf.errors", True) in imports(file)
    assert rooms(file) == {("runs", True), ("", True), ("models", True), ("report", False)}
    assert "training" not in ALLOWED["models"]
    assert "reporting" not in ALLOWED["models"]
    assert len(FILES) > 40
