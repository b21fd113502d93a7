"""Which model to use, and why: said in words that follow from the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pixel_spotter.reporting.groups import Group, seen_share, splits_of
from pixel_spotter.reporting.wording import listed, seconds, whole, with_interval

MISSES_PX = 1.0
"""A mean error above this is called a failure: the prediction is off by more than a pixel."""


@dataclass(frozen=True)
class Verdict:
    """A report's answer.

    Args:
        headline: which model to use.
        reasons: sentences that say why, and what to keep in mind.
        best: the variant's name, empty if there is none.
        holds: whether it can be used, and is not just the least bad.
        splits: the splits that decided.
        ranking: the variants' names, the smallest error on its worst of these splits first.
    """

    headline: str
    reasons: list[str]
    best: str
    holds: bool
    splits: list[str]
    ranking: list[str]


def judge(groups: Sequence[Group]) -> Verdict:
    """Name the trained model with the smallest mean error on its worst split.

    Only splits whose test positions training never saw decide, where there are any; and only
    models that are finished on all of them are compared.
    """
    done = [group for group in groups if group.cells]
    unseen = [s for s in splits_of(done) if any(g.unseen for g in done if g.split == s)]
    deciding = unseen or splits_of(done)
    if unseen:  # an ensemble of checkpoints may have seen what the others have not
        done = [group for group in done if group.unseen]
    table: dict[str, dict[str, Group]] = {}
    for group in done:
        if group.split in deciding:
            table.setdefault(group.variant, {})[group.split] = group
    trained = {name: row for name, row in table.items() if all(g.trained for g in row.values())}
    covered = max((set(row) for row in trained.values()), key=len, default=set(deciding))
    splits = [split for split in deciding if split in covered]
    complete = {name: row for name, row in table.items() if covered <= set(row)}

    def worst(name: str) -> Group:
        return max((complete[name][split] for split in splits), key=lambda g: g.error.mean)

    ranking = sorted(complete, key=lambda name: (worst(name).error.mean, name))
    floor = [name for name in ranking if name not in trained]
    learned = [name for name in ranking if name in trained]
    if not learned:
        headline = "No trained model has finished: there is nothing to recommend yet."
        return Verdict(headline, _floor(floor, complete), "", False, splits, ranking)

    best = learned[0]
    row, where = complete[best], worst(best)
    headline = f"Of the trained models, use {best}." if floor else f"Use {best}."
    holds = bool(unseen) and where.error.mean <= MISSES_PX
    if unseen and not holds:
        headline = f"No trained model holds everywhere; {best} errs least."
    reasons = []
    what = "models and settings" if any(row.label for row in groups) else "models"
    if len(splits) > 1:
        others = [f"{with_interval(row[s].error)} on {s}" for s in splits if s != where.split]
        reasons.append(
            f"Of {len(learned)} trained {what} it has the smallest error where it does worst: "
            f"{with_interval(where.error)} on {where.split}; {listed(others)}."
            if len(learned) > 1
            else f"It is the only trained model here: {with_interval(where.error)} on "
            f"{where.split}; {listed(others)}."
        )
    else:
        among = f"of {len(learned)} trained {what}" if len(learned) > 1 else "no other was trained"
        reasons.append(
            f"Its mean error on {where.split} is {with_interval(where.error)}, "
            + (f"the smallest {among}." if len(learned) > 1 else f"and {among}.")
        )
    reasons.append(_cost(where))
    others_best = [name for name in learned[1:] if worst(name).model != where.model]
    if len(learned) > 1:
        reasons.append(_rival(where, worst([*others_best, *learned[1:]][0])))
    reasons += _floor(floor, complete)
    best_settings = {worst(name).model: worst(name) for name in reversed(learned)}
    failing = [
        f"{model} ({with_interval(group.error)} on {group.split})"
        for model, group in reversed(best_settings.items())
        if group.error.mean > MISSES_PX
    ]
    if failing and unseen:
        reasons.append(
            f"More than a pixel off, on average, where positions were never seen: "
            f"{listed(failing)}."
        )
    if not unseen:
        headline = f"{best} has the smallest error here, but on positions it has seen."
        reasons.insert(
            0,
            f"{seen_share(done)} of the test positions were seen in training: these figures do "
            f"not say how well a model does elsewhere.",
        )
    missing = [name for name in table if name not in complete]
    if missing:
        reasons.append(f"Not compared, as not finished on {listed(splits)}: {listed(missing)}.")
    return Verdict(headline, reasons, best, holds, splits, ranking)


def _cost(group: Group) -> str:
    """Say what a model costs."""
    speed = group.figure("train_images_per_second").mean
    time = group.figure("train_seconds").mean
    return (
        f"It has {whole(group.figure('parameters').mean)} parameters and trains in "
        f"{seconds(time)} s ({whole(speed)} images/s)."
    )


def _rival(best: Group, second: Group) -> str:
    """Compare the best model with the next, where each does worst."""
    line = f"Next is {second.variant} with {with_interval(second.error)} on {second.split}"
    time = seconds(second.figure("train_seconds").mean)
    if best.error.half is None or second.error.half is None:
        return f"{line}, in {time} s; one seed each cannot tell whether the difference is chance."
    if best.error.high >= second.error.low:
        return f"{line}, in {time} s: the intervals overlap."
    return f"{line}, in {time} s: the intervals do not overlap."


def _floor(floor: Sequence[str], table: Mapping[str, Mapping[str, Group]]) -> list[str]:
    """Say what the closed forms reach, against which every trained model is to be read."""
    worst: dict[str, Group] = {}
    for name in floor:
        for group in table[name].values():
            other = worst.setdefault(group.model, group)
            worst[group.model] = max(other, group, key=lambda group: group.error.mean)
    exact = [model for model, group in worst.items() if group.exact]
    lines = [
        f"The floor: {model}, without any training, {with_interval(group.error)} on {group.split}."
        for model, group in worst.items()
        if not group.exact
    ]
    if exact:
        lines.append(
            f"The floor: {listed(exact)}, computed in closed form without any training, "
            f"{'finds' if len(exact) == 1 else 'find'} every position exactly. On images as clean "
            f"as these nothing needs to be learned; the trained models show what learning costs."
        )
    return lines
