"""The contract of a kernel: `init(z, potential, generator) -> State`, `step(state, potential, generator) -> (State, Info)`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from ..noise import Generator, rand

PotentialFn = Callable[[Tensor], Tensor]
S = TypeVar("S", bound=tuple[Any, ...])


class Info(NamedTuple):
    """What a step tells of each of the n chains."""

    accept_prob: Tensor
    """(n,) acceptance probability; 1 for kernels that never reject."""
    accepted: Tensor
    """(n,) bool."""
    potential: Tensor
    """(n,) potential at the new state (for KLA at its midpoint, where the gradient was taken)."""


class Kernel(Protocol):
    """A Markov kernel; its State is a NamedTuple whose first field is `z` (n, d).

    Kernels of this package say whether they are `exact`: leave exp(−U) as it is, by a Metropolis test.
    """

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> Any:
        """The state of n chains at z (n, d)."""

    def step(self, state: Any, potential: PotentialFn, generator: Generator) -> tuple[Any, Info]:
        """One transition of all chains."""


def restart(kernel: Any, state: Any, z: Tensor, potential: PotentialFn, generator: Generator) -> Any:
    """The kernel's state at z under another potential, with what does not belong to the potential taken over: its `carries`."""
    fresh = kernel.init(z, potential, generator)
    return fresh._replace(**{field: getattr(state, field) for field in getattr(kernel, "carries", ())})


def metropolis(old: S, new: S, log_ratio: Tensor, generator: Generator) -> tuple[S, Tensor, Tensor]:
    """The state after the Metropolis–Hastings test of log ratio (n,), the acceptance probability (n,), and what was accepted (n,).

    A chain keeps the whole of its old state, with the potential and gradient that belong to it, or takes the whole of the
    new one. A proposal whose ratio is NaN, where the potential has no value, is rejected.
    """
    accept_prob = torch.nan_to_num(log_ratio, nan=-math.inf).clamp(max=0).exp()
    accepted = rand(tuple(log_ratio.shape), generator, log_ratio.device, log_ratio.dtype) < accept_prob
    return choose(accepted, new, old), accept_prob, accepted


def choose(which: Tensor, yes: S, no: S) -> S:
    """Row by row of all fields, the one state where `which` (n,) holds and the other where not."""
    rows = (torch.where(which.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(yes, no, strict=True))
    return type(yes)(*rows)


def reflect(z: Tensor, potential: PotentialFn) -> tuple[Tensor, Tensor | None]:
    """z moved into the support of the potential's prior, and the velocity's signs; nothing to do without a prior."""
    prior = getattr(potential, "prior", None)
    return (z, None) if prior is None else prior.reflect(z)
