"""Scores: one shared feature extractor, FID, KID, precision and recall over it, and tables that compare samplers."""

from .features import Digits, FashionMNIST, Identity
from .fidelity import Fidelity
from .inception import Inception
from .scores import Scorer

__all__ = ["Digits", "FashionMNIST", "Fidelity", "Identity", "Inception", "Scorer"]
