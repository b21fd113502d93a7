"""What a model predicts in an epoch, collected over its batches."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from pixel_spotter.coordinates import Columns


class Predictions(Metric):
    """Collects columns over an epoch and over all devices, in the order of their samples."""

    rows: list[Tensor]
    samples: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("samples", [], dist_reduce_fx="cat")

    def update(self, columns: Columns, samples: Tensor) -> None:
        """Add a batch's columns, and the numbers of its samples: (B,) each."""
        self.names = tuple(columns)
        self.rows.append(torch.stack([*columns.values()], dim=1).detach().float())
        self.samples.append(samples)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the numbers of all samples so far, (N,), and their rows, on the CPU."""
        samples, order = dim_zero_cat(self.samples).cpu().sort()
        return samples, dim_zero_cat(self.rows).cpu()[order]

    def columns(self) -> Columns:
        """Return all that was collected so far, on the CPU, and which ``sample`` each row is."""
        samples, rows = self.compute()
        columns = dict(zip(self.names, rows.T.contiguous(), strict=True))
        return {"sample": samples.reshape(-1), **columns}  # of one sample, it comes without a shape
