"""Self-normalised importance resampling: the model's own law at inverse temperature β, without a chain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM, call_base
from ..noise import Generator, rand, shared
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
        """n draws; with labels y (n,) each class has its own pool, of `pool` over the number of classes."""
        device = gebm.log_partition.device
        u = torch.cat([_uniform(rows, noise, device) for rows, noise in chunks(n, generator, self.chunk)])
        labels = [None] if y is None else [int(c) for c in y.unique()]
        size = max(self.pool // (1 if y is None else gebm.num_classes or len(labels)), 1)
        ess, counts = [], Counter[str]()
        with sampling_mode(gebm), torch.no_grad():
            z = torch.empty(n, gebm.prior.dim, device=device, dtype=gebm.log_partition.dtype)
            for label in labels:
                pool, log_weights, cost = self._pool(gebm, generator, size, label)
                if not torch.isfinite(log_weights).any() or log_weights.isnan().any():
                    raise UserError("the energy of base samples is NaN or infinite: they cannot be weighed by it")
                weights = torch.softmax(log_weights, 0)
                counts.update(cost)
                mine = torch.ones(n, dtype=torch.bool, device=device) if y is None else y == label
                cumulative = weights.cumsum(0)
                index = torch.searchsorted(cumulative / cumulative[-1], u[mine]).clamp(max=size - 1)
                z[mine] = pool[index].to(z)
                ess.append(1 / weights.square().sum().item())
            parts = [
                call_base(gebm.base, z[rows], None if y is None else y[rows])
                for rows, _ in chunks(n, generator, self.chunk)
            ]
        info = {"ess": sum(ess), "ess_share": min(ess) / size, "pool": size * len(labels), "beta": self.beta}
        info |= {kind: counts[kind] / n for kind in ("gradients", "evaluations")}
        return Samples(torch.cat(parts), z, info)

    def _pool(
        self, gebm: GEBM, generator: Generator, size: int, label: int | None
    ) -> tuple[Tensor, Tensor, dict[str, int]]:
        """`size` latents of one class, their log weights (size,), and how many evaluations they cost."""
        noise = shared(generator, "pool" if label is None else f"pool/{label}")
        y = None if label is None else torch.full((size,), label, device=gebm.log_partition.device)
        return self._weighted(gebm, noise, size, y)

    def _weighted(
        self, gebm: GEBM, noise: Generator, size: int, y: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, int]]:
        zs, energies = [], []
        for rows, own in chunks(size, noise, self.chunk):
            z = gebm.prior.sample(rows.stop - rows.start, own)
            zs.append(z)
            energies.append(gebm.potential(self.beta, None if y is None else y[rows]).energy(z))
        return torch.cat(zs), -self.beta * torch.cat(energies).double(), {"evaluations": size}


def _uniform(rows: slice, noise: Generator, device: torch.device) -> Tensor:
    return rand((rows.stop - rows.start,), noise, device, torch.float64)
