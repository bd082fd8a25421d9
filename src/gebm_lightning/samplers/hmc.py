"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..errors import UserError, check_number
from ..noise import Generator, rand, randn, shared
from .gradients import value_and_grad
from .kernel import Info, PotentialFn, metropolis


class HMCState(NamedTuple):
    z: Tensor
    potential: Tensor
    gradient: Tensor
    steps: int = 0
    """Done so far."""


class Phase(NamedTuple):
    """A point of phase space, with U and ∇U there."""

    z: Tensor
    potential: Tensor
    gradient: Tensor
    momentum: Tensor


@dataclass(frozen=True)
class HMC:
    """Fresh momenta p ~ N(0, I), L leapfrog steps of size h, accepted with probability min(1, e^{H − H'}); exact.

    One leapfrog step: p ← p − (h/2)∇U(z); z ← z + hp; p ← p − (h/2)∇U(z), with one gradient. Trajectories that end outside
    of a bounded support are rejected.

    Args:
        step_size: h.
        num_leapfrog: L, on average.
        jitter: L is uniform on the whole numbers from (1 − jitter)·L to (1 + jitter)·L, drawn anew at each step for all
            chains at once: a fixed length can resonate with the target. 0 for none.
    """

    step_size: float
    num_leapfrog: int
    jitter: float = 0.5
    exact: ClassVar[bool] = True
    carries: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        check_number("step_size", self.step_size, above=0)
        check_number("num_leapfrog", self.num_leapfrog, low=1, integer=True)
        if not 0 <= self.jitter < 1:
            raise UserError(f"jitter must be at least 0 and below 1, not {self.jitter}")

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> HMCState:
        return HMCState(z, *value_and_grad(potential, z))

    def step(self, state: HMCState, potential: PotentialFn, generator: Generator) -> tuple[HMCState, Info]:
        momentum = randn(tuple(state.z.shape), generator, state.z.device, state.z.dtype)
        start = Phase(state.z, state.potential, state.gradient, momentum)
        end = self.trajectory(start, potential, self._length(state.steps, generator))
        kept, probability, accepted = metropolis(start, end, hamiltonian(start) - hamiltonian(end), generator)
        state = HMCState(kept.z, kept.potential, kept.gradient, state.steps + 1)
        return state, Info(probability, accepted, state.potential)

    def trajectory(self, phase: Phase, potential: PotentialFn, length: int) -> Phase:
        """The phase after `length` leapfrog steps."""
        z, u, gradient, p = phase
        for _ in range(length):
            p = p - self.step_size / 2 * gradient
            z = z + self.step_size * p
            u, gradient = value_and_grad(potential, z)
            p = p - self.step_size / 2 * gradient
        return Phase(z, u, gradient, p)

    def _length(self, steps: int, generator: Generator) -> int:
        low, high = math.ceil(self.num_leapfrog * (1 - self.jitter)), math.floor(self.num_leapfrog * (1 + self.jitter))
        low = max(low, 1)
        if low == high:
            return low
        u = rand((1,), shared(generator, f"leapfrog/{steps}"), "cpu").item()
        return low + min(int(u * (high - low + 1)), high - low)


def hamiltonian(phase: Phase) -> Tensor:
    """H = U(z) + ½‖p‖², shape (n,)."""
    return phase.potential + 0.5 * phase.momentum.square().sum(1)
