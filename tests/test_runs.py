import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Run, compose, figures, read_json
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pixel_spotter import runs
from pixel_spotter.cli.start import run_command
from pixel_spotter.errors import UserError
from pixel_spotter.runs import InUseError, owned
from pixel_spotter.train import run, train


@contextmanager
def another_process_at(folder: Path) -> Iterator[int]:
    """Have another process own a folder; give its id."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with owned(folder):
            os.write(tell, b"1")
            time.sleep(60)
        os._exit(0)
    os.close(tell)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_with_another_process_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with another_process_at(folder):
        with pytest.raises(InUseError, match=f"another process is at work in {folder}"):
            owned(folder).__enter__()
        with pytest.raises(InUseError):
            train(compose(TINY), folder, "cnn")
        assert [path.name for path in folder.iterdir()] == [runs.LOCK]


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    with another_process_at(tmp_path):
        pass
    assert (tmp_path / runs.LOCK).exists()
    with owned(tmp_path):
        pass


def test_the_lock_is_the_operating_systems(tmp_path: Path) -> None:
    """Not the file's being there, which outlives its owner on another machine."""
    fcntl = pytest.importorskip("fcntl")
    with owned(tmp_path), (tmp_path / runs.LOCK).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / runs.LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_one_process_may_own_a_folder_again_and_several_at_once(tmp_path: Path) -> None:
    for _ in range(2):
        with owned(tmp_path / "one"), owned(tmp_path / "other"):
            pass
    with pytest.raises(ZeroDivisionError), owned(tmp_path / "one"):
        raise ZeroDivisionError
    with owned(tmp_path / "one"):
        pass


def forked(*arguments: str, cwd: Path, log: Path) -> int:
    """Train as the command does, in a process that has imported everything; return its id."""
    child = os.fork()
    if child == 0:
        os.chdir(cwd)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.argv = ["train", *arguments]
        code = 0
        try:
            run_command("train", run)
        except SystemExit as end:
            os.write(2, str(end.code).encode())
            code = 1
        finally:
            os._exit(code)
    return child


