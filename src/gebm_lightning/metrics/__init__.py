"""Scores: one shared feature extractor, FID, KID, precision and recall over it, and tables that compare samplers."""

from .features import Digits, Identity
from .fidelity import Fidelity
from .inception import Inception
from .scores import Scorer

__all__ = ["Digits", "Fidelity", "Identity", "Inception", "Scorer"]
