"""Spots that were found in several frames: what is known of each, and which are close."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor


class Spots(NamedTuple):
    """Spots of several frames.

    Args:
        frame: of which frame each is, (N,), int64.
        theta: x, y, px, photons, background, sigma_px, (N, 5).
        score: how far each stands out, (N,).
        covariance: of x, y and photons, (N, 3, 3).
        misfit: by how many deviations a window holds more than was fitted and noise, (N,).
        unrest: the variance of how far what is left around it stands out, 1 of noise alone, (N,).
    """

    frame: Tensor
    theta: Tensor
    score: Tensor
    covariance: Tensor
    misfit: Tensor
    unrest: Tensor

    def rows(self, chosen: Tensor) -> "Spots":
        """Return some of them."""
        return Spots(*(part[chosen] for part in self))

    def places(self) -> np.ndarray:
        """Return where they are, (N, 3), those of different frames far from each other."""
        place = torch.column_stack([self.theta[:, :2].double(), self.frame.double() * 1e6])
        return place.cpu().numpy()

    def close(self, within: Tensor) -> Tensor:
        """Return which have another spot closer than ``within``, px, (N,): (N,) bool."""
        away, _ = cKDTree(self.places()).query(self.places(), 2)
        return torch.from_numpy(away[:, 1]).to(within) < within

    def touched(self, changed: Tensor, reach: float) -> Tensor:
        """Return which have a changed one, (N,) bool, beside them, within ``reach``, px."""
        if not changed.any():
            return changed
        at = self.places()
        away, _ = cKDTree(at[changed.cpu().numpy()]).query(
            at, 2, p=math.inf, distance_upper_bound=reach
        )
        found = torch.from_numpy(np.isfinite(away).sum(axis=1)).to(changed.device)
        return found > changed.long()  # more than itself

    def lowest(self, chosen: Tensor, value: Tensor, within: float) -> Tensor:
        """Return which of chosen ones, (N,) bool, have none within, px, with a smaller value."""
        rows = chosen.nonzero()[:, 0]
        tree = cKDTree(self.rows(rows).places())
        both = rows[torch.from_numpy(tree.query_pairs(within, output_type="ndarray")).to(rows)]
        larger = value[both].argmax(dim=1, keepdim=True)
        return chosen.index_fill(0, both.gather(1, larger)[:, 0], False)

    def having(self, rows: Tensor, others: "Spots") -> "Spots":
        """Return these with others in some rows, (M,), int64."""
        return Spots(*(own.index_copy(0, rows, new) for own, new in zip(self, others, strict=True)))

    def and_(self, others: "Spots") -> "Spots":
        """Return these and others."""
        return Spots(*(torch.cat(parts) for parts in zip(self, others, strict=True)))
