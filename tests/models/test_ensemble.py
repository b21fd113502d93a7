from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, TINY, CommandServer, Run, compose, read_json, save_checkpoint

from pixel_spotter.cli.mistakes import instantiate
from pixel_spotter.coordinates import Columns, as_columns, as_xy
from pixel_spotter.data.pixels import PixelDataModule
from pixel_spotter.errors import UserError
from pixel_spotter.evaluate import evaluate
from pixel_spotter.models.base import PointRegressor
from pixel_spotter.models.closed_form import ClosedForm
from pixel_spotter.models.cnn import CNNRegressor
from pixel_spotter.models.ensemble import Answers, CheckpointEnsemble, EnsembleRegressor
from pixel_spotter.models.heatmap import HeatmapRegressor
from pixel_spotter.models.loading import load_model
from pixel_spotter.models.resnet import ResNet18Regressor
from pixel_spotter.models.yolo import YOLORegressor
from pixel_spotter.simulation.pixels import render_pixels
from pixel_spotter.train import train

SMALL_CNN = partial(CNNRegressor, 16, channels=[4], hidden=[8])
MEMBERS: dict[str, Callable[[], PointRegressor]] = {
    "cnn": SMALL_CNN,
    "heatmap": partial(HeatmapRegressor, 16, js_weight=1.0),
    "yolo": partial(YOLORegressor, 16),
    "resnet": partial(ResNet18Regressor, 16, weights=None),
}


def batch(count: int = 8) -> tuple[torch.Tensor, Columns]:
    xy = torch.randint(16, (count, 2), generator=torch.Generator().manual_seed(0))
    return render_pixels(xy, (16, 16)), {"x_true": xy[:, 0].float(), "y_true": xy[:, 1].float()}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_answer_is_the_members_mean_and_their_losses_add_up(name: str) -> None:
    """Of any kind of member; one with running statistics keeps them for itself."""
    torch.manual_seed(0)
    ensemble = EnsembleRegressor(16, 3, MEMBERS[name]).eval()
    for k, member in enumerate(ensemble.members):
        for buffer, value in member.named_buffers():
            if buffer.endswith("running_var"):
                value.fill_(1.0 + k)
    image, truth = batch()
    answers = torch.stack([member(image) for member in ensemble.members])
    found = ensemble.estimate(image)
    torch.testing.assert_close(as_xy(found), answers.mean(dim=0))
    spread = (answers - answers.mean(dim=0)).square().sum(-1).mean(0).sqrt()
    torch.testing.assert_close(found["spread_px"], spread)
    assert (spread > 0).all()
    losses = [member.training_loss(image, truth) for member in ensemble.members]
    torch.testing.assert_close(ensemble.training_loss(image, truth), torch.stack(losses).sum())


class Fixed(PointRegressor):
    """Answers as it was told."""

    def __init__(self, answers: list[list[float]]) -> None:
        super().__init__(2)
        self.answers = torch.tensor(answers)

    def estimate(self, image: torch.Tensor) -> Columns:
        return as_columns(self.answers)


def test_mean_and_spread_by_hand() -> None:
    ensemble = Answers(2)
    ensemble.assemble([Fixed([[1.0, 2.0], [3.0, 3.0]]), Fixed([[4.0, 6.0], [3.0, 3.0]])])
    found = {name: column.tolist() for name, column in ensemble.estimate(torch.empty(0)).items()}
    assert found == {"x": [2.5, 3], "y": [4, 3], "spread_px": [2.5, 0]}


