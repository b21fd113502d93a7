"""Predictions in, figures of merit out: what has an entry in `FIGURES` is in all that is shown."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pixel_spotter.coordinates import Columns, Size, as_xy, pixel_of


def pixels(value: float, like: float | None = None) -> str:
    """Write a length in px, as exactly as one of the size ``like`` deserves."""
    return small(value, 3 if abs(value if like is None else like) < 10 else 2)


def plain(value: float, like: float | None = None) -> str:
    """Write a number without a unit, or with a sign."""
    return f"{round(value, 3) + 0.0:.3f}"  # no -0.000


def small(value: float, digits: int) -> str:
    """Write a number that is not negative; what is not 0 does not look so either."""
    if value == 0:
        return "0"
    least = 10.0**-digits
    return f"{value:,.{digits}f}" if value > least / 2 else f"<{least:.{digits}f}"


share: Callable[..., str] = "{:.1%}".format  # writes a fraction in per cent
whole: Callable[..., str] = "{:,.0f}".format  # writes a count


@dataclass(frozen=True)
class Figure:
    """A figure of merit.

    Args:
        name: its key, ``test/NAME`` in ``metrics.json``; ends in its unit.
        title: what a table calls it.
        unit: what it is measured in; empty for fractions and counts.
        write: writes a value; asked for one as exact as another deserves, its interval.
        columns: what it is computed from; predictions that lack one do not have the figure.
        compute: the columns, each (N,), float64 -> the value; nan where there is none.
    """

    name: str
    title: str
    unit: str
    write: Callable[..., str]
    columns: tuple[str, ...]
    compute: Callable[[Columns], Tensor | float]

    @property
    def heading(self) -> str:
        """Return the title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def errors_px(columns: Mapping[str, Tensor]) -> Tensor:
    """Return the Euclidean distance between prediction and truth, px: (N,), float64."""
    return _differences(columns).square().sum(dim=1).sqrt()


def _differences(columns: Mapping[str, Tensor]) -> Tensor:
    return as_xy(columns).double() - as_xy(columns, "_true").double()


def _hits(columns: Columns) -> Tensor:
    return (pixel_of(as_xy(columns)) == pixel_of(as_xy(columns, "_true"))).all(dim=1)


def _within_1px(columns: Columns) -> Tensor:
    return (errors_px(columns) <= 1).double().mean()


def _box_iou(columns: Columns) -> Tensor:
    """Return the mean IoU of predicted boxes and the true pixels, whose sides are 1 px."""
    distance = _differences(columns).abs()
    side = torch.stack([columns["box_width_px"], columns["box_height_px"]], dim=1)
    shared = ((side + 1) / 2 - distance).minimum(side).clamp(0, 1).prod(dim=1)
    return (shared / (side.prod(dim=1) + 1 - shared)).mean()


def _bounds(columns: Columns) -> Tensor:
    """Return the Cramér-Rao bounds of both axes, (N, 2); nan where there is none."""
    return torch.stack([columns["bound_x"], columns["bound_y"]], dim=1)


def _bound(columns: Columns) -> Tensor:
    return _bounds(columns).square().nanmean().sqrt()


def _efficiency(columns: Columns) -> Tensor:
    bounded = _bounds(columns).isfinite()
    return _bound(columns) / _differences(columns)[bounded].square().mean().sqrt()


def _covered(columns: Columns, deviations: float) -> Tensor:
    """Return in how many coordinates the truth is within so many predicted deviations."""
    deviation = torch.stack([columns["sd_x"], columns["sd_y"]], dim=1)
    return (_differences(columns).abs() <= deviations * deviation).double().mean()


def _phase_bias(columns: Columns) -> Tensor:
    """Return the amplitude of the error that repeats with every pixel, root mean square of axes.

    Of each axis it is that of ``a cos(2 pi x_true) + b sin(2 pi x_true)``, fitted with a constant,
    less what noise alone leaves there: without such a bias, six of ten runs show 0, the others
    about ``rmse / sqrt(N)``. There is none where the truths do not lie between pixels.
    """
    true = as_xy(columns, "_true").double().T[..., None]
    angle = 2 * math.pi * (true - true.round())
    basis = torch.cat([torch.ones_like(angle), angle.cos(), angle.sin()], dim=2)
    free = basis.shape[1] - 3
    if free < 1 or int(torch.linalg.matrix_rank(basis).min()) < 3:
        return torch.tensor(torch.nan)
    spread = torch.linalg.inv(basis.mT @ basis)
    error = _differences(columns).T[..., None]
    fitted = spread @ basis.mT @ error
    noise = (error - basis @ fitted).square().sum(dim=(1, 2)) / free
    floor = noise * (spread[:, 1, 1] + spread[:, 2, 2])
    squared: Tensor = fitted[:, 1:].square().sum(dim=(1, 2)) - floor
    return squared.mean().clamp(min=0).sqrt()


