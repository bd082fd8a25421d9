"""Scores: one shared feature extractor, FID, KID, precision and recall over it, and tables that compare samplers."""

from .features import Digits, Identity
from .inception import Inception
from .scores import Scorer

__all__ = ["Digits", "Identity", "Inception", "Scorer"]
