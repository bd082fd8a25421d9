"""Annealed importance sampling from the prior to U_β (Neal, Statistics and Computing 2001): log Z, and weighted samples."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM, log_mean_exp
from ..noise import Generator
from .cost import Counted
from .gradients import sampling_mode, value_of
from .hmc import HMC
from .kernel import restart
from .refiner import chunks
from .sir import SIR


class LogZ(NamedTuple):
    """An estimate of log Z."""

    log_z: float
    standard_error: float
    """That of log Z by the delta method: the standard error of the mean weight over the mean weight."""


def ais_log_z(
    gebm: GEBM, num_samples: int, betas: Sequence[float], kernel: Any, generator: Generator, y: Tensor | None = None
) -> LogZ:
    """log Z(β) = log E_η[exp(−β E(B(z)))] at the last of `betas`, with its standard error.

    Args:
        gebm: the model.
        num_samples: independent annealed chains.
        betas: inverse temperatures from 0 to β, ascending; 0 is put in front if it is missing.
        kernel: an exact kernel, one step of which moves the chains at each temperature.
        generator: where all noise comes from.
        y: labels (n,) of a conditional model.

    Raises:
        UserError: betas that do not ascend, or a potential that is NaN.
    """
    check_number("num_samples", num_samples, low=2, integer=True)
    _, log_weights, _ = anneal(gebm, num_samples, betas, kernel, generator, y)
    relative = (log_weights - log_weights.max()).exp()
    error = relative.std() / relative.mean() / math.sqrt(num_samples)
    return LogZ(log_mean_exp(log_weights).item(), error.item())


def anneal(
    gebm: GEBM,
    n: int,
    betas: Sequence[float],
    kernel: Any,
    generator: Generator,
    y: Tensor | None = None,
    chunk: int = 512,
) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Latents (n, d), log weights (n,) in float64, and what they cost: log w = −Σ_k (β_k − β_{k−1}) E(B(z_k)), z_k moved at β_{k−1}.

    The last move, at the target itself, leaves the weights as they are.
    """
    ladder = [float(b) for b in betas]
    ladder = ladder if ladder and ladder[0] == 0 else [0.0, *ladder]
    if len(ladder) < 2 or any(not b > a for a, b in itertools.pairwise(ladder)):
        raise UserError(f"betas must ascend from 0 to the target's beta, not {ladder}")
    if not getattr(kernel, "exact", True):
        raise UserError(
            f"annealed importance sampling needs a kernel that leaves each law as it is: {type(kernel).__name__} is approximate"
        )
    zs, logs, counts = [], [], Counter[str]()
    with sampling_mode(gebm), torch.no_grad():
        for rows, noise in chunks(n, generator, chunk):
            potential = Counted(gebm.potential(ladder[-1], None if y is None else y[rows]))
            z = gebm.prior.sample(rows.stop - rows.start, noise)
            log_weights = torch.zeros(len(z), dtype=torch.float64, device=z.device)
            state = None
            for before, beta in itertools.pairwise(ladder):
                log_weights -= (beta - before) * value_of(potential.energy, z).double()
                at = potential.tempered(beta)
                state = kernel.init(z, at, noise) if state is None else restart(kernel, state, z, at, noise)
                state, _ = kernel.step(state, at, noise)
                z = state.z
            zs.append(z)
            logs.append(log_weights)
            counts.update(potential.counts)
    z, log_weights = torch.cat(zs), torch.cat(logs)
    if not torch.isfinite(log_weights).all():
        raise UserError("annealed importance sampling met an energy that is NaN or infinite")
    return z, log_weights, dict(counts)


@dataclass(frozen=True)
class AIS(SIR):
    """Self-normalised resampling as `SIR`, from a pool that was annealed from the prior to β: for targets far from it.

    Args:
        pool: annealed chains.
        num_betas: temperatures, evenly spaced, after the prior.
        kernel: moves the chains, one step at each temperature.
    """

    pool: int = 5000
    num_betas: int = 50
    kernel: Any = field(default_factory=lambda: HMC(0.1, 5))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("num_betas", self.num_betas, low=1, integer=True)

    def _weighted(
        self, gebm: GEBM, noise: Generator, size: int, y: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, int]]:
        betas = [self.beta * k / self.num_betas for k in range(1, self.num_betas + 1)]
        return anneal(gebm, size, betas, self.kernel, noise, y, self.chunk)
