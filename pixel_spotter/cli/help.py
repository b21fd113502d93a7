"""What the commands say of themselves, from the comments in ``conf/``; imports next to nothing."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
"""Where the configs are: inside an installed package, or beside it in a checkout."""

COMMANDS = {
    "train": "train one model, or a grid of them",
    "evaluate": "measure a checkpoint on positions that it has not seen",
    "predict": "find the point in image files",
    "report": "say what a grid has found",
}

_SETTING = re.compile(r"^( *)([\w.]+):(?: +(.*?))?(?: +# *(.*))?$")
_DEFAULT = re.compile(r"^  - (\w+): (\w+)", flags=re.MULTILINE)


def overview() -> str:
    """Return the help of ``pixel-spotter``."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "Find a point in an image, exactly.",
            "",
            "usage: pixel-spotter COMMAND [GROUP=CHOICE ...] [KEY=VALUE ...]",
            "",
            *(f"  {name:{width}}  {words}" for name, words in COMMANDS.items()),
            "",
            "pixel-spotter COMMAND --help says what each setting means; --version, which version",
            "this is.",
        ]
    )


def show_help(command: str, arguments: Sequence[str] = ()) -> None:
    """Print a command's usage, examples, choices and settings.

    Args:
        command: its name.
        arguments: of its command line: the settings are those of the choices named there.
    """
    text = (CONF_DIR / f"{command}.yaml").read_text(encoding="utf-8")
    intro = [line.removeprefix("#").strip() for line in _head(text)]
    print(f"{COMMANDS[command].capitalize()}.\n")
    print(f"usage: pixel-spotter {command} [GROUP=CHOICE ...] [KEY=VALUE ...]\n")
    print("\n".join(f"  {line}".rstrip() for line in intro))
    groups = dict(_DEFAULT.findall(text))
    chosen = dict(word.split("=", 1) for word in arguments if word.count("=") == 1)
    if groups:
        print("\nchoices, the first being the default:")
        for group, default in groups.items():
            files = sorted(file.stem for file in (CONF_DIR / group).glob("*.yaml"))
            others = [name for name in files if name != default]
            names = ["null" if default == "null" else default, *others]
            print(f"  {group}={', '.join(names)}")
    print("\nsettings, with their defaults:")
    rows = [*_settings(CONF_DIR / f"{command}.yaml")]
    for group, default in groups.items():
        choice = chosen.get(group, default)
        if choice != "null":
            rows += _settings(CONF_DIR / group / f"{choice}.yaml", f"{group}.")
    for key, value, comment in rows:
        print(f"  {f'{key}={value}':36} {comment}".rstrip())


def known_settings(command: str) -> list[str]:
    """Return the keys of a command's settings, whatever is chosen, and its groups."""
    text = (CONF_DIR / f"{command}.yaml").read_text(encoding="utf-8")
    groups = [group for group, _ in _DEFAULT.findall(text)]
    keys = [key for key, _, _ in _settings(CONF_DIR / f"{command}.yaml")]
    for group in groups:
        for file in sorted((CONF_DIR / group).glob("*.yaml")):
            if "@package _global_" not in file.read_text(encoding="utf-8"):
                keys += [key for key, _, _ in _settings(file, f"{group}.")]
    return [*dict.fromkeys([*groups, *keys])]


def _head(text: str) -> Iterator[str]:
    """Yield the comment lines that a file begins with."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line


def _settings(file: Path, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield key, default and comment of each setting in a config that is written down in it."""
    if not file.is_file():
        return
    parents: list[tuple[int, str]] = []
    lines = file.read_text(encoding="utf-8").splitlines()
    base = re.search(r"^defaults:\n  - (\w+)$", "\n".join(lines), flags=re.MULTILINE)
    if base:
        yield from _settings(file.with_name(f"{base[1]}.yaml"), prefix)
    for line in lines:
        found = _SETTING.match(line)
        if not found:
            continue
        indent, key, value, comment = len(found[1]), found[2], found[3] or "", found[4] or ""
        parents = [parent for parent in parents if parent[0] < indent]
        path = [name for _, name in parents]
        parents.append((indent, key))
        written = value and not value.startswith("${") and not key.startswith("_")
        if written and (path or [key])[0] not in ("hydra", "defaults"):
            yield prefix + ".".join([*path, key]), value, comment
