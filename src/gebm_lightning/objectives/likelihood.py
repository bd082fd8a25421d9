"""Training without a game: maximum likelihood of the base alone, and noise-contrastive estimation against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..gebm import GEBM, full_precision, log_mean_exp
from ..noise import Generator
from .base import Logs
from .energies import EnergyObjective


class Flat(nn.Module):
    """E = 0: the model is its base."""

    def normalised(self, base: nn.Module) -> bool:
        """log Z = 0 over any base."""
        return True

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return 0.0 * x.flatten(1).sum(1)


@dataclass(frozen=True)
class MaximumLikelihood(EnergyObjective):
    """−E_P[log q] of a base with a density, and no energy: it is 0, whatever `model.energy` is. For `train_mode=base`."""

    base_by: str = field(default="own_likelihood", kw_only=True)

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        # The energy is flat, the critic is not part of the model.
        return 0.0 * (e_real.sum() + e_base.sum() + log_partition), {}

    def direct_base_loss(self, gebm: GEBM, x_real: Tensor, generator: Generator) -> tuple[Tensor, Logs]:
        loss = -full_precision(gebm.base_log_prob(x_real)).mean()
        return loss, {"base_nll": loss.detach()}

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        return Flat()


@dataclass(frozen=True)
class NCE(EnergyObjective):
    """Noise-contrastive estimation with the base as noise (Gutmann & Hyvärinen, JMLR 2012, eq. 8, ν = 1).

    Energy and c minimise −E_P[log σ(G)] − E_Q[log σ(−G)] with G = −E − c = log dP/dQ at the optimum, so c is log Z.
    """

    base_by: str = field(default="own_likelihood", kw_only=True)

    learns_log_partition: ClassVar[bool] = True

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        loss = softplus(e_real + log_partition).mean() + softplus(-e_base - log_partition).mean()
        with torch.no_grad():
            c_hat = log_mean_exp(-e_base)
        return loss, {"nce": loss.detach(), "c": log_partition.detach().clone(), "c_hat": c_hat}
