"""The 1,797 handwritten digits that come with scikit-learn: 8×8 pixels, 17 grey levels, no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from sklearn.datasets import load_digits

from ..errors import UserError, check_number
from .datasets import ArrayDataset

COUNTS = {"train": 1197, "val": 200, "test": 400}


@dataclass(frozen=True)
class Digits:
    """Splits of 1,197 / 200 / 400 images by one fixed permutation, whatever the run's seed.

    Args:
        size: 8, or 16, 24, 32 … for the same images with every pixel repeated.
    """

    size: int = 8
    name: ClassVar[str] = "digits"

    def __post_init__(self) -> None:
        check_number("data.size", self.size, low=1, integer=True)
        if self.size < 8 or self.size % 8:
            raise UserError(
                f"data=digits has images of 8 pixels, or a multiple of it by repetition: data.size={self.size} is neither"
            )

    def split(self, name: str) -> ArrayDataset:
        data = load_digits()
        images = torch.from_numpy(data.images).float()
        x = (images * (255 / 16)).round().to(torch.uint8)[:, None]
        x = x.repeat_interleave(self.size // 8, 2).repeat_interleave(self.size // 8, 3)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        start = {"train": 0, "val": COUNTS["train"], "test": COUNTS["train"] + COUNTS["val"]}[name]
        index = order[start : start + COUNTS[name]]
        return ArrayDataset(x[index], torch.from_numpy(data.target)[index])
