"""What a statistician computes from two samples, and the generators φ of the f-divergences."""

from ._phi import PHI, Phi

__all__ = ["PHI", "Phi"]
