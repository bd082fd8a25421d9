"""Data: sources with true train, val and test splits, and the Lightning module that serves them."""

from .arrays import ImageNet32, Npz, Torchvision
from .batch import Batch
from .datamodule import ImageDataModule
from .digits import Digits
from .folder import CelebA, Folder
from .lmdb import LSUN
from .parquet import HuggingFace
from .tables import Table
from .toys import Toy
from .webdataset import WebDataset

__all__ = [
    "LSUN",
    "Batch",
    "CelebA",
    "Digits",
    "Folder",
    "HuggingFace",
    "ImageDataModule",
    "ImageNet32",
    "Npz",
    "Table",
    "Torchvision",
    "Toy",
    "WebDataset",
]
