"""The generalised log-likelihood, or Donsker–Varadhan bound (Arbel, Zhou & Gretton, ICLR 2021, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..gebm import log_mean_exp
from .base import Logs
from .energies import EnergyObjective


@dataclass(frozen=True)
class DonskerVaradhan(EnergyObjective):
    """L(E) = −E_P[E] − log E_Q[exp(−E)], a lower bound of KL(P‖Q), tight at E = −log dP/dQ up to a constant.

    The energy minimises −L, the base −ĉ, or a likelihood, by `base_by`.
    """

    needs_global_batch: ClassVar[frozenset[str]] = frozenset({"energy", "base"})

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        c_hat = log_mean_exp(-e_base)
        bound = -e_real.mean() - c_hat
        return -bound, {"donsker_varadhan": bound.detach(), "c_hat": c_hat.detach()}
