"""Unadjusted Langevin (Roberts & Tweedie 1996; Arbel, Zhou & Gretton 2021, algorithm 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import check_number
from ..noise import Generator, randn
from .gradients import value_and_grad
from .kernel import Info, PotentialFn, reflect


class ULAState(NamedTuple):
    z: Tensor
    potential: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class ULA:
    """z ← z − λ∇U(z) + sqrt(2λ) ξ, with λ = `step_size` and one gradient per step.

    Approximate: on a Gaussian of precision ω² its stationary variance is 1/(ω²(1 − λω²/2)). At the edge of a bounded
    support it reflects.

    Args:
        step_size: λ.
        clip: None, or the largest |∂U/∂z_i| that a step follows, as image-space EBMs have it (Du & Mordatch, NeurIPS 2019).
    """

    step_size: float
    clip: float | None = None
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("step_size", self.step_size, above=0)
        if self.clip is not None:
            check_number("clip", self.clip, above=0)

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> ULAState:
        return ULAState(z, *value_and_grad(potential, z))

    def step(self, state: ULAState, potential: PotentialFn, generator: Generator) -> tuple[ULAState, Info]:
        noise = randn(tuple(state.z.shape), generator, state.z.device, state.z.dtype)
        drift = state.gradient if self.clip is None else state.gradient.clamp(-self.clip, self.clip)
        z = state.z - self.step_size * drift + math.sqrt(2 * self.step_size) * noise
        z, _ = reflect(z, potential)
        new = ULAState(z, *value_and_grad(potential, z))
        ones = torch.ones_like(new.potential)
        return new, Info(ones, ones.bool(), new.potential)