def test_two_commands_with_one_name_at_once(tmp_path: Path) -> None:
    """Exactly one trains; the figures, the settings and the epochs are all its own."""
    rates, logs = ("0.01", "0.003"), [tmp_path / "0.log", tmp_path / "1.log"]
    same = [*TINY, "trainer.max_epochs=20", "name=same"]
    children = [
        forked(*same, f"optim.lr={lr}", cwd=tmp_path, log=log)
        for lr, log in zip(rates, logs, strict=True)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    said = [log.read_text() for log in logs]
    assert sorted(codes) == [0, 1], said
    winner = codes.index(0)
    refused = said[1 - winner].strip()
    assert "Traceback" not in refused
    assert refused.splitlines()[-1].startswith("error: another process is at work in")
    folder = tmp_path / "outputs/runs/same"
    metrics = read_json(folder / "metrics.json")
    assert metrics["lr"] == float(rates[winner])
    assert OmegaConf.load(folder / ".hydra/config.yaml").optim.lr == float(rates[winner])
    alone = train(compose([*same, f"optim.lr={rates[winner]}"]), tmp_path / "alone", "cnn")
    assert figures(metrics) == figures(alone)
    assert runs.read_epochs(folder)["epoch"].tolist() == [*range(20)]


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Bit for bit, whatever the float32: 20,000 of them, of every size."""
    random = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (40_000,), generator=random).int()
    values = bits.view(torch.float32)
    values = values[values.isfinite()][:20_000]
    columns = {
        "sample": torch.arange(5000),
        **dict(zip(("x", "y", "x_true", "y_true"), values.view(4, -1), strict=True)),
        "spread_px": torch.full((5000,), 0.1),
    }
    runs.write_predictions(tmp_path, columns)
    found = runs.read_predictions(tmp_path)
    assert [*found] == [*columns]
    for name, column in columns.items():
        assert found[name].dtype == column.dtype, name
        assert torch.equal(found[name], column), name


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_float_survives(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    folder = tmp_path_factory.getbasetemp()
    column = torch.tensor([value])
    runs.write_predictions(folder, dict.fromkeys(("x", "y", "x_true", "y_true"), column))
    assert torch.equal(runs.read_predictions(folder)["y_true"], column)


def test_predictions_of_version_0_1(tmp_path: Path) -> None:
    (tmp_path / runs.PREDICTIONS).write_text(
        "split,x_true,y_true,x_pred,y_pred,spread_px\ntest,3,4,3.1250,4.5000,0.25\n"
        "test,0,15,-0.5000,15.2500,0.5\n"
    )
    found = {name: column.tolist() for name, column in runs.read_predictions(tmp_path).items()}
    assert found == {
        "x_true": [3, 0],
        "y_true": [4, 15],
        "x": [3.125, -0.5],
        "y": [4.5, 15.25],
        "spread_px": [0.25, 0.5],
    }


def test_kept_images_are_read_as_they_were_written(tmp_path: Path) -> None:
    columns = {"sample": torch.tensor([7, 2]), "x": torch.tensor([-0.3, 15.5])}
    images = torch.rand(2, 3, 4)
    runs.write_images(tmp_path, runs.SHOWN, columns, images)
    found, found_images = runs.read_images(tmp_path, runs.SHOWN)
    assert found.keys() == columns.keys()
    assert all(torch.equal(found[name], column) for name, column in columns.items())
    assert torch.equal(found_images, images)
    none, no_images = runs.read_images(tmp_path / "of version 0.1", runs.SHOWN)
    assert (none, len(no_images)) == ({}, 0)


def test_epochs_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert len(runs.read_epochs(tmp_path)) == 0
    rows = [{"epoch": 0, "lr": 0.1}, {"epoch": 1, "lr": 0.05, "val/hit_rate": 0.5}]
    runs.write_epochs(tmp_path, rows)
    found = runs.read_epochs(tmp_path)
    assert found["lr"].tolist() == [0.1, 0.05]
    assert np.isnan(found["val/hit_rate"][0])
    assert found["val/hit_rate"][1] == 0.5


def test_figures_are_strict_json(tmp_path: Path) -> None:
    runs.write_metrics(tmp_path, {"test/count": 3})
    assert runs.read_metrics(tmp_path) == {"test/count": 3}
    with pytest.raises(ValueError, match="JSON"):
        runs.write_metrics(tmp_path, {"test/count": float("nan")})
    assert runs.read_metrics(tmp_path) == {"test/count": 3}, "the old ones stay"


def test_a_plan_grows_by_what_each_command_adds(tmp_path: Path) -> None:
    assert runs.read_plan(tmp_path) == {"commands": [], "cells": {}}
    wide, narrow = ["model=cnn,svm", "seed=0,1"], ["model=cnn"]
    cells = {f"model={m},seed={s}": {"model": m, "seed": s} for m in ("cnn", "svm") for s in "01"}
    runs.add_to_plan(tmp_path, wide, cells)
    runs.add_to_plan(tmp_path, narrow, {"model=cnn": {"model": "cnn"}})
    runs.add_to_plan(tmp_path, wide, cells)
    plan = runs.read_plan(tmp_path)
    assert plan["cells"] == cells | {"model=cnn": {"model": "cnn"}}
    assert plan["commands"] == [narrow, wide], "each once, the latest last"


READERS = {
    runs.METRICS: runs.read_metrics,
    runs.PREDICTIONS: runs.read_predictions,
    runs.EPOCHS: runs.read_epochs,
    runs.WORST: lambda folder: runs.read_images(folder, runs.WORST),
    runs.PLAN: runs.read_plan,
    runs.CONFIG: lambda folder: runs.read_yaml(folder / runs.CONFIG, dict),
}
CONTENTS = {
    "nothing": b"",
    "half": None,
    "binary": b"\x80\xff\x00\xfe" * 9,
    "list": b"[1, 2]",
    "other table": b"a,b\n1,2\n",
    "words": b"epoch,sample,x,y,x_true,y_true\n0,0,one,2,3,4\n",
    "infinite": b"sample,x,y,x_true,y_true\n0,inf,2,3,4\n",
    "text": b"metrics: {",
}


WELL_FORMED = {
    (runs.PREDICTIONS, "half"),
    (runs.CONFIG, "half"),
    (runs.CONFIG, "other table"),
    (runs.EPOCHS, "half"),
    (runs.EPOCHS, "words"),
}
"""Nothing tells these from whole files."""


@pytest.mark.parametrize(
    ("name", "content"),
    [pair for pair in itertools.product(READERS, CONTENTS) if pair not in WELL_FORMED],
)
def test_a_damaged_file_is_named(name: str, content: str, tiny_run: Run, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    damaged = CONTENTS[content]
    if damaged is None:
        if name == runs.PLAN:
            damaged = json.dumps({"commands": [], "cells": {}}).encode()
        else:
            damaged = (tiny_run.folder / name).read_bytes()
        damaged = damaged[: len(damaged) // 2]
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=path.name):
        READERS[name](tmp_path)


def test_a_plan_whose_cells_are_none_is_named(tmp_path: Path) -> None:
    (tmp_path / runs.PLAN).write_text('{"commands": [], "cells": {"seed=0": 5}}')
    with pytest.raises(UserError, match="damaged; delete it"):
        runs.read_plan(tmp_path)


def test_settings_that_figures_follow_from() -> None:
    config = {
        "name": "mine",
        "seed": 3,
        "optim": {"lr": 0.1, "betas": [0.9, 0.99]},
        "data": {"num_workers": 4, "split": "iid"},
        "trainer": {"max_time": "00:00:01:00", "max_epochs": 2, "fast_dev_run": False},
        "logger": {"_target_": "x", "project": "y"},
        "trust": ["mine"],
        "grid_seeds": [0, 1],
    }
    assert runs.settings_of(config) == {
        "seed": 3,
        "optim.lr": 0.1,
        "optim.betas": [0.9, 0.99],
        "data.split": "iid",
        "trainer.max_epochs": 2,
    }


def test_folders_of_cells() -> None:
    assert runs.folder_name("model=cnn,seed=0") == "model=cnn,seed=0"
    assert runs.folder_name("start_from=a/b.ckpt") == "start_from=a_b.ckpt"
    assert runs.folder_name("") == "default"
    long = [runs.folder_name(f"name={'ü' * 150}{k}") for k in (0, 1)]
    assert long[0] != long[1]
    assert all(len(name.encode()) <= 200 for name in long)


def test_classes_that_have_moved_since_0_1_tell_no_runs_apart() -> None:
    before = {"data": {"_target_": "pixel_spotter.data.PixelDataModule"}, "seed": 0}
    now = {"data": {"_target_": "pixel_spotter.data.pixels.PixelDataModule"}, "seed": 0}
    assert runs.settings_of(before) == runs.settings_of(now)


def test_what_a_models_config_repeated_in_0_1_tells_no_runs_apart() -> None:
    before = {"model": {"optimizer": "${optim}", "member": {"scheduler": "${scheduler}"}}}
    now = {"model": {"member": {}}}
    optim = {"optim": {"lr": 0.1}}
    assert runs.settings_of(before | optim) == runs.settings_of(now | optim) == {"optim.lr": 0.1}
    own = {"model": {"optimizer": {"lr": 0.5}}}
    assert runs.settings_of(own) == {"model.optimizer.lr": 0.5}


def _add(folder: Path, number: int) -> None:
    runs.add_to_plan(folder, [f"seed={number}"], {f"seed={number}": {"seed": str(number)}})


def test_a_plan_that_many_add_to_at_once_keeps_all(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    adders = [fork.Process(target=_add, args=(tmp_path, number)) for number in range(12)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    assert len(runs.read_plan(tmp_path)["cells"]) == 12


def test_flags_are_words_in_files(tmp_path: Path) -> None:
    columns = {name: torch.tensor([1.5, torch.nan]) for name in ("x", "y")}
    columns |= {name: torch.tensor([1.0, 2.0]) for name in ("x_true", "y_true")}
    runs.write_predictions(tmp_path, {**columns, "flag": torch.tensor([0.0, 1.0])})
    assert (tmp_path / "predictions.csv").read_text().splitlines()[2].endswith("nothing found")
    assert runs.read_predictions(tmp_path)["flag"].tolist() == [0, 1]
