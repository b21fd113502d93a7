"""How a command begins, before anything slow is imported."""

import os
import signal
import sys
import threading

from pixel_spotter.cli.help import show_help

_TURNS = "10000"
"""So often a thread looks whether others are done before it leaves its core to another program."""


def begin(command: str) -> None:
    """Answer ``--help``; end after Ctrl-C in one line, also while the rest is being imported."""
    if "OMP_WAIT_POLICY" not in os.environ:  # it is read when PyTorch is imported
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS)
    if {"-h", "--help"} & {*sys.argv[1:]}:
        show_help(command, sys.argv[1:])
        sys.exit()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def begun() -> None:
    """Have interruptions raise KeyboardInterrupt from now on, and SIGTERM be one.

    Ended by it at once, a grid would leave its processes behind, at work.
    """
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if threading.current_thread() is not threading.main_thread():
        return
    ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "LOCAL_RANK" not in os.environ
    if ours:  # processes of one training are ended by the first of them
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _end(*_: object) -> None:
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(130)  # an exception would end up wherever an import catches it
