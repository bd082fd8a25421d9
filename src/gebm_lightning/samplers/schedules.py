"""Schedules `step -> float`: the factor on a kernel's step size, or on β, at each step of a chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import check_number

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The factor `value` at every step."""

    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class StepDecay:
    """factor^(step // every): the paper's image runs multiply the step size by .1 every 200 steps."""

    factor: float = 0.1
    every: int = 200

    def __post_init__(self) -> None:
        check_number("schedule.factor", self.factor, above=0)
        check_number("schedule.every", self.every, low=1, integer=True)

    def __call__(self, step: int) -> float:
        return self.factor ** (step // self.every)


@dataclass(frozen=True)
class Ramp:
    """From `start` to `end` in equal changes over the first `steps` steps, then `end`."""

    start: float = 0.0
    end: float = 1.0
    steps: int = 100

    def __post_init__(self) -> None:
        check_number("schedule.start", self.start, low=0)
        check_number("schedule.end", self.end, low=0)
        check_number("schedule.steps", self.steps, low=1, integer=True)

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)
