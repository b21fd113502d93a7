"""What the commands say of themselves, from the comments in ``conf/``; imports next to nothing."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from string import Template

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
"""Where the configs are: inside an installed package, or beside it in a checkout."""

COMMANDS = {
    "train": "train one model, or a grid of them",
    "evaluate": "measure a checkpoint on positions that it has not seen",
    "predict": "find the point in image files",
    "locate": "find every spot in image files, and how exactly it is found",
    "demo": "show it in a browser: a spot to drag, and what is found in a file",
    "export": "write a model as a file that other programs run",
    "report": "say what a grid has found",
}

_SETTING = re.compile(r"^( *)([\w.]+):(?: +([^#\s].*?))?(?: +# *(.*))?$")
_DEFAULT = re.compile(r"^  - (?:optional )?(\w+): (\S+)", flags=re.MULTILINE)
_BROUGHT = re.compile(r"^  - /(\w+)@_global_\.\1: (\S+)", flags=re.MULTILINE)


def overview() -> str:
    """Return the help of ``pixel-spotter``."""
    commands = "\n".join(f"  {name:8}  {words}" for name, words in COMMANDS.items())
    return (
        "Find a point in an image, exactly.\n\n"
        "usage: pixel-spotter COMMAND [GROUP=CHOICE ...] [KEY=VALUE ...]\n\n"
        f"{commands}\n\n"
        "pixel-spotter COMMAND --help says what each setting means; --version, which version\n"
        "this is."
    )


def show_help(command: str, arguments: Sequence[str] = ()) -> None:
    """Print a command's usage, examples, choices, and the settings of what its arguments choose."""
    text = (CONF_DIR / f"{command}.yaml").read_text(encoding="utf-8")
    print(f"{COMMANDS[command].capitalize()}.\n")
    print(f"usage: pixel-spotter {command} [GROUP=CHOICE ...] [KEY=VALUE ...]\n")
    for line in takewhile(lambda line: line.startswith("#"), text.splitlines()):
        print(f"  {line.removeprefix('#').strip()}".rstrip())
    groups = _DEFAULT.findall(text)
    given = dict(word.split("=", 1) for word in arguments if word.count("=") == 1)
    chosen = dict(groups) | given
    if groups:
        print("\nchoices, the first being the default:")
        for group, default in groups:
            if "$" not in default:
                print(f"  {group}={', '.join(_choices(group, default))}")
                for choice in _choices(group, default):
                    for inner, first in _brought(group, choice):
                        also = ", ".join(_choices(inner, first))
                        print(f"  {inner}={also}, with {group}={choice}")
    print("\nsettings, with their defaults:")
    rows = {key: (value, comment) for key, value, comment in _settings(f"{command}.yaml")}
    for group, _ in groups:  # which grow
        choice = Template(chosen[group]).safe_substitute(chosen)  # a recipe's is ${model}
        groups += _brought(group, choice)
        chosen |= dict(_brought(group, choice)) | given
        for key, value, comment in _settings(f"{group}/{choice}.yaml"):
            rows[key] = (value, comment or rows.get(key, ("", ""))[1])
    for key, (value, comment) in rows.items():
        print(f"  {f'{key}={value}':36} {comment}".rstrip())


def groups_of(command: str) -> list[str]:
    """Return the groups that a command always has; choices of them may bring others."""
    text = (CONF_DIR / f"{command}.yaml").read_text(encoding="utf-8")
    return [group for group, default in _DEFAULT.findall(text) if "$" not in default]


@cache  # a grid asks for each of its cells
def known_settings(command: str) -> list[str]:
    """Return the keys of a command's settings, whatever is chosen, and its groups."""
    groups = groups_of(command)
    brought = [_brought(group, choice) for group in groups for choice in _choices(group, "null")]
    groups += [inner for pairs in brought for inner, _ in pairs]
    files = [file for group in groups for file in sorted((CONF_DIR / group).glob("*.yaml"))]
    names = [f"{command}.yaml", *(f"{file.parent.name}/{file.name}" for file in files)]
    keys = [key for name in names for key, _, _ in _settings(name)]
    return [*dict.fromkeys([*groups, *keys])]


def _choices(group: str, default: str) -> list[str]:
    files = sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml"))
    return list(dict.fromkeys([default, *files]))


def _brought(group: str, choice: str) -> list[tuple[str, str]]:
    """Return the groups that a choice brings with it, and their defaults."""
    path = CONF_DIR / group / f"{choice}.yaml"
    return _BROUGHT.findall(path.read_text(encoding="utf-8")) if path.is_file() else []


def _settings(file: str) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and comment of each setting that a config in ``conf/`` writes down."""
    path = CONF_DIR / file
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    group, _, _ = file.rpartition("/")
    prefix = f"{group}." if group and "@package _global_" not in text else ""
    if base := re.search(r"^defaults:\n  - (\w+)$", text, flags=re.MULTILINE):
        yield from _settings(f"{group}/{base[1]}.yaml")
    parents: list[tuple[int, str]] = []
    for found in filter(None, map(_SETTING.match, text.splitlines())):
        indent, key, value, comment = len(found[1]), found[2], found[3] or "", found[4] or ""
        parents = [*(parent for parent in parents if parent[0] < indent), (indent, key)]
        written = value and not value.startswith("${") and not key.startswith("_")
        if written and parents[0][1] not in ("hydra", "defaults"):
            yield prefix + ".".join(name for _, name in parents), value, comment
