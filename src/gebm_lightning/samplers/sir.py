"""Self-normalised importance resampling: the model's own law at inverse temperature β, without a chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import check_number
from ..gebm import GEBM
from ..noise import BlockNoise, Generator, rand
from .gradients import sampling_mode
from .refiner import Samples, chunks


@dataclass(frozen=True)
class SIR:
    """Draw `pool` base samples, weigh them by w ∝ exp(−β·E(B(z))), and draw from the pool with these weights.

    This is the equilibrium that a chain on U_β should reach, up to the pool's size: `info["ess"]` is the effective
    sample size 1/Σw² of the pool and `info["ess_share"]` its share; when it is small, neither this nor a short chain is
    to be trusted as the model.

    Args:
        pool: base samples drawn once for each seed, whatever n.
        beta: inverse temperature of the energy.
        chunk: samples evaluated side by side.
    """

    pool: int = 50_000
    beta: float = 1.0
    chunk: int = 512

    def __post_init__(self) -> None:
        check_number("pool", self.pool, low=1, integer=True)
        check_number("beta", self.beta)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        if y is not None:
            raise ValueError("importance resampling draws from one pool: labels are not supported")
        pool_noise = generator.substream("pool") if isinstance(generator, BlockNoise) else generator
        potential = gebm.potential(self.beta)
        zs, energies = [], []
        with sampling_mode(gebm), torch.no_grad():
            for rows, noise in chunks(self.pool, pool_noise, self.chunk):
                zs.append(gebm.prior.sample(rows.stop - rows.start, noise))
                energies.append(potential.energy(zs[-1]))
            z, weights = torch.cat(zs), torch.softmax(-self.beta * torch.cat(energies).double(), 0)
            cumulative = weights.cumsum(0)
            u = torch.cat(
                [_uniform(rows.stop - rows.start, noise, z) for rows, noise in chunks(n, generator, self.chunk)]
            )
            index = torch.searchsorted(cumulative / cumulative[-1], u).clamp(max=self.pool - 1)
            z = z[index]
            x = torch.cat([gebm.base(z[rows]) for rows, _ in chunks(n, generator, self.chunk)])
        ess = 1 / weights.square().sum().item()
        return Samples(x, z, {"ess": ess, "ess_share": ess / self.pool, "pool": self.pool, "beta": self.beta})


def _uniform(n: int, noise: Generator, like: Tensor) -> Tensor:
    return rand((n,), noise, like.device, torch.float64)
