"""Images to columns: pure, batched functions with nothing to train.

``model=closed_form model.estimator=NAME`` finds the functions named here.
"""

from pixel_spotter.estimators.moments import argmax, centroid

__all__ = ["argmax", "centroid"]
