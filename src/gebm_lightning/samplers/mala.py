"""Metropolis-adjusted Langevin (Roberts & Tweedie, Bernoulli 1996)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..errors import check_number
from ..noise import Generator, randn
from .gradients import value_and_grad
from .kernel import Info, PotentialFn, metropolis


class MALAState(NamedTuple):
    z: Tensor
    potential: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class MALA:
    """ULA's step z' = z − λ∇U(z) + sqrt(2λ) ξ, accepted with probability min(1, e^r); exact, one gradient per step.

    r = U(z) − U(z') + (‖z' − z + λ∇U(z)‖² − ‖z − z' + λ∇U(z')‖²)/(4λ). Proposals outside of a bounded support are
    rejected.
    """

    step_size: float
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("step_size", self.step_size, above=0)

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> MALAState:
        return MALAState(z, *value_and_grad(potential, z))

    def step(self, state: MALAState, potential: PotentialFn, generator: Generator) -> tuple[MALAState, Info]:
        noise = randn(tuple(state.z.shape), generator, state.z.device, state.z.dtype)
        z = state.z - self.step_size * state.gradient + math.sqrt(2 * self.step_size) * noise
        proposal = MALAState(z, *value_and_grad(potential, z))
        state, probability, accepted = metropolis(state, proposal, self.log_ratio(state, proposal), generator)
        return state, Info(probability, accepted, state.potential)

    def log_ratio(self, old: MALAState, new: MALAState) -> Tensor:
        """(n,) r above: log of π(z') q(z' → z) over π(z) q(z → z')."""
        forth = new.z - old.z + self.step_size * old.gradient
        back = old.z - new.z + self.step_size * new.gradient
        moved = (forth.square() - back.square()).sum(1) / (4 * self.step_size)
        return old.potential - new.potential + moved
