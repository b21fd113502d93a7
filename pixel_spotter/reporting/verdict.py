"""Which model to use, and why: said in words that follow from the figures."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pixel_spotter.metrics import small, whole
from pixel_spotter.reporting.groups import MANY, Estimate, Group, by_split, estimate, seen_share
from pixel_spotter.reporting.table import MEAN_ERROR

MISSES_PX = 1.0  # a larger mean error is called a failure: it is off by more than a pixel


class Verdict(NamedTuple):
    """A report's answer, and why, in sentences.

    The best is a variant's name, empty if there is none; it holds if it can be used and is not
    just the least bad. The ranking has the variants, by their errors on the worst of the splits.
    """

    headline: str
    reasons: list[str]
    best: str
    holds: bool
    splits: list[str]
    ranking: list[str]


def judge(groups: Sequence[Group]) -> Verdict:
    """Name the trained model with the smallest mean error on its worst split.

    Splits that training never saw decide, if there are any, and models that are finished on them.
    """
    done = [group for group in groups if not group.runs.empty]
    # Splits are unseen where any model is: an ensemble of checkpoints may have seen more.
    unseen = [group for group in done if group.unseen]
    table: dict[str, dict[str, Group]] = {}
    for group in unseen or done:
        table.setdefault(group.variant, {})[group.split] = group
    trained = [name for name, row in table.items() if all(g.trained for g in row.values())]
    every = [*by_split(unseen or done)]
    covered = max((list(table[name]) for name in trained), key=len, default=every)
    splits = [split for split in every if split in covered]
    worst = {
        name: max((row[split] for split in splits), key=lambda group: group.error.mean)
        for name, row in table.items()
        if row.keys() >= {*splits}
    }
    ranking = sorted(worst, key=lambda name: (worst[name].error.mean, name))
    floor = _floor([worst[name] for name in ranking if name not in trained])
    learned = [worst[name] for name in ranking if name in trained]
    if not learned:
        headline = "No trained model has finished: there is nothing to recommend yet."
        if ranking and not any(group.unfinished for group in groups):
            headline = f"Nothing here was trained. Of the closed forms, {ranking[0]} errs least."
        return Verdict(headline, floor, "", False, splits, ranking)

    best, others, reasons = learned[0], learned[1:], []
    holds = bool(unseen) and best.error.mean <= MISSES_PX
    headline = f"Of the trained models, use {best.variant}." if floor else f"Use {best.variant}."
    if not unseen:
        headline = f"{best.variant} has the smallest error here, but on positions it has seen."
        reasons.append(
            f"{seen_share(done)} of the test positions were seen in training: these figures do "
            f"not say how well a model does elsewhere."
        )
    elif not holds:
        headline = f"No trained model holds everywhere; {best.variant} errs least."
    what = "models and settings" if any(group.label for group in groups) else "models"
    reasons.append(_place(table[best.variant], best, splits, f"{len(learned)} trained {what}"))
    cost = "was trained before"
    if not best.trained_before:
        per_second = whole(best.mean("train_images_per_second"))
        cost = f"trains in {seconds(best.mean('train_seconds'))} s ({per_second} images/s)"
    reasons.append(f"It has {whole(best.mean('parameters'))} parameters and {cost}.")
    if others:
        of_other_models = [group for group in others if group.model != best.model]
        reasons.append(_rival(best, [*of_other_models, *others][0]))
    reasons += floor
    best_of_each = {group.model: group for group in reversed(learned)}.values()
    failing = [
        f"{group.model} ({group.error} on {group.split})"
        for group in sorted(best_of_each, key=learned.index)
        if group.error.mean > MISSES_PX
    ]
    if failing and unseen:
        where = "More than a pixel off, on average, where positions were never seen"
        reasons.append(f"{where}: {listed(failing)}.")
    missing = [name for name in table if name not in worst]
    if missing:
        names = [*missing[:MANY], *[f"{len(missing) - MANY:,} others"] * (len(missing) > MANY)]
        reasons.append(f"Not compared, as not finished on {listed(splits)}: {listed(names)}.")
    return Verdict(headline, reasons, best.variant, holds, splits, ranking)


def paired(one: Group, other: Group) -> list[float]:
    """Return by how much the first errs more, px, for each seed (equal positions) of both."""
    errors = [group.runs.groupby("seeds")[MEAN_ERROR].mean() for group in (one, other)]
    return [float(value) for value in (errors[0] - errors[1]).dropna()]


def seconds(value: float, like: float | None = None) -> str:
    """Write a time in s, as exactly as one of the size ``like`` deserves."""
    size = abs(value if like is None else like)
    return small(value, 0 if size >= 10 else 1 if size >= 1 else 3)


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _place(row: Mapping[str, Group], best: Group, splits: Sequence[str], among: str) -> str:
    alone = among.startswith("1 ")
    elsewhere = listed([f"{row[s].error} on {s}" for s in splits if s != best.split])
    if not elsewhere:
        place = "and no other was trained" if alone else f"the smallest of {among}"
        return f"Its mean error on {best.split} is {best.error}, {place}."
    place = "It is the only trained model here"
    if not alone:
        place = f"Of {among} it has the smallest error where it does worst"
    return f"{place}: {best.error} on {best.split}; {elsewhere}."


def _rival(best: Group, second: Group) -> str:
    time = f"in {seconds(second.mean('train_seconds'))} s"
    time = "trained before" if second.trained_before else time
    line = f"Next is {second.variant} with {second.error} on {second.split}, {time}"
    differences = paired(best, second)
    if len(differences) < 2:
        shared = "one shared seed" if differences else "no shared seed"
        return f"{line}: {shared} cannot tell whether the difference is chance."
    mean, half = estimate(differences)
    size = f"{Estimate(abs(mean), half)} {'larger' if mean > 0 else 'smaller'}"
    over = f"over the {len(differences)} seeds of both, the error of {best.variant} is {size}"
    can = "can" if abs(mean) > (half or 0) else "cannot"
    return f"{line}: {over}, and chance {can} be ruled out."


def _floor(groups: Sequence[Group]) -> list[str]:
    """Say what closed forms, by rising error, reach: every trained model is read against it."""
    worst = {group.model: group for group in groups}
    exact = [model for model, group in worst.items() if group.exact]
    lines = [
        f"The floor: {model}, without any training, {group.error} on {group.split}."
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
