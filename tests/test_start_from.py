"""Runs that start from another run's weights."""

from pathlib import Path

import pytest
import torch
from conftest import CPU, ONE_BY_ONE, TINY, CommandServer, Run, compose, figures

from pixel_spotter import runs
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.evaluate import evaluate
from pixel_spotter.train import train


def run_from(checkpoint: Path, folder: Path, *overrides: str) -> Run:
    cfg = compose([*TINY, f"start_from={checkpoint}", *overrides])
    return Run(folder, cfg, train(cfg, folder, "cnn"))


@pytest.fixture(scope="module")
def second(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Another epoch on other positions, from the tiny run's weights."""
    folder = tmp_path_factory.mktemp("second") / "run"
    return run_from(tiny_run.best, folder, "trainer.max_epochs=1", "seed=1")


def test_the_weights_are_taken(tiny_run: Run, tmp_path: Path) -> None:
    """Trained with a learning rate of zero, they are the first run's in the end."""
    still = ["optim.lr=0", "scheduler=constant", "trainer.max_epochs=1"]
    again = run_from(tiny_run.best, tmp_path / "run", *still)
    one, other = (
        torch.load(run.best, weights_only=True)["state_dict"] for run in (again, tiny_run)
    )
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    expected = {k: v for k, v in figures(tiny_run.metrics).items() if k.startswith("test/m")}
    assert {key: again.metrics[key] for key in expected} == expected


def test_nothing_but_the_weights_is_taken(second: Run, tiny_run: Run) -> None:
    content = torch.load(second.last, weights_only=True)
    steps = {int(state["step"]) for state in content["optimizer_states"][0]["state"].values()}
    assert steps == {64 // 16}, "a fresh optimizer, for one epoch"
    assert (second.metrics["epochs"], content["epoch"]) == (1, 0)
    before = torch.load(tiny_run.best, weights_only=True)["state_dict"]
    name = "head.linear.weight"
    assert not torch.equal(content["state_dict"][name], before[name]), "it was not trained"


def seen(tested: PixelDataModule, *trained_on: PixelDataModule) -> float:
    seen = {tuple(xy) for data in trained_on for xy in data.positions.train.tolist()}
    test = tested.positions.test.tolist()
    return sum(tuple(xy) in seen for xy in test) / len(test)


def module(seed: int) -> PixelDataModule:
    return PixelDataModule(image_size=16, train_samples=64, seed=seed)


def test_what_the_first_run_was_trained_on_counts_as_seen(second: Run, tmp_path: Path) -> None:
    expected = seen(module(1), module(0), module(1))
    assert 0.1 < expected < 0.6
    assert second.metrics["test/seen_in_training"] == pytest.approx(expected)
    again = evaluate(compose([f"checkpoint={second.best}", *CPU], "evaluate"), tmp_path)
    assert again["test/seen_in_training"] == second.metrics["test/seen_in_training"]
    assert again["test/mean_error_px"] == second.metrics["test/mean_error_px"]


def test_it_still_counts_in_a_third_run(second: Run, tmp_path: Path) -> None:
    third = run_from(second.best, tmp_path / "run", "trainer.max_epochs=1", "seed=2")
    expected = seen(module(2), module(0), module(1), module(2))
    assert third.metrics["test/seen_in_training"] == pytest.approx(expected)
    assert expected > seen(module(2), module(1), module(2))
    before = torch.load(third.best, weights_only=True)["trained_before"]
    assert [one["hyper_parameters"]["seed"] for one in before] == [0, 1]


def test_it_still_counts_after_an_interruption(second: Run, tiny_run: Run) -> None:
    (second.folder / "metrics.json").unlink()
    again = train(second.cfg, second.folder, "cnn")
    assert figures(again) == figures(second.metrics)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.channels=[4,9]"], "its cnn does not fit this cnn: size mismatch"),
        (["model.hidden=[16,16]"], "its cnn does not fit this cnn: "),
        (["data.image_size=32"], "its cnn does not fit this cnn: size mismatch"),
    ],
)
def test_weights_that_do_not_fit(
    overrides: list[str], reason: str, tiny_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"start_from={tiny_run.best}: {reason}") as caught:
        run_from(tiny_run.best, tmp_path / "run", *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/checkpoints").exists(), "refused before training"


def test_another_kind_of_model_and_no_model_at_all(
    run_command: CommandServer, tiny_run: Run, tmp_path: Path
) -> None:
    words = [word for word in TINY if not word.startswith("model")]
    for checkpoint, reason in (
        (tiny_run.best, "its cnn does not fit this heatmap"),
        (tmp_path / "missing.ckpt", "there is no file"),
    ):
        chosen = [*words, "model=heatmap", f"start_from={checkpoint}"]
        assert reason in run_command("train", *chosen, cwd=tmp_path).error()


def test_the_command(run_command: CommandServer, tiny_run: Run, tmp_path: Path) -> None:
    """The path as it is, commas and all."""
    (tmp_path / "my best, ever=1.ckpt").write_bytes(tiny_run.best.read_bytes())
    asked = [*TINY, "start_from=my best, ever=1.ckpt", "name=on"]
    ended = run_command("train", *asked, cwd=tmp_path)
    assert ended.code == 0, ended.stderr


def test_a_grid_over_checkpoints(run_command: CommandServer, tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(tiny_run.best.read_bytes())
    asked = ["--multirun", *TINY, ONE_BY_ONE, "start_from=null,a.ckpt", "name=on"]
    ended = run_command("train", *asked, cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert "2 cells finished, none open" in ended.stdout
    configs = [
        runs.read_yaml(path.parent / runs.CONFIG, dict) for path in tmp_path.rglob("metrics.json")
    ]
    assert {config["start_from"] for config in configs} == {None, "a.ckpt"}
