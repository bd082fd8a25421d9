"""What a statistician computes from two samples, each an `Estimate(value, witness)`, and the generators φ of f-divergences."""

from . import kernels
from ._f import f_divergence, f_divergence_of_densities, grid
from ._kale import kale
from ._mmd import mmd
from ._phi import PHI, Phi
from ._wasserstein import wasserstein1
from .estimate import Estimate
from .kernels import median_heuristic

__all__ = [
    "PHI",
    "Estimate",
    "Phi",
    "f_divergence",
    "f_divergence_of_densities",
    "grid",
    "kale",
    "kernels",
    "median_heuristic",
    "mmd",
    "wasserstein1",
]
