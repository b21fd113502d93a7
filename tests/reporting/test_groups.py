import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sweeps import cell
from torch.utils.tensorboard import SummaryWriter

from pixel_spotter.reporting.cells import Cell, Unfinished
from pixel_spotter.reporting.groups import (
    Estimate,
    baselines,
    curves_over,
    estimate,
    group_runs,
    pareto_front,
    seen_share,
    training_curve,
)
from pixel_spotter.reporting.verdict import judge


def test_mean_and_interval_are_students() -> None:
    # n = 3: t(0.975, 2) = 4.302653; the deviation of 1, 2, 6 is sqrt(7)
    found = estimate([1.0, 2.0, 6.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(4.302653 * math.sqrt(7) / math.sqrt(3), rel=1e-6)
    assert found.n == 3
    # n = 5: t(0.975, 4) = 2.776445; the deviation of 0 ... 4 is sqrt(2.5)
    assert estimate([0, 1, 2, 3, 4]).half == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)


def test_one_seed_has_no_interval() -> None:
    assert estimate([7.0]) == Estimate(7.0, None, 1)
    assert (estimate([7.0]).low, estimate([7.0]).high) == (7.0, 7.0)


def test_equal_values_have_an_interval_of_exactly_nothing() -> None:
    assert estimate([0.1] * 3).half == 0.0


def test_nothing_cannot_be_estimated() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_runs_that_differ_in_their_seeds_are_one_group() -> None:
    cells = [cell("cnn", seed=seed, error=1.0 + seed) for seed in (0, 1, 2)]
    (group,) = group_runs(cells)
    assert (group.variant, group.split) == ("cnn", "uniform")
    assert group.error.mean == 2.0
    assert group.error.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_models_and_splits_are_ranked_by_error_the_disjoint_first() -> None:
    cells = [
        cell("a", "iid", error=0.1, seen=0.6),
        cell("b", "border", error=3),
        cell("a", "border", error=4),
        cell("a", "uniform", error=2),
        cell("b", "uniform", error=1),
        cell("b", "own", error=1),
    ]
    order = [(group.split, group.model) for group in group_runs(cells)]
    assert order == [
        ("uniform", "b"),
        ("uniform", "a"),
        ("border", "b"),
        ("border", "a"),
        ("iid", "a"),
        ("own", "b"),
    ]


def test_settings_that_differ_between_models_label_nothing() -> None:
    cells = [
        cell("cnn", kind={"optim.lr": 0.1}),
        cell("resnet18", kind={"optim.lr": 0.2, "model.stem": "small"}),
    ]
    assert [group.label for group in group_runs(cells)] == ["", ""]


def test_settings_that_differ_within_a_model_are_its_label() -> None:
    cells = [
        cell("cnn", kind={"optim.lr": lr, "trainer.max_epochs": epochs})
        for lr in (0.1, 0.01)
        for epochs in (16, 32)
    ]
    labels = {group.label for group in group_runs(cells)}
    assert labels == {
        f"lr={lr}, max_epochs={epochs}" for lr in ("0.1", "0.01") for epochs in (16, 32)
    }


def test_an_ablation_is_labelled_by_what_it_changes() -> None:
    base = {
        "data.batch_size": 32,
        "model.dropout": 0.0,
        "scheduler._target_": "torch.CosineAnnealingLR",
    }
    other = {
        "data.batch_size": 32,
        "model.dropout": 0.0,
        "scheduler._target_": "torch.ConstantLR",
        "scheduler.factor": 1.0,
    }
    kinds = [base, base | {"model.dropout": 0.5}, base | {"data.batch_size": 64}, other]
    groups = group_runs([cell("cnn", kind=kind, error=k) for k, kind in enumerate(kinds)])
    assert [group.label for group in groups] == [
        "baseline",
        "dropout=0.5",
        "batch_size=64",
        "scheduler=ConstantLR",
    ]
    assert baselines(groups) == {"cnn": "batch_size=32, dropout=0, scheduler=CosineAnnealingLR"}


def test_a_setting_that_older_runs_lack_tells_none_apart() -> None:
    kinds = [{"optim.lr": 0.1}, {"optim.lr": 0.1, "data.new": 1}, {"optim.lr": 0.1, "data.new": 1}]
    (group,) = group_runs([cell("cnn", seed=seed, kind=kind) for seed, kind in enumerate(kinds)])
    assert (group.label, len(group.cells)) == ("", 3)


def test_a_setting_of_its_own_differs_from_one_that_follows() -> None:
    kinds = [{"scheduler.T_max": "${trainer.max_epochs}"}, {"scheduler.T_max": 10}]
    groups = group_runs([cell("cnn", kind=kind) for kind in kinds])
    assert {group.label for group in groups} == {"T_max=10", "T_max=${trainer.max_epochs}"}


def test_equal_last_words_are_told_apart() -> None:
    kinds = [{"model.size": k, "data.size": k} for k in (1, 2)]
    labels = {group.label for group in group_runs([cell("cnn", kind=kind) for kind in kinds])}
    assert labels == {"model.size=1, data.size=1", "model.size=2, data.size=2"}


def unfinished(model: str, seed: int, state: str = "failed", **overrides: str) -> Unfinished:
    full = {"model": model, "data.split": "uniform", "seed": str(seed), **overrides}
    return Unfinished(f"{model}{seed}", full, state, "no weights", model, "uniform")


def test_unfinished_runs_stand_with_their_group_or_last_on_their_own() -> None:
    done = [cell("cnn", seed=0, overrides={"model": "cnn", "data.split": "uniform", "seed": "0"})]
    missing = [unfinished("cnn", 1), unfinished("resnet18", 0), unfinished("resnet18", 1)]
    cnn, resnet = group_runs(done, missing)
    assert (cnn.model, len(cnn.cells), len(cnn.unfinished)) == ("cnn", 1, 1)
    assert (resnet.variant, len(resnet.cells), len(resnet.unfinished)) == ("resnet18", 0, 2)


def test_open_rows_are_labelled_by_what_would_vary() -> None:
    done = [cell("cnn", overrides={"model": "cnn", "data.split": "uniform", "a.b": "1"})]
    missing = [
        Unfinished("x", {"model": "cnn", "data.split": "uniform", "a.b": "2"}, "not begun", "",
                   "cnn", "uniform")
    ]  # fmt: skip
    assert [group.label for group in group_runs(done, missing)] == ["", "b=2"]


def test_error_by_position_is_the_mean_over_seeds() -> None:
    true = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    one = cell("cnn", seed=0, true=true, pred=true + torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    two = cell("cnn", seed=1, true=true[:1], pred=true[:1] + torch.tensor([[0.0, 1.0]]))
    (group,) = group_runs([one, two])
    found = group.error_by_position()
    assert found.shape == (16, 16)
    assert found[0, 0] == 3.0
    assert found[1, 2] == 1.0
    assert math.isnan(found[2, 1])


def test_the_worst_are_over_all_seeds_and_each_position_once() -> None:
    true = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    one = cell("cnn", seed=0, true=true, pred=true + torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    two = cell("cnn", seed=7, true=true, pred=true + torch.tensor([[5.0, 0.0], [0.5, 0.0]]))
    (group,) = group_runs([one, two])
    found = [(miss.error, miss.seed, miss.xy_true.tolist()) for miss in group.worst(5)]
    assert found == [(5.0, 7, [0, 0]), (2.0, 0, [2, 1])]
    assert len(group.worst(1)) == 1


def test_pareto_front() -> None:
    points = [(1, 9.0), (2, 5.0), (3, 6.0), (4, 1.0), (4, 2.0), (9, 1.0)]
    assert pareto_front(points) == [0, 1, 3]


def test_how_much_was_seen() -> None:
    assert seen_share(group_runs([cell("a", "iid", seen=0.637)])) == "64%"
    several = [cell("a", "iid", seed=k, seen=share) for k, share in enumerate((0.601, 0.649))]
    assert seen_share(group_runs(several)) == "60 to 65%"


def test_error_against_samples_where_epochs_follow() -> None:
    cells = [
        cell("cnn", seed=seed, error=error + seed, kind={
            "data.train_samples": samples, "trainer.max_epochs": 6400 // samples})
        for samples, error in ((100, 4.0), (1600, 1.0))
        for seed in (0, 1)
    ]  # fmt: skip
    curves = curves_over("data.train_samples", group_runs(cells))
    assert list(curves) == ["cnn"]
    assert curves["cnn"].x == [100, 1600]
    assert [y.mean for y in curves["cnn"].y] == [4.5, 1.5]
    assert curves["cnn"].y[0].n == 2


def test_error_against_epochs_a_line_a_rate() -> None:
    cells = [
        cell("cnn", error=lr * epochs, kind={"optim.lr": lr, "trainer.max_epochs": epochs})
        for lr in (0.5, 0.25)
        for epochs in (32, 16)
    ]
    curves = curves_over("trainer.max_epochs", group_runs(cells))
    lines = {name: (curve.x, [y.mean for y in curve.y]) for name, curve in curves.items()}
    assert lines == {"cnn, lr=0.5": ([16, 32], [8, 16]), "cnn, lr=0.25": ([16, 32], [4, 8])}
    assert curves_over("data.train_samples", group_runs(cells)) == {}


def test_training_curves_end_where_the_first_seed_does(tmp_path: Path) -> None:
    for seed, values in enumerate(([4.0, 2.0], [6.0, 4.0, 1.0])):
        with SummaryWriter(str(tmp_path / str(seed))) as writer:
            for epoch, value in enumerate(values):
                writer.add_scalar("val/mean_error_px", value, epoch)
    cells = [cell("cnn", seed=seed, folder=tmp_path / str(seed)) for seed in (0, 1)]
    curve = training_curve(group_runs(cells)[0])
    assert curve is not None
    assert curve.x == [0, 1]
    assert [y.mean for y in curve.y] == [5.0, 3.0]
    assert training_curve(group_runs([cell("cnn", folder=tmp_path / "none")])[0]) is None


def verdict(*cells: Cell) -> Any:
    return judge(group_runs(cells))


def test_the_verdict_is_the_best_where_it_does_worst() -> None:
    found = verdict(
        cell("cnn", "uniform", error=0.1),
        cell("cnn", "border", error=8.0),
        cell("heatmap", "uniform", error=0.3),
        cell("heatmap", "border", error=0.5),
        cell("heatmap", "iid", error=9.0, seen=0.6),
        cell("cnn", "iid", error=0.1, seen=0.6),
    )
    assert found.best == "heatmap"
    assert found.headline == "Use heatmap."
    assert found.holds
    assert found.splits == ["uniform", "border"]
    text = " ".join(found.reasons)
    assert "0.500 px on border" in text
    assert "More than a pixel off" in text
    assert "cnn (8.000 px on border)" in text


def test_a_closed_form_is_the_floor_and_not_the_answer() -> None:
    found = verdict(
        cell("argmax", parameters=0, error=0.0), cell("cnn", error=0.2), cell("svm", error=0.4)
    )
    assert found.headline == "Of the trained models, use cnn."
    assert found.ranking == ["argmax", "cnn", "svm"]
    assert any("floor: argmax" in reason for reason in found.reasons)


def test_overlapping_intervals_are_said_to_overlap() -> None:
    near = [cell(m, seed=s, error=e + s) for m, e in (("a", 1.0), ("b", 1.1)) for s in (0, 1)]
    assert any("the intervals overlap" in reason for reason in verdict(*near).reasons)
    far = [cell(m, seed=s, error=e + s / 100) for m, e in (("a", 1), ("b", 9)) for s in (0, 1)]
    assert any("do not overlap" in reason for reason in verdict(*far).reasons)
    assert any("one seed each" in reason for reason in verdict(cell("a"), cell("b")).reasons)


def test_positions_that_were_seen_recommend_nothing() -> None:
    found = verdict(cell("cnn", "iid", seen=0.64))
    assert "on positions it has seen" in found.headline
    assert found.reasons[0].startswith("64% of the test positions were seen in training")


def test_what_is_not_finished_everywhere_is_not_compared() -> None:
    found = verdict(
        cell("a", "uniform", error=1), cell("a", "border", error=1), cell("b", "uniform", error=0.1)
    )
    assert found.best == "a"
    assert any("Not compared" in reason and "b" in reason for reason in found.reasons)


def test_a_model_that_fails_somewhere_is_not_recommended() -> None:
    found = verdict(cell("cnn", "uniform", error=0.1), cell("cnn", "border", error=3.0))
    assert found.headline == "No trained model holds everywhere; cnn errs least."
    assert not found.holds


def test_closed_forms_alone_recommend_nothing() -> None:
    assert "No trained model" in verdict(cell("argmax", parameters=0, error=0.0)).headline


def test_what_one_model_has_seen_leaves_the_others_comparable() -> None:
    answer = verdict(
        *(cell("good", seed=seed, error=0.2) for seed in (0, 1)),
        *(cell("fair", seed=seed, error=0.4) for seed in (0, 1)),
        *(cell("committee", seed=seed, error=0.01, seen=0.9) for seed in (0, 1)),
    )
    assert answer.best == "good"
    assert "committee" not in answer.ranking
