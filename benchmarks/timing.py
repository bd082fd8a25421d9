"""Interleaved timing, and rows of ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

import torch

REPEATS, WARMUP = 7, 2


class Row(NamedTuple):
    """One figure of the table."""

    name: str
    value: float
    """A ratio of times unless `unit` says otherwise."""
    limit: float | None = None
    """What it should not exceed, or reach where `more` is better."""
    more: bool = False
    unit: str = "×"

    @property
    def met(self) -> bool | None:
        """Whether it keeps its limit; None without one."""
        return None if self.limit is None else self.value >= self.limit if self.more else self.value <= self.limit


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleave(
    works: Mapping[str, Callable[[], object]], repeats: int = REPEATS, warmup: int = WARMUP
) -> dict[str, list[float]]:
    """Seconds of each work in each round, A B A B …, after rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(warmup + repeats):
        for name, work in works.items():
            synchronise()
            start = time.perf_counter()
            work()
            synchronise()
            if round_ >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """The median over rounds of one time over another's of the same round."""
    return median(a / b for a, b in zip(above, below, strict=True))
