"""What is to be said of files, once for all of which it holds."""

from collections.abc import Sequence
from pathlib import Path


class Remarks:
    """Collects remarks on files; of equal ones, the first file's is said for all."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, list[Path]]] = {}

    def add(self, file: Path, remark: str, kind: str | None = None) -> None:
        """Remark something on a file; those of one kind, if it is given, count as equal."""
        _, files = self._said.setdefault(kind or remark, (remark, []))
        if file not in files[-1:]:  # a file's remarks follow one another
            files.append(file)

    def add_if_dim(self, file: Path, brightest: float, white: float) -> None:
        """Remark that a file's whole numbers all lie far below the white that it declares."""
        if not 0 < brightest < (white + 1) / 4:
            return
        said = f"the brightest value is {brightest:g}, where {white:g} is white"
        bits = next((b for b in (10, 12, 14) if brightest < 2**b <= white), None)
        if bits is not None:
            said += f": if the camera has {bits} bits, say white={2**bits - 1}"
        self.add(file, said, f"dim, {white}, {bits}")

    def lines(self) -> list[str]:
        """Return a line for each kind, in the order in which they came up."""
        return [
            f"{files[0]}{_others(len(files) - 1)}: {words}" for words, files in self._said.values()
        ]


def skipped(files: Sequence[Path]) -> str:
    """Say which files of a folder are left out."""
    number = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"skipped {number} not named as images are: {few(files)}"


def few(files: Sequence[Path]) -> str:
    """Name the first three files, and count the others."""
    return ", ".join(file.name for file in files[:3]) + _others(len(files) - 3)


def _others(count: int) -> str:
    return "" if count < 1 else f" and {count} other{'s' if count > 1 else ''}"
