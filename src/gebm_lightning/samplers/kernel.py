"""The contract of a kernel: `init(z, potential, generator) -> State`, `step(state, potential, generator) -> (State, Info)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..noise import Generator

PotentialFn = Callable[[Tensor], Tensor]


class Info(NamedTuple):
    """What a step tells of each of the n chains."""

    accept_prob: Tensor
    """(n,) acceptance probability; 1 for kernels that never reject."""
    accepted: Tensor
    """(n,) bool."""
    potential: Tensor
    """(n,) potential at the new state (for KLA at its midpoint, where the gradient was taken)."""


class Kernel(Protocol):
    """A Markov kernel; its State is a NamedTuple whose first field is `z` (n, d)."""

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> Any:
        """The state of n chains at z (n, d)."""

    def step(self, state: Any, potential: PotentialFn, generator: Generator) -> tuple[Any, Info]:
        """One transition of all chains."""


def reflect(z: Tensor, potential: PotentialFn) -> tuple[Tensor, Tensor | None]:
    """z moved into the support of the potential's prior, and the velocity's signs; nothing to do without a prior."""
    prior = getattr(potential, "prior", None)
    return (z, None) if prior is None else prior.reflect(z)
