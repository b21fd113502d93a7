import math
from typing import Any

import pytest
from sweeps import cell, table

from pixel_spotter.reporting.groups import group_runs
from pixel_spotter.reporting.table import Unfinished
from pixel_spotter.reporting.verdict import Verdict, judge, paired, seconds


def verdict(*cells: dict[str, Any]) -> Verdict:
    return judge(group_runs(table(*cells)))


def rival(*cells: dict[str, Any]) -> str:
    (found,) = (reason for reason in verdict(*cells).reasons if reason.startswith("Next"))
    return found


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
    assert "0.500 px on border; 0.300 px on uniform." in text
    assert "More than a pixel off" in text
    assert "cnn (8.000 px on border)" in text


def test_a_closed_form_is_the_floor_and_not_the_answer() -> None:
    found = verdict(
        cell("argmax", parameters=0, error=0.0), cell("cnn", error=0.2), cell("svm", error=0.4)
    )
    assert found.headline == "Of the trained models, use cnn."
    assert found.ranking == ["argmax", "cnn", "svm"]
    assert any("floor: argmax" in reason for reason in found.reasons)


@pytest.mark.parametrize(("error", "holds"), [(0.999, True), (1.0, True), (1.001, False)])
def test_more_than_a_pixel_off_is_a_failure(error: float, holds: bool) -> None:
    found = verdict(cell("cnn", error=error))
    assert found.holds == holds
    assert any("More than a pixel off" in reason for reason in found.reasons) != holds
    assert found.headline.startswith("Use" if holds else "No trained model holds everywhere")


def test_models_are_compared_seed_by_seed() -> None:
    # The seeds differ by far more than the models do, which the paired differences do not see.
    cells = [
        cell(model, seed=seed, error=10.0**-seed + error + 0.001 * (model == "b") * seed)
        for model, error in (("a", 0.0), ("b", 0.1))
        for seed in (0, 1, 2)
    ]
    a, b = group_runs(table(*cells))
    assert paired(a, b) == pytest.approx([-0.1, -0.101, -0.102])
    assert paired(b, a) == pytest.approx([0.1, 0.101, 0.102])
    # the deviation of the differences is 0.001: t(0.975, 2) * 0.001 / sqrt(3) = 0.0025
    assert 4.302653 * 0.001 / math.sqrt(3) == pytest.approx(0.0025, abs=5e-5)
    assert rival(*cells).endswith(
        ": over the 3 seeds of both, the error of a is 0.101 ± 0.002 px smaller, and chance can be "
        "ruled out."
    )


def test_a_difference_that_may_be_chance_is_said_to_be() -> None:
    errors = {"a": (1.0, 2.0), "b": (2.5, 1.0)}
    cells = [cell(m, seed=s, error=e) for m, both in errors.items() for s, e in enumerate(both)]
    # differences -1.5 and 1: -0.25 +- 12.7062 * 1.25
    assert rival(*cells).endswith(
        ": over the 2 seeds of both, the error of a is 0.250 ± 15.883 px smaller, and chance "
        "cannot be ruled out."
    )


def test_only_seeds_that_both_have_are_compared() -> None:
    a = [cell("a", seed=seed, error=error) for seed, error in enumerate((0.1, 0.2, 0.9))]
    b = [cell("b", seed=seed, error=error) for seed, error in ((2, 0.5), (3, 0.7))]
    assert "one shared seed cannot tell" in rival(*a, *b)
    assert "no shared seed cannot tell" in rival(*a, b[1])
    shared = [*a, *b, cell("b", seed=1, error=0.1)]
    # 0.9 - 0.5 and 0.2 - 0.1: the best of all seeds is the worse one where both can be compared
    assert "over the 2 seeds of both, the error of a is 0.250 ± 1.906 px larger" in rival(*shared)


def test_equal_errors_cannot_be_told_apart() -> None:
    cells = [cell(model, seed=seed, error=0.5) for model in "ab" for seed in (0, 1)]
    assert rival(*cells).endswith("0 ± 0 px smaller, and chance cannot be ruled out.")


