"""Parallel tempering, or replica exchange (Swendsen & Wang 1986; Geyer 1991), along the inverse temperature of the energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..noise import Generator, rand
from .gradients import value_of
from .imh import IMH
from .kernel import Info, PotentialFn, restart


class TemperingState(NamedTuple):
    z: Tensor
    potential: Tensor
    replicas: tuple[Any, ...]
    """The kernel's state at each β of the ladder, hot to cold."""
    steps: int


class TemperingInfo(NamedTuple):
    accept_prob: Tensor
    accepted: Tensor
    potential: Tensor
    swap_prob: Tensor
    """(n, T − 1) acceptance probability of each swap of neighbours; NaN where none was tried."""


@dataclass(frozen=True)
class ParallelTempering:
    """One chain at each β of a ladder, each moved by `kernel`; neighbours swap with probability min(1, e^{(β − β')(E − E')}).

    Exact at every β if the kernel is. The chain's `z` is that of the replica at the potential's own β. At β = 0 the replica
    is drawn from the prior itself; the others all start where the chain does. Even and odd pairs take turns (Okabe et al.
    2001), after every `swap_every`-th step; each swap costs one more evaluation a replica, since cached gradients belong to
    one β.

    Args:
        kernel: what moves each replica.
        betas: inverse temperatures of the energy, among them the potential's own.
        swap_every: steps between swaps.
    """

    kernel: Any
    betas: Sequence[float]
    swap_every: int = 1

    @property
    def exact(self) -> bool:
        """Whether its kernel is."""
        return bool(getattr(self.kernel, "exact", True))

    def __post_init__(self) -> None:
        check_number("swap_every", self.swap_every, low=1, integer=True)
        for beta in self.betas:
            check_number("each of betas", beta, low=0)
        object.__setattr__(self, "betas", tuple(sorted(float(b) for b in self.betas)))
        if len(set(self.betas)) < 2:
            raise UserError(f"betas must be at least two different inverse temperatures, not {list(self.betas)}")

    def _target(self, potential: PotentialFn) -> int:
        own = getattr(potential, "beta", None)
        if own is None or not hasattr(potential, "tempered"):
            raise UserError("parallel tempering needs a potential with a temperature: gebm.potential(beta)")
        near = [i for i, beta in enumerate(self.betas) if abs(beta - own) <= 1e-6 * max(abs(own), 1)]
        if not near:
            raise UserError(f"the potential's beta={own} is none of the ladder's betas={list(self.betas)}: add it")
        return near[0]

    def _kernel(self, index: int) -> Any:
        return IMH() if self.betas[index] == 0 else self.kernel

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> TemperingState:
        target = self._target(potential)
        at: Any = potential
        hot = at.prior.sample(len(z), generator).to(z) if self.betas[0] == 0 else z
        replicas = tuple(
            self._kernel(i).init(hot if b == 0 else z, at.tempered(b), generator) for i, b in enumerate(self.betas)
        )
        return TemperingState(z, _potential(replicas[target], z, potential), replicas, 0)

    def step(
        self, state: TemperingState, potential: PotentialFn, generator: Generator
    ) -> tuple[TemperingState, TemperingInfo]:
        target = self._target(potential)
        at: Any = potential
        ladder = [at.tempered(beta) for beta in self.betas]
        moved = [self._kernel(i).step(old, ladder[i], generator) for i, old in enumerate(state.replicas)]
        replicas, infos = [m[0] for m in moved], [m[1] for m in moved]
        n = len(state.z)
        swap_prob = torch.full((n, len(ladder) - 1), float("nan"), dtype=state.z.dtype, device=state.z.device)
        if (state.steps + 1) % self.swap_every == 0:
            first = (state.steps + 1) // self.swap_every % 2
            for i in range(first, len(ladder) - 1, 2):
                energies = [value_of(at.energy, r.z) for r in replicas[i : i + 2]]
                ratio = (self.betas[i + 1] - self.betas[i]) * (energies[1] - energies[0])
                swap_prob[:, i] = ratio.clamp(max=0).exp()
                swap = rand((n,), generator, state.z.device, state.z.dtype) < swap_prob[:, i]
                hot, cold, which = replicas[i].z, replicas[i + 1].z, swap[:, None]
                for j, swapped in ((i, torch.where(which, cold, hot)), (i + 1, torch.where(which, hot, cold))):
                    replicas[j] = restart(self._kernel(j), replicas[j], swapped, ladder[j], generator)
        z = replicas[target].z
        info: Info = infos[target]
        u = _potential(replicas[target], z, potential)
        return (
            TemperingState(z, u, tuple(replicas), state.steps + 1),
            TemperingInfo(info.accept_prob, info.accepted, u, swap_prob),
        )


def _potential(replica: Any, z: Tensor, potential: PotentialFn) -> Tensor:
    cached = getattr(replica, "potential", None)
    return value_of(potential, z) if cached is None else cached
