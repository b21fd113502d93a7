"""Predictions in, the table of figures out.

To add a figure, add its line to `point_metrics`: every model, log and table then has it.
"""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from pixel_spotter.coordinates import Size


def errors_px(xy_pred: Tensor, xy_true: Tensor) -> Tensor:
    """Return the Euclidean distance between prediction and truth, px: (N, 2), (N, 2) -> (N,)."""
    return (xy_pred - xy_true).square().sum(dim=-1).sqrt()


def error_by_position(xy_pred: Tensor, xy_true: Tensor, size: Size) -> np.ndarray:
    """Return the mean error at every position: (N, 2), (N, 2) -> (H, W), px, nan where untested."""
    error = errors_px(xy_pred.double(), xy_true.double()).numpy()
    x, y = xy_true.round().long().numpy().T
    sums, counts = np.zeros(size), np.zeros(size)
    np.add.at(sums, (y, x), error)
    np.add.at(counts, (y, x), 1)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts)


def point_metrics(xy_pred: Tensor, xy_true: Tensor) -> dict[str, float]:
    """Sum up predictions in figures.

    Args:
        xy_pred: predicted xy_px, (N, 2).
        xy_true: true xy_px, (N, 2).

    Returns:
        ``mean_error_px``, ``median_error_px``, ``p95_error_px`` and ``max_error_px`` of the
        Euclidean error; ``mse_px2``, the squared error's mean over both axes, and its root
        ``rmse_px``; ``hit_rate``, the fraction of predictions that round to the true pixel;
        ``within_1px``, the fraction with an error of at most 1 px; ``bias_x_px`` and
        ``bias_y_px``, the mean of prediction minus truth; ``count``.
    """
    xy_pred, xy_true = xy_pred.double(), xy_true.double()
    difference = xy_pred - xy_true
    error = errors_px(xy_pred, xy_true)
    mse = difference.square().mean()
    hit = (xy_pred.round() == xy_true.round()).all(dim=-1)
    figures = {
        "mean_error_px": error.mean(),
        "median_error_px": error.quantile(0.5),
        "p95_error_px": error.quantile(0.95),
        "max_error_px": error.max(),
        "mse_px2": mse,
        "rmse_px": mse.sqrt(),
        "hit_rate": hit.double().mean(),
        "within_1px": (error <= 1).double().mean(),
        "bias_x_px": difference[:, 0].mean(),
        "bias_y_px": difference[:, 1].mean(),
        "count": torch.tensor(len(error)),
    }
    return {name: value.item() for name, value in figures.items()}


class Predictions(Metric):
    """Collects predictions and truths over an epoch and over all devices."""

    full_state_update = False

    xy_pred: list[Tensor]
    xy_true: list[Tensor]
    extra: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("xy_pred", "xy_true", "extra"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, xy_pred: Tensor, xy_true: Tensor, extra: Tensor) -> None:
        """Add a batch: (B, 2), (B, 2), and what else was estimated, (B, E)."""
        self.xy_pred.append(xy_pred.detach())
        self.xy_true.append(xy_true)
        self.extra.append(extra.detach())

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return all that was collected so far: (N, 2), (N, 2), (N, E)."""
        return dim_zero_cat(self.xy_pred), dim_zero_cat(self.xy_true), dim_zero_cat(self.extra)
