"""``pixel-spotter COMMAND ...``: the same as ``python -m pixel_spotter.COMMAND ...``."""

import difflib
import os
import runpy
import sys

import pixel_spotter
from pixel_spotter.cli.help import COMMANDS, overview


def main() -> None:
    """Run a command, or help, before anything slow is imported."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(overview())
    elif command == "--version":
        print(f"pixel-spotter {pixel_spotter.__version__}")
    elif command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        sys.exit(f"error: there is no command {command}: {meant}")
    else:
        sys.argv[1:] = arguments
        if "" not in sys.path and os.getcwd() not in sys.path:  # noqa: PTH109
            sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as python -m does
        runpy.run_module(f"pixel_spotter.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
