"""Several processes on one grid: no cell is lost, none is trained twice."""

import errno
import fcntl
import os
import random
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from conftest import ONE_BY_ONE, TINY, Begun, CommandServer, compose, figures, read_json

from pixel_spotter import runs
from pixel_spotter.errors import UserError
from pixel_spotter.train import train

SMALL = [word for word in TINY if word.split("=")[0] not in ("model.hidden", "trainer.max_epochs")]
SETTINGS = [*SMALL, "trainer.max_epochs=6"]  # long enough that several are at work at once
GRID = ["--multirun", ONE_BY_ONE, *SETTINGS, "name=g"]


def trainings(folder: Path) -> list[str]:
    """Return a word for each training that has begun in a grid: training, or continuing."""
    lines = "\n".join(path.read_text() for path in folder.glob("*/train.log")).splitlines()
    return sorted(w for line in lines for w in ("training", "continuing") if f" {w} cnn " in line)


def finished(folder: Path) -> dict[str, Any]:
    return {path.parent.name: read_json(path) for path in sorted(folder.glob("*/metrics.json"))}


def at_work(one: Begun, folder: Path) -> list[Path]:
    """Return the cells whose locks a process has open."""
    files = []
    for link in Path(f"/proc/{one.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            files.append(Path(os.readlink(link)))  # noqa: PTH115
    return [path.parent for path in files if path.name == ".lock" and path.parent.parent == folder]


def test_processes_that_start_together_share_a_grid(
    run_command: CommandServer, tmp_path: Path
) -> None:
    grid, folder = [*GRID, "seed=0,1,2,3"], tmp_path / "outputs/sweeps/g"
    three = [run_command.begin("train", *grid, cwd=tmp_path) for _ in range(3)]
    ended = [one.finish() for one in three]
    assert [one.code for one in ended] == [0, 0, 0], [one.stderr for one in ended]
    found = finished(folder)
    assert sorted(metrics["seed"] for metrics in found.values()) == [*range(4)]
    assert found.keys() == runs.read_plan(folder)["cells"].keys()
    assert trainings(folder) == ["training"] * 4
    assert sum(" training cnn in " in one.stdout for one in ended) >= 2, "none did it all"
    assert any("4 cells finished, none open" in one.stdout for one in ended)


def test_a_killed_process_and_a_clock_that_jumps_harm_no_other_cell(
    run_command: CommandServer, tmp_path: Path
) -> None:
    """The cell that it had is open then, and the same command goes on with it."""
    grid, folder = [*GRID, "seed=0,1,2"], tmp_path / "outputs/sweeps/g"
    jumps: dict[str, Any] = {"cwd": tmp_path, "clock_jumps": True}
    dies, lives = (run_command.begin("train", *grid, **jumps) for _ in range(2))
    dies.wait_for(lambda: any((cell / runs.LAST).is_file() for cell in at_work(dies, folder)))
    dies.kill(signal.SIGSTOP)  # or it might end the cell before the other has begun one
    (cell,) = at_work(dies, folder)
    lives.wait_for(lambda: at_work(lives, folder) != [])
    dies.kill()
    assert dies.finish().code == -signal.SIGKILL
    ended = lives.finish()
    assert ended.code == 0, ended.stderr
    others = runs.read_plan(folder)["cells"].keys() - {cell.name}
    assert others <= finished(folder).keys(), "and it too, where the other came to it later"
    for path in folder.rglob("*"):
        then_s = time.time() + random.choice([-1, 1]) * random.uniform(1, 1e8)
        os.utime(path, (then_s, then_s))
    again = run_command("train", *grid, **jumps)
    assert again.code == 0, again.stderr
    assert "3 cells finished, none open" in again.stdout
    assert trainings(folder) == ["continuing", "training", "training", "training"]
    for seconds in re.findall(r"about (\d+) (?:min|h)", again.stdout + ended.stdout):
        assert int(seconds) < 2
    metrics = finished(folder)
    alone = train(
        compose([*SETTINGS, f"seed={metrics[cell.name]['seed']}"]), tmp_path / "alone", "cnn"
    )
    assert figures(metrics[cell.name]) == figures(alone)
    for name in metrics:
        assert 0 < metrics[name]["train_seconds"] < 60
        assert runs.read_epochs(folder / name)["seconds"].between(0, 60).all()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not locked by files instead, which would be left behind by a killed process."""

    def none(*_: Any) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    for attempt in (
        lambda: runs.owned(tmp_path / "run").__enter__(),
        lambda: runs.add_to_plan(tmp_path, ["seed=0"], {}),
    ):
        with pytest.raises(UserError, match=f"cannot lock files: {os.strerror(code)}"):
            attempt()
