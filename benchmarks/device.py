"""What the device can do: the rate of a large matrix product, and the operations that a work counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from .timing import Row, interleave


@cache
def rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product, the fastest of seven."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / min(interleave({"product": lambda: a @ b})["product"])


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products in it."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def share(work: Callable[[], object], seconds: float, device: str, dtype: torch.dtype) -> float:
    """The rate at which a work runs over that of a matrix product in the same precision."""
    return operations(work) / seconds / rate(device, dtype)


def rows(device: str) -> Iterator[Row]:
    """The table's part on the device itself: what no arithmetic of ours can go beyond."""
    full, half = (rate(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    yield Row("a large matrix product in float32", full / 1e9, more=True, unit="Gflop/s")
    yield Row("a large matrix product: bfloat16 / float32", half / full, more=True)
