"""Data: sources with true train, val and test splits, and the Lightning module that serves them."""

from .batch import Batch
from .datamodule import ImageDataModule
from .digits import Digits
from .toys import Toy

__all__ = ["Batch", "Digits", "ImageDataModule", "Toy"]
