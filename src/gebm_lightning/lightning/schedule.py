"""How many energy updates come before the next base update, as a function of the base updates done."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class ConstantSchedule:
    """`num` energy updates before every base update."""

    num: int = 5

    def __post_init__(self) -> None:
        if self.num < 1:
            raise UserError(f"energy_schedule.num must be at least 1, not {self.num}")

    def __call__(self, base_updates: int) -> int:
        return self.num


@dataclass(frozen=True)
class PaperSchedule:
    """`num` energy updates, but `many` before the first base update and again every `every` base updates.

    Arbel, Zhou & Gretton (ICLR 2021): 5, 100 and 500.
    """

    num: int = 5
    many: int = 100
    every: int = 500

    def __post_init__(self) -> None:
        if min(self.num, self.many, self.every) < 1:
            raise UserError("energy_schedule.num, .many and .every must be at least 1")

    def __call__(self, base_updates: int) -> int:
        return self.many if base_updates % self.every == 0 else self.num
