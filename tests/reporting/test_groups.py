import math

import pytest
import torch
from sweeps import cell, columns, table

from pixel_spotter.reporting.figures import frontier
from pixel_spotter.reporting.groups import (
    Estimate,
    baselines,
    by_split,
    curves_over,
    estimate,
    group_runs,
    seen_share,
)
from pixel_spotter.reporting.table import Unfinished


def test_mean_and_interval_are_students() -> None:
    # n = 3: t(0.975, 2) = 4.302653; the deviation of 1, 2, 6 is sqrt(7)
    found = estimate([1.0, 2.0, 6.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(4.302653 * math.sqrt(7) / math.sqrt(3), rel=1e-6)
    # n = 5: t(0.975, 4) = 2.776445; the deviation of 0 ... 4 is sqrt(2.5)
    assert estimate([0, 1, 2, 3, 4]).half == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)


def test_one_seed_has_no_interval() -> None:
    assert estimate([7.0]) == Estimate(7.0, None)
    assert str(estimate([7.0])) == "7.000 px"


def test_equal_values_have_an_interval_of_exactly_nothing() -> None:
    assert estimate([0.1] * 3).half == 0.0


def test_errors_are_written_with_their_intervals() -> None:
    assert str(Estimate(0.21739, 0.0121)) == "0.217 ± 0.012 px"
    assert str(Estimate(12.3456, 0.5678)) == "12.35 ± 0.57 px"  # as exactly as the mean


def test_runs_that_differ_in_their_seeds_are_one_group() -> None:
    (group,) = group_runs(table(*(cell("cnn", seed=k, error=1.0 + k) for k in (0, 1, 2))))
    assert (group.variant, group.split, len(group.runs)) == ("cnn", "uniform", 3)
    assert group.error.mean == 2.0
    assert group.error.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_models_and_splits_are_ranked_by_error_the_disjoint_first() -> None:
    groups = group_runs(
        table(
            cell("a", "iid", error=0.1, seen=0.6),
            cell("b", "border", error=3),
            cell("a", "border", error=4),
            cell("a", "uniform", error=2),
            cell("b", "uniform", error=1),
            cell("b", "own", error=1),
        )
    )
    order = ["uniform b", "uniform a", "border b", "border a", "iid a", "own b"]
    assert [f"{group.split} {group.model}" for group in groups] == order


def test_settings_that_differ_between_models_label_nothing() -> None:
    other = {"optim.lr": 0.2, "model.stem": "small"}
    groups = group_runs(
        table(cell("cnn", settings={"optim.lr": 0.1}), cell("resnet18", settings=other))
    )
    assert [group.label for group in groups] == ["", ""]


def test_settings_that_differ_within_a_model_are_its_label() -> None:
    cells = [
        cell("cnn", settings={"optim.lr": lr, "trainer.max_epochs": epochs})
        for lr in (0.1, 0.01)
        for epochs in (16, 32)
    ]
    assert {group.label for group in group_runs(table(*cells))} == {
        f"lr={lr}, max_epochs={epochs}" for lr in ("0.1", "0.01") for epochs in (16, 32)
    }


def test_labels_write_what_yaml_would() -> None:
    for value, written in ((None, "null"), (True, "true"), ([1, 2], "[1,2]"), (1e-05, "1e-05")):
        groups = group_runs(table(*(cell("cnn", settings={"a.b": v}) for v in (value, "x"))))
        assert {group.label for group in groups} == {f"b={written}", "b=x"}


def test_an_ablation_is_labelled_by_what_it_changes() -> None:
    base = {
        "data.batch_size": 32,
        "model.dropout": 0.0,
        "scheduler._target_": "torch.CosineAnnealingLR",
    }
    other = base | {"scheduler._target_": "torch.ConstantLR", "scheduler.factor": 1.0}
    kinds = [base, base | {"model.dropout": 0.5}, base | {"data.batch_size": 64}, other]
    cells = [cell("cnn", settings=kind, error=k) for k, kind in enumerate(kinds)]
    groups = group_runs(table(*cells))
    labels = ["baseline", "dropout=0.5", "batch_size=64", "scheduler=ConstantLR"]
    assert [group.label for group in groups] == labels
    assert baselines(groups) == {"cnn": "batch_size=32, dropout=0, scheduler=CosineAnnealingLR"}


def test_a_baseline_may_lack_a_setting() -> None:
    kinds = [{"m.a": 1}, {"m.a": 2}, {"m.a": 1, "m.b": 1}, {"m.a": 1, "m.b": 2}, {"m.a": 3}]
    groups = group_runs(table(*(cell("cnn", settings=one, error=k) for k, one in enumerate(kinds))))
    assert [group.label for group in groups] == ["baseline", "a=2", "b=1", "b=2", "a=3"]


def test_a_setting_that_older_runs_lack_tells_none_apart() -> None:
    kinds = [{"optim.lr": 0.1}, {"optim.lr": 0.1, "data.new": 1}, {"optim.lr": 0.1, "data.new": 1}]
    cells = [cell("cnn", seed=seed, settings=kind) for seed, kind in enumerate(kinds)]
    (group,) = group_runs(table(*cells))
    assert (group.label, len(group.runs)) == ("", 3)


def test_a_setting_of_its_own_differs_from_one_that_follows() -> None:
    kinds = [{"scheduler.T_max": "${trainer.max_epochs}"}, {"scheduler.T_max": 10}]
    groups = group_runs(table(*(cell("cnn", settings=kind) for kind in kinds)))
    assert {group.label for group in groups} == {"T_max=10", "T_max=${trainer.max_epochs}"}


def test_equal_last_words_are_told_apart() -> None:
    cells = [cell("cnn", settings={"model.size": k, "data.size": k}) for k in (1, 2)]
    labels = {group.label for group in group_runs(table(*cells))}
    assert labels == {"model.size=1, data.size=1", "model.size=2, data.size=2"}


def unfinished(model: str, seed: int, state: str = "failed", **overrides: str) -> Unfinished:
    full = {"model": model, "data.split": "uniform", "seed": str(seed), **overrides}
    return Unfinished(f"{model}{seed}", full, state, "no weights", model, "uniform")


def test_unfinished_runs_stand_with_their_group_or_last_on_their_own() -> None:
    done = cell("cnn", overrides={"model": "cnn", "data.split": "uniform", "seed": "0"})
    missing = [unfinished("cnn", 1), unfinished("resnet18", 0), unfinished("resnet18", 1)]
    cnn, resnet = group_runs(table(done), missing)
    assert (cnn.model, len(cnn.runs), len(cnn.unfinished)) == ("cnn", 1, 1)
    assert (resnet.variant, len(resnet.runs), len(resnet.unfinished)) == ("resnet18", 0, 2)


def test_what_changes_no_figure_tells_no_cells_apart() -> None:
    done = cell("cnn", overrides={"model": "cnn", "data.split": "uniform", "seed": "0"})
    (group,) = group_runs(table(done), [unfinished("cnn", 1, **{"data.num_workers": "2"})])
    assert len(group.unfinished) == 1


def test_open_rows_are_labelled_by_what_would_vary() -> None:
    done = cell("cnn", overrides={"model": "cnn", "data.split": "uniform", "a.b": "1"})
    overrides = {"model": "cnn", "data.split": "uniform", "a.b": "2"}
    missing = [Unfinished("x", overrides, "not begun", "", "cnn", "uniform")]
    assert [group.label for group in group_runs(table(done), missing)] == ["", "b=2"]


def test_error_by_position_is_the_mean_over_seeds() -> None:
    one = cell("cnn", seed=0, predictions=columns([[3, 4], [2, 2]], [[0, 0], [2, 1]]))
    two = cell("cnn", seed=1, predictions=columns([[0, 1]], [[0, 0]]))
    (group,) = group_runs(table(one, two))
    found = group.error_by_position()
    assert found.shape == (16, 16)
    assert found[0, 0] == 3.0
    assert found[1, 2] == 1.0  # [y, x]
    assert math.isnan(found[2, 1])


def test_errors_of_truths_between_pixels_belong_to_the_pixel_they_lie_in() -> None:
    predictions = columns([[0.7, 0.0], [15.5, 14.0]], [[-0.3, 0.0], [15.5, 15.5]])
    (group,) = group_runs(table(cell("cnn", predictions=predictions)))
    found = group.error_by_position()
    assert found[0, 0] == pytest.approx(1.0)
    assert found[15, 15] == 1.5


def test_a_figure_that_one_run_lacks_is_none_of_the_groups() -> None:
    one, two = cell("cnn", seed=0, own=1.0), cell("cnn", seed=1)
    (group,) = group_runs(table(one, two))
    assert group.figure("own") is None
    assert group.figure("parameters") == Estimate(10.0, 0.0)


def test_one_seen_position_of_one_seed_is_seen() -> None:
    first, second = cell("a", seed=0), cell("a", seed=1, seen=0.001)
    assert group_runs(table(first))[0].unseen
    assert not group_runs(table(first, second))[0].unseen


@pytest.mark.parametrize(("error", "exact"), [(0.0, True), (0.00045, True), (0.00055, False)])
def test_what_is_written_as_0_is_exact(error: float, exact: bool) -> None:
    (group,) = group_runs(table(cell("cnn", predictions=columns([[error, 0]], [[0, 0]]))))
    assert group.exact == exact


def test_how_much_was_seen() -> None:
    assert seen_share(group_runs(table(cell("a", "iid", seen=0.637)))) == "64%"
    several = [cell("a", "iid", seed=k, seen=share) for k, share in enumerate((0.601, 0.649))]
    assert seen_share(group_runs(table(*several))) == "60 to 65%"


def test_error_against_samples_where_epochs_follow() -> None:
    cells = [
        cell("cnn", seed=seed, error=error + seed, settings={
            "data.train_samples": samples, "trainer.max_epochs": 6400 // samples})
        for samples, error in ((1600, 1.0), (100, 4.0))
        for seed in (0, 1)
    ]  # fmt: skip
    curves = curves_over("data.train_samples", group_runs(table(*cells)))
    assert list(curves) == ["cnn"]
    assert list(curves["cnn"]) == [100, 1600]
    assert [error.mean for error in curves["cnn"].values()] == [4.5, 1.5]
    half = curves["cnn"][100.0].half
    assert half == pytest.approx(12.7062 * math.sqrt(0.5) / math.sqrt(2), rel=1e-5)


def test_error_against_epochs_a_line_a_rate() -> None:
    cells = [
        cell("cnn", error=lr * epochs, settings={"optim.lr": lr, "trainer.max_epochs": epochs})
        for lr in (0.5, 0.25)
        for epochs in (32, 16)
    ]
    groups = group_runs(table(*cells))
    lines = {
        name: {x: error.mean for x, error in curve.items()}
        for name, curve in curves_over("trainer.max_epochs", groups).items()
    }
    assert lines == {"cnn, lr=0.5": {16: 8, 32: 16}, "cnn, lr=0.25": {16: 4, 32: 8}}
    assert curves_over("data.train_samples", groups) == {}


def test_one_value_is_no_curve() -> None:
    kinds = [{"optim.lr": lr, "data.train_samples": n} for lr, n in ((1, 100), (1, 900), (2, 100))]
    groups = group_runs(table(*(cell("cnn", settings=kind) for kind in kinds)))
    assert [*curves_over("data.train_samples", groups)] == ["cnn, lr=1"]


def test_images_have_the_size_that_the_runs_say() -> None:
    (group,) = group_runs(table(cell("cnn", image_size=[8, 32])))
    assert group.error_by_position().shape == (8, 32)
    assert torch.isfinite(torch.tensor(group.error_by_position())).sum() == 2


def test_the_first_of_the_scenarios_is_the_one_without_difficulties() -> None:
    found = group_runs(
        table(*(cell("cnn", name) for name in ("edge", "read_noise", "isolated", "uniform")))
    )
    assert [*by_split(found)] == ["uniform", "isolated", "edge", "read_noise"]


def test_what_was_trained_elsewhere_has_no_figure_of_its_training() -> None:
    before, here = (cell("cnn", trained_here=value) for value in (False, True))
    for one, known in ((before, False), (here, True)):
        (group,) = group_runs(table(one))
        for key in ("train_seconds", "train_images_per_second"):
            assert (group.figure(key) is not None) == known
        assert group.figure("parameters") is not None
        assert bool([*frontier.sections([group])]) == known
