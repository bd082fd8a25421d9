"""Contrastive divergence: the energy falls on real samples and rises on those that short chains of the model bring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..distributed import gather_rows, rank, world_size
from ..errors import UserError, check_number
from ..gebm import GEBM, call_base
from ..noise import Generator, rand, randn, shared
from ..samplers import ULA
from ..samplers.chain import sample_chain
from .base import CriticEnergy, Logs
from .energies import EnergyObjective

STARTS = ("data", "base", "replay")


class Replay(nn.Module):
    """Latents of persistent chains, the same on every process: part of the training state.

    Args:
        z: (size, d) first latents.
    """

    z: Tensor

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.register_buffer("z", z)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """(n,) places of the global batch's chains, without one twice where there are enough."""
        u = rand((1, len(self.z)), shared(generator, "replay"), dtype=torch.float64)[0]
        return u.argsort()[torch.arange(n) % len(self.z)]


@dataclass(frozen=True)
class ContrastiveDivergence(EnergyObjective):
    """E_P[E] − E_{x⁻}[E], E the critic, x⁻ from `num_steps` steps of a kernel on −log η(z) + β·E(B(z)) (Hinton, 2002).

    With the identity as base, a uniform prior on [−1, 1]^D, `ULA(σ²/2)` and β = 2s/σ² this is the image-space EBM of Du & Mordatch
    (NeurIPS 2019) and Grathwohl et al. (ICLR 2020), with chains x ← x − s∇E(x) + σξ. The former clip x to the box, the latter
    let it leave; here ULA reflects at the edge. The model is then ∝ exp(−βE), and the energy that `make_energy` makes is βE.

    Args:
        kernel: any kernel of the samplers.
        num_steps: of each chain.
        start: "data", the latents T(x) of the real batch, which an invertible base has (CD-k); "base", fresh latents (short
            runs); "replay", where chains of earlier updates ended (persistent CD, Tieleman, ICML 2008).
        replay_size: persistent chains.
        restart: share of persistent chains that begin anew from the prior (Du & Mordatch, NeurIPS 2019: .05).
        regularisation: α of α(E_P[E²] + E_{x⁻}[E²]), which keeps energies near 0 (same paper); 0 for none.
        beta: factor on the critic that makes it the model's energy.
        data_noise: standard deviation of the Gaussian noise on real samples (Grathwohl et al.: .03); 0 for none.

    Raises:
        UserError: a setting out of range; "data" with a base that is not invertible; a chain that diverges.
    """

    kernel: Any = field(default_factory=lambda: ULA(0.01))
    num_steps: int = 10
    start: str = "data"
    replay_size: int = 10_000
    restart: float = 0.05
    regularisation: float = 0.0
    beta: float = 1.0
    data_noise: float = 0.0
    base_by: str = field(default="own_likelihood", kw_only=True)

    learns_log_partition: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in STARTS:
            raise UserError(f"objective.start is one of {', '.join(STARTS)}, not {self.start}")
        check_number("objective.num_steps", self.num_steps, low=1, integer=True)
        check_number("objective.replay_size", self.replay_size, low=2, integer=True)
        check_number("objective.restart", self.restart, low=0)
        check_number("objective.regularisation", self.regularisation, low=0)
        check_number("objective.beta", self.beta, low=0)
        check_number("objective.data_noise", self.data_noise, low=0)
        if self.restart > 1:
            raise UserError(f"objective.restart is a share of the chains, at most 1, not {self.restart}")

    def to_energy(self, v: Tensor) -> Tensor:
        return self.beta * v

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        return critic if self.beta == 1 else CriticEnergy(critic, self)

    def make_state(self, gebm: GEBM, generator: Generator) -> nn.Module | None:
        if self.start == "data" and not hasattr(gebm.base, "inverse"):
            raise UserError(
                f"objective.start=data needs a base that gives the latents of data: {type(gebm.base).__name__} does not; "
                "take objective.start=base or replay"
            )
        return Replay(gebm.prior.sample(self.replay_size, generator)) if self.start == "replay" else None

    def negatives(
        self, gebm: GEBM, x_real: Tensor, generator: Generator, y: Tensor | None, state: nn.Module | None
    ) -> Tensor:
        n = len(x_real)
        fresh = gebm.prior.sample(n, generator)
        places = None
        if self.start == "data":
            z, _ = cast(Any, gebm.base).inverse(x_real)
        elif self.start == "base":
            z = fresh
        else:
            replay = cast(Replay, state)
            places = replay.draw(n * world_size(), generator)
            kept = replay.z[places[rank() * n : (rank() + 1) * n]]
            renewed = rand((n, 1), generator, kept.device, kept.dtype) < self.restart
            z = torch.where(renewed, fresh, kept)
        try:
            z = sample_chain(self.kernel, gebm.potential(y=y), z, self.num_steps, generator=generator).z
        except UserError as error:
            raise UserError(
                f"the chains of contrastive divergence failed: {str(error).replace('sampler.kernel', 'objective.kernel')}"
            ) from error
        if places is not None:
            replay.z[places] = gather_rows(z)
        return call_base(gebm.base, z, y)

    def perturb(self, x_real: Tensor, generator: Generator) -> Tensor:
        if self.data_noise == 0:
            return x_real
        return x_real + self.data_noise * randn(tuple(x_real.shape), generator, x_real.device, x_real.dtype)

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        gap = e_real.mean() - e_base.mean()
        loss = gap
        if self.regularisation:
            loss = loss + self.regularisation * (e_real.square().mean() + e_base.square().mean())
        return loss, {"energy_gap": gap.detach()}