def _member_rmse(columns: Columns) -> Tensor:
    """Members' squared error is that of their mean plus the squared spread."""
    return ((errors_px(columns).square() + columns["spread_px"].square()).mean() / 2).sqrt()


def _spearman(columns: Columns) -> float:
    """Spearman's rank correlation; none where all spreads or all errors are the same."""
    pairs = np.stack([columns["spread_px"].numpy(), errors_px(columns).numpy()], axis=1)
    return float(pd.DataFrame(pairs).corr("spearman")[0][1])


_XY = ("x", "y", "x_true", "y_true")
_BOX = (*_XY, "box_width_px", "box_height_px")
_SPREAD = (*_XY, "spread_px")
_BOUND = (*_XY, "bound_x", "bound_y")
_SD = (*_XY, "sd_x", "sd_y")

FIGURES: tuple[Figure, ...] = (
    Figure("mean_error_px", "mean error", "px", pixels, _XY, lambda c: errors_px(c).mean()),
    Figure("median_error_px", "median", "px", pixels, _XY, lambda c: errors_px(c).quantile(0.5)),
    Figure("p95_error_px", "95%", "px", pixels, _XY, lambda c: errors_px(c).quantile(0.95)),
    Figure("max_error_px", "worst", "px", pixels, _XY, lambda c: errors_px(c).max()),
    Figure("mse_px2", "mse", "px²", pixels, _XY, lambda c: _differences(c).square().mean()),
    Figure("rmse_px", "rmse", "px", pixels, _XY, lambda c: _differences(c).square().mean().sqrt()),
    Figure("hit_rate", "exact hits", "", share, _XY, lambda c: _hits(c).double().mean()),
    Figure("within_1px", "within 1 px", "", share, _XY, _within_1px),
    Figure("bias_x_px", "bias x", "px", plain, _XY, lambda c: _differences(c)[:, 0].mean()),
    Figure("bias_y_px", "bias y", "px", plain, _XY, lambda c: _differences(c)[:, 1].mean()),
    Figure("bias_phase_px", "pixel locking", "px", pixels, _XY, _phase_bias),
    Figure("bound_px", "bound", "px", pixels, _BOUND, _bound),
    Figure("efficiency", "bound / rmse", "", plain, _BOUND, _efficiency),
    Figure("coverage_68", "within 1 sd", "", share, _SD, lambda c: _covered(c, 1.0)),
    Figure("coverage_95", "within 1.96 sd", "", share, _SD, lambda c: _covered(c, 1.96)),
    Figure("box_iou", "box IoU", "", plain, _BOX, _box_iou),
    Figure("member_rmse_px", "member rmse", "px", pixels, _SPREAD, _member_rmse),
    Figure("spread_error_correlation", "spread-error correlation", "", plain, _SPREAD, _spearman),
    Figure("found", "found", "", share, ("x", "flag"), lambda c: c["x"].isfinite().double().mean()),
    Figure("flagged", "flagged", "", share, ("flag",), lambda c: (c["flag"] > 0).double().mean()),
    Figure("count", "positions", "", whole, ("x_true",), lambda c: len(c["x_true"])),
)  # fmt: skip
"""All figures, in the order in which tables have them.

``rmse_px`` and ``mse_px2`` are means over both axes; a hit is a prediction in the true pixel; the
bias is the mean of prediction minus truth; pixel locking is the part of it that follows where in
its pixel the truth lies; flagged are rows with a reason to doubt them.
"""


def figures_of(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Sum up predictions and truths, columns on the CPU, in every figure they are enough for.

    Where nothing was found, there is no error: ``found`` counts that, the others leave it out.
    """
    exact = {name: column.double() for name, column in columns.items()}
    answered = as_xy(columns).isfinite().all(dim=1)
    there = {name: column[answered] for name, column in exact.items()}
    values = {
        one.name: np.asarray(one.compute(there if {*_XY} <= {*one.columns} else exact)).item()
        for one in FIGURES
        if exact.keys() >= {*one.columns}
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def error_by_position(several: Iterable[Mapping[str, Tensor]], size: Size) -> np.ndarray:
    """Return the mean error in every true pixel: (H, W), px, nan where nothing was tested."""
    sums, counts = np.zeros(size[0] * size[1]), np.zeros(size[0] * size[1])
    for columns in several:
        x, y = pixel_of(as_xy(columns, "_true"), size).numpy().T
        errors = errors_px(columns).numpy()
        found = np.isfinite(errors)
        place = (y * size[1] + x)[found]
        sums += np.bincount(place, errors[found], len(sums))
        counts += np.bincount(place, minlength=len(counts))
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return means.reshape(size)
