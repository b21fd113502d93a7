"""Jobs that processes share."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pixel_spotter.cli import workers
from pixel_spotter.errors import UserError


def slowly(number: int, wait_s: float) -> tuple[int, int]:
    time.sleep(wait_s)
    if number < 0:
        raise UserError(f"{number} is less than nothing")
    return number * number, os.getpid()


def test_results_come_in_the_order_of_jobs_few_of_which_wait() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[tuple[tuple[int, float], str]]:
        for number in range(12):
            taken.append(number)
            yield (number, 0.3 if number % 3 == 0 else 0.0), f"job {number}"

    pids = set()
    for at, ((square, pid), note) in enumerate(workers.shared(slowly, jobs(), 2)):
        assert (square, note) == (at * at, f"job {at}")
        assert len(taken) <= at + 6, "the others would fill the memory"
        pids.add(pid)
    assert len(taken) == 12
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_an_error_of_a_job_is_raised_and_its_process_has_ended() -> None:
    results = workers.shared(slowly, [((number, 0.0), number) for number in (1, -2, 3)], 1)
    (square, pid), _ = next(results)
    assert square == 1
    with pytest.raises(UserError, match="-2 is less than nothing"):
        next(results)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_processes_do_not_import_the_command_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ModuleType("__main__")
    command.__file__ = str(tmp_path / "command.py")
    Path(command.__file__).write_text("import pathlib; pathlib.Path(__file__ + '.seen').touch()")
    monkeypatch.setitem(sys.modules, "__main__", command)
    assert next(workers.shared(int, [(("7",), 0)], 1)) == (7, 0)
    assert sys.modules["__main__"] is command
    assert not Path(f"{command.__file__}.seen").exists()


def end(how: int) -> None:
    os.kill(os.getpid(), how)
    time.sleep(0.5)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_ended_says_nothing_and_is_told(
    how: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="a process was ended from outside"):
        next(workers.shared(end, [((how,), 0)], 1))
    assert capfd.readouterr().err == ""


def test_nobody_waits_for_what_is_no_longer_wanted() -> None:
    jobs = [((number, 0.0 if number == 0 else 30.0), 0) for number in range(4)]
    results = workers.shared(slowly, jobs, 1)
    (_, pid), _ = next(results)
    begun = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 20
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def write_pid(folder: Path) -> None:
    (folder / "child").write_text(str(os.getpid()))
    time.sleep(60)


def share_alone(folder: Path) -> None:
    next(workers.shared(write_pid, [((folder,), 0)], 1))


def test_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    context = workers.get_context("spawn")
    parent = context.Process(target=share_alone, args=(tmp_path,))
    parent.start()
    until = time.monotonic() + 60
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    child = int((tmp_path / "child").read_text())
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_memory_limits_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cpu_count", lambda: 8)
    for free, number in ((2**40, 8), (3 * 2**30, 2), (0, 1)):
        monkeypatch.setattr(workers, "free_memory", lambda free=free: free)
        assert workers.most(2**30) == number
