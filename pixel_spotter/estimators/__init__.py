"""Images to columns: pure, batched functions with nothing to train.

``model=closed_form model.estimator=NAME`` finds the functions named here.
"""

from pixel_spotter.estimators.gaussian_fit import (
    least_squares,
    maximum_likelihood,
    maximum_likelihood_pair,
)
from pixel_spotter.estimators.moments import argmax, centre_of_mass, centroid
from pixel_spotter.estimators.phasor import phasor
from pixel_spotter.estimators.radial_symmetry import radial_symmetry

__all__ = [
    "argmax",
    "centre_of_mass",
    "centroid",
    "least_squares",
    "maximum_likelihood",
    "maximum_likelihood_pair",
    "phasor",
    "radial_symmetry",
]
