"""Any kernel as a sampler of the model: z by MCMC on U_β, x = B(z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import check_number
from ..gebm import GEBM, call_base
from ..noise import Generator
from .chain import sample_chain
from .gradients import sampling_mode
from .refiner import Samples, chunks
from .schedules import Schedule


@dataclass(frozen=True)
class LatentSampler:
    """Chains from the prior on U_β(z) = −log η(z) + β·E(B(z)), pushed through the base.

    Args:
        kernel: the Markov kernel.
        beta: inverse temperature of the energy; the paper samples images at 100, the model's own law is at 1.
        num_steps: steps after the warm-up. Few steps give a *short run*, which need not be near the equilibrium.
        schedule: factor on the step size by step.
        thin: with a number, `info["trace"]` holds every thin-th state, (kept, n, d).
        warmup: steps before the first that counts.
        chunk: chains run side by side; memory, not results, depends on it.
    """

    kernel: Any
    beta: float = 1.0
    num_steps: int = 100
    schedule: Schedule | None = None
    thin: int | None = None
    warmup: int = 0
    chunk: int = 512

    def __post_init__(self) -> None:
        check_number("sampler.beta", self.beta)
        check_number("sampler.num_steps", self.num_steps, low=0, integer=True)
        check_number("sampler.warmup", self.warmup, low=0, integer=True)
        check_number("sampler.chunk", self.chunk, low=1, integer=True)
        if self.thin is not None:
            check_number("sampler.thin", self.thin, low=1, integer=True)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        xs, zs, traces, acceptance, potential = [], [], [], 0.0, 0.0
        for rows, noise in chunks(n, generator, self.chunk):
            labels = None if y is None else y[rows]
            z0 = gebm.prior.sample(rows.stop - rows.start, noise)
            chain = sample_chain(
                self.kernel,
                gebm.potential(self.beta, labels),
                z0,
                self.num_steps,
                generator=noise,
                thin=self.thin,
                warmup=self.warmup,
                schedule=self.schedule,
            )
            with sampling_mode(gebm), torch.no_grad():
                xs.append(call_base(gebm.base, chain.z, labels))
            zs.append(chain.z)
            share = (rows.stop - rows.start) / n
            if self.num_steps + self.warmup > 0:
                acceptance += share * chain.info["acceptance"].mean().item()
                potential += share * chain.info["potential"][-1].item()
            if chain.trace is not None:
                traces.append(chain.trace)
        info: dict[str, Any] = {"acceptance": acceptance, "potential": potential, "beta": self.beta}
        if traces:
            info["trace"] = torch.cat(traces, dim=1)
        return Samples(torch.cat(xs), torch.cat(zs), info)
