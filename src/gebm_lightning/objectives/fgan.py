"""f-GAN: the variational bound of an f-divergence (Nowozin, Cseke & Tomioka, NeurIPS 2016, eqs. 4 to 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..divergences import PHI, Phi
from ..divergences._phi import PEARSON_FLOOR
from ..errors import UserError
from .base import Logs, Objective, check_saturating


@dataclass(frozen=True)
class FGAN(Objective):
    """F = E_P[T] − E_Q[φ*(T)] ≤ D_φ(P‖Q) with T = g(v) of the critic's outputs v; tight at T = φ'(dP/dQ).

    The energy minimises −F. The base minimises F, that is −E_Q[φ*(g(v))], or, not saturating, −E_Q[g(v)], which has the same
    fixed point and larger gradients where the critic is sure (same paper, §3.2).

    Args:
        divergence: key of `divergences.PHI`.
        saturating: which of the two the base minimises.

    Raises:
        UserError: there is no such divergence.
    """

    divergence: str = "kl"
    saturating: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_saturating(self.saturating)
        if self.divergence not in PHI:
            raise UserError(f"objective.divergence must be one of {', '.join(PHI)}, not {self.divergence!r}")

    @property
    def calibrates(self) -> bool:
        return self.divergence == "total_variation"

    @property
    def phi(self) -> Phi:
        return PHI[self.divergence]

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        bound = self.phi.activation(e_real).mean() - self.phi.dual(e_base).mean()
        logs = {"f_divergence": bound.detach()}
        if self.divergence == "pearson":
            # Where a critic claims a negative density ratio its energy is cut off.
            logs["clipped_share"] = (1 + e_base.detach() / 2 < PEARSON_FLOOR).to(e_base).mean()
        return -bound, logs

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        return -(self.phi.dual(e_base) if self.saturating else self.phi.activation(e_base)).mean(), {}

    def to_energy(self, v: Tensor) -> Tensor:
        """−log (φ*)'(g(v)), in closed form; −v, up to a scale, for total variation."""
        return torch.neg(v) if self.calibrates else self.phi.to_energy(v)