def test_each_is_compared_where_it_does_worst() -> None:
    errors = {"a": {"uniform": 0.1, "border": 0.5}, "b": {"uniform": 2.0, "border": 0.7}}
    cells = [
        cell(model, split, seed=seed, error=error + seed / 1000)
        for model, by_split in errors.items()
        for split, error in by_split.items()
        for seed in (0, 1)
    ]
    assert "the error of a is 1.500 ± 0 px smaller" in rival(*cells)


def test_positions_that_were_seen_recommend_nothing() -> None:
    found = verdict(cell("cnn", "iid", seen=0.64))
    assert found.headline == "cnn has the smallest error here, but on positions it has seen."
    assert found.reasons[0].startswith("64% of the test positions were seen in training")
    assert not found.holds


def test_what_is_not_finished_everywhere_is_not_compared() -> None:
    found = verdict(
        cell("a", "uniform", error=1), cell("a", "border", error=1), cell("b", "uniform", error=0.1)
    )
    assert found.best == "a"
    assert "Not compared, as not finished on uniform and border: b." in found.reasons


def test_splits_without_a_trained_model_do_not_decide() -> None:
    floor = [cell("argmax", split, parameters=0, error=0.0) for split in ("uniform", "border")]
    found = verdict(cell("cnn", "uniform", error=0.1), *floor)
    assert (found.best, found.splits) == ("cnn", ["uniform"])


def test_a_model_that_fails_somewhere_is_not_recommended() -> None:
    found = verdict(cell("cnn", "uniform", error=0.1), cell("cnn", "border", error=3.0))
    assert found.headline == "No trained model holds everywhere; cnn errs least."
    assert not found.holds


def test_closed_forms_alone_recommend_nothing() -> None:
    floor = [cell("argmax", parameters=0, error=0.1), cell("centroid", parameters=0, error=0.2)]
    found = verdict(*floor)
    assert found.headline == "Nothing here was trained. Of the closed forms, argmax errs least."
    assert not found.best
    open_cell = Unfinished("cnn0", {}, "not begun", "", "cnn", "uniform")
    found = judge(group_runs(table(*floor), [open_cell]))
    assert found.headline.startswith("No trained model has finished")


def test_what_was_trained_elsewhere_has_no_time_of_training() -> None:
    before = cell("trained", error=0.1, trained_here=False)
    reasons = verdict(before, cell("cnn", error=0.2, trained_here=True)).reasons
    assert "It has 10 parameters and was trained before." in reasons
    assert rival(cell("cnn", error=0.05), before).startswith(
        "Next is trained with 0.100 px on uniform, trained before"
    )


def test_what_one_model_has_seen_leaves_the_others_comparable() -> None:
    answer = verdict(
        *(cell("good", seed=seed, error=0.2) for seed in (0, 1)),
        *(cell("fair", seed=seed, error=0.4) for seed in (0, 1)),
        *(cell("committee", seed=seed, error=0.01, seen=0.9) for seed in (0, 1)),
    )
    assert answer.best == "good"
    assert "committee" not in answer.ranking


def test_the_next_is_another_model_where_there_is_one() -> None:
    cells = [cell("cnn", error=lr, settings={"optim.lr": lr}) for lr in (0.1, 0.2)]
    assert rival(*cells, cell("svm", error=0.5)).startswith("Next is svm with 0.500 px")
    assert rival(*cells).startswith("Next is cnn, lr=0.2 with 0.200 px")


@pytest.mark.parametrize(
    ("time", "like", "written"),
    [
        (0.12345, None, "0.123"),
        (0.0004, None, "<0.001"),
        (3.14159, None, "3.1"),
        (61.7, None, "62"),
        (1234.5, None, "1,234"),
        (0.6, 61.7, "1"),
        (0.0, None, "0"),
    ],
)
def test_times_are_as_exact_as_they_deserve(time: float, like: float | None, written: str) -> None:
    assert seconds(time, like) == written
