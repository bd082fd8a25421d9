"""The Wasserstein-1 objective (Arjovsky, Chintala & Bottou, ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Logs, Objective


@dataclass(frozen=True)
class Wasserstein(Objective):
    """E_P[v] − E_Q[v], at most W₁(P, Q) for a 1-Lipschitz v; the base minimises −E_Q[v].

    The constraint is somebody else's: a gradient penalty with `centre: 1` (Gulrajani et al., NeurIPS 2017), spectral norm in
    the critic, or `optim.energy_weight_clip`. v is no log-ratio, so the energy is −s·v with a calibrated s.
    """

    @property
    def calibrates(self) -> bool:
        return True

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        distance = e_real.mean() - e_base.mean()
        return -distance, {"wasserstein": distance.detach()}

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        return -e_base.mean(), {}

    def to_energy(self, v: Tensor) -> Tensor:
        return -v
