"""Random-walk Metropolis (Metropolis et al. 1953)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..errors import check_number
from ..noise import Generator, randn
from .gradients import value_of
from .kernel import Info, PotentialFn, metropolis


class RWMState(NamedTuple):
    z: Tensor
    potential: Tensor


@dataclass(frozen=True)
class RWM:
    """z' = z + σξ with σ = `step_size`, accepted with probability min(1, e^{U(z) − U(z')}); exact, no gradient."""

    step_size: float
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("step_size", self.step_size, above=0)

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> RWMState:
        return RWMState(z, value_of(potential, z))

    def step(self, state: RWMState, potential: PotentialFn, generator: Generator) -> tuple[RWMState, Info]:
        z = state.z + self.step_size * randn(tuple(state.z.shape), generator, state.z.device, state.z.dtype)
        proposal = RWMState(z, value_of(potential, z))
        log_ratio = state.potential - proposal.potential
        state, probability, accepted = metropolis(state, proposal, log_ratio, generator)
        return state, Info(probability, accepted, state.potential)
