"""What every loader yields, and the one place where bytes become numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """x (n, *shape), images in [−1, 1] or vectors; y (n,) integer labels, or None for unconditional models."""

    x: Tensor
    y: Tensor | None = None


def to_unit(x: Tensor) -> Tensor:
    """uint8 images to floats in [−1, 1], x/127.5 − 1; anything else is left as it is."""
    return x.to(torch.get_default_dtype()) / 127.5 - 1 if x.dtype == torch.uint8 else x


def to_uint8(x: Tensor) -> Tensor:
    """Images in [−1, 1] to uint8, rounded to the nearest and clamped: the inverse of `to_unit` on bytes."""
    return x if x.dtype == torch.uint8 else (x.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