def test_members_are_trained_as_they_would_be_alone() -> None:
    def steps(model: PointRegressor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(5):
            optimizer.zero_grad()
            model.training_loss(*batch()).backward()
            optimizer.step()

    torch.manual_seed(0)
    ensemble = EnsembleRegressor(16, 3, SMALL_CNN)
    alone = SMALL_CNN()
    alone.load_state_dict(ensemble.members[1].state_dict())
    steps(ensemble)
    steps(alone)
    torch.testing.assert_close(ensemble.members[1].state_dict(), alone.state_dict())


def test_members_start_from_different_weights() -> None:
    first, second = EnsembleRegressor(16, 2, SMALL_CNN).members
    assert not torch.equal(first.head.linear.weight, second.head.linear.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (partial(ClosedForm, 16, "argmax"), "ClosedForm cannot be .* solved"),
        (
            lambda: EnsembleRegressor(16, 2, SMALL_CNN),
            "EnsembleRegressor cannot be .* ensemble itself",
        ),
        (partial(CNNRegressor, 24), "images of 16x16 px cannot have members .* 24x24"),
    ],
)
def test_a_member_that_cannot_be_one(member: Callable[[], PointRegressor], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        EnsembleRegressor(16, 2, member)


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(ValueError, match=r"model\.members"):
        EnsembleRegressor(16, 1, SMALL_CNN)


def test_another_kind_of_member_by_its_name() -> None:
    chosen = ["model=ensemble", "model@model.member=heatmap", "model.members=2"]
    ensemble = instantiate(compose([*CPU, *chosen, "data.image_size=16"]).model, "model")
    assert [type(member) for member in ensemble.members] == [HeatmapRegressor] * 2


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Checkpoints of two kinds of model, on the splits of two seeds."""
    paths = [tmp_path / "a.ckpt", tmp_path / "b.ckpt"]
    save_checkpoint(paths[0], SMALL_CNN(), 16, seed=0)
    save_checkpoint(paths[1], HeatmapRegressor(16), 16, seed=1)
    return [str(path) for path in paths]


def test_put_together_from_checkpoints(two: list[str]) -> None:
    ensemble = CheckpointEnsemble(16, two)
    image, _ = batch()
    members = [load_model(path)[0](image) for path in two]
    assert torch.equal(ensemble(image), torch.stack(members).mean(dim=0))


def test_what_its_members_were_trained_on_counts_as_seen(two: list[str], tmp_path: Path) -> None:
    tiny = [*(word for word in TINY if not word.startswith(("model.", "optim."))), "seed=0"]
    listed = f"model.checkpoints=[{','.join(two)}]"
    cfg = compose([*tiny, "model=ensemble_of_checkpoints", listed])
    metrics = train(cfg, tmp_path / "run", "ensemble_of_checkpoints")
    mine, other = (PixelDataModule(image_size=16, seed=seed).positions for seed in (0, 1))
    trained = {tuple(xy) for xy in [*mine.train.tolist(), *other.train.tolist()]}
    expected = sum(tuple(xy) in trained for xy in mine.test.tolist()) / len(mine.test)
    assert metrics["test/seen_in_training"] == pytest.approx(expected)
    assert expected > 0
    assert metrics["lr"] is None
    assert metrics["trained_here"] is False

    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    for path in two:
        Path(path).unlink()
    again = evaluate(compose([f"checkpoint={checkpoint}", "trainer=cpu"], "evaluate"), tmp_path)
    assert again["test/seen_in_training"] == metrics["test/seen_in_training"]
    assert again["test/mean_error_px"] == metrics["test/mean_error_px"]


def test_checkpoints_that_disagree_in_image_size(two: list[str], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.ckpt", CNNRegressor(24), 24)
    with pytest.raises(UserError, match=r"16x16 px cannot have members .* 16x16, 24x24"):
        CheckpointEnsemble(16, [two[0], str(tmp_path / "c.ckpt")])


@pytest.mark.parametrize("checkpoints", [[], ["a.ckpt"], "a.ckpt"])
def test_fewer_than_two_checkpoints(checkpoints: Any) -> None:
    with pytest.raises(ValueError, match=r"model\.checkpoints"):
        CheckpointEnsemble(16, checkpoints)


def test_mistakes_end_in_one_line(run_command: CommandServer, tiny_run: Run) -> None:
    for words, reason in (
        (["model=ensemble", "model@model.member=svm"], "SVMRegressor cannot be"),
        (["model=ensemble_of_checkpoints", "model.checkpoints=[x.ckpt,y.ckpt]"], "no file x.ckpt"),
        (["model=ensemble_of_checkpoints"], "model.checkpoints"),
        (
            [
                "model=ensemble_of_checkpoints",
                f"model.checkpoints=['{tiny_run.best}','{tiny_run.last}']",
            ],
            "50x50 px cannot have members for images of 16x16, 16x16 px",
        ),
        (["model=svm", "data.train_samples=1000000"], "more than model.memory_gib=4"),
    ):
        assert reason in run_command("train", *CPU, *words).error()


def test_the_spread_reaches_every_table(
    run_command: CommandServer, tmp_path: Path, tiny_run: Run
) -> None:
    words = [word for word in TINY if not word.startswith("model")]
    member = ["model.member.channels=[4]", "model.member.hidden=[8]", "model.members=2"]
    ended = run_command("train", "model=ensemble", *words, *member, "name=e", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    run = tmp_path / "outputs/runs/e"
    metrics = read_json(run / "metrics.json")
    header, *rows = (run / "predictions.csv").read_text().splitlines()
    assert header == "sample,x,y,spread_px,x_true,y_true"
    spread = torch.tensor([float(row.split(",")[3]) for row in rows])
    assert (spread > 0).all()
    expected = metrics["test/mse_px2"] + spread.square().mean().item() / 2
    assert metrics["test/member_rmse_px"] == pytest.approx(expected**0.5, rel=1e-4)
