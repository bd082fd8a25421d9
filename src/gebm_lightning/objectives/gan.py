"""The classical GAN objectives on a critic that is high on real data: logistic, hinge, least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import relu, softplus

from .base import Logs, Objective, check_saturating


@dataclass(frozen=True)
class Logistic(Objective):
    """Cross-entropy of the logit v: −E_P[log σ(v)] − E_Q[log(1 − σ(v))] (Goodfellow et al., NeurIPS 2014).

    At the optimum v = log dP/dQ. The base minimises −E_Q[log σ(v)], or, saturating, E_Q[log(1 − σ(v))].

    Args:
        saturating: which of the two the base minimises.
    """

    saturating: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_saturating(self.saturating)

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        loss = softplus(-e_real).mean() + softplus(e_base).mean()
        accuracy = ((e_real.detach() > 0).to(e_real).mean() + (e_base.detach() < 0).to(e_base).mean()) / 2
        return loss, {"accuracy": accuracy}

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        return (-softplus(e_base) if self.saturating else softplus(-e_base)).mean(), {}

    def to_energy(self, v: Tensor) -> Tensor:
        return -v


@dataclass(frozen=True)
class Hinge(Objective):
    """E_P[(1 − v)₊] + E_Q[(1 + v)₊]; the base minimises −E_Q[v] (Miyato et al., ICLR 2018, eq. 16 and 17).

    The optimal v is the sign of p − q: no log-ratio, so the energy is −s·v with a calibrated s.
    """

    @property
    def calibrates(self) -> bool:
        return True

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        return relu(1 - e_real).mean() + relu(1 + e_base).mean(), {}

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        return -e_base.mean(), {}

    def to_energy(self, v: Tensor) -> Tensor:
        return -v


@dataclass(frozen=True)
class LeastSquares(Objective):
    """½ E_P[(v − 1)²] + ½ E_Q[v²]; the base minimises ½ E_Q[(v − 1)²] (Mao et al., ICCV 2017, eq. 9).

    At the optimum v = p/(p + q), so E = log((1 − v)/v); v is first kept within [ε, 1 − ε], ε = 1e-3.
    """

    floor: ClassVar[float] = 1e-3

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        loss = (e_real - 1).square().mean() / 2 + e_base.square().mean() / 2
        outside = (e_base.detach() < self.floor) | (e_base.detach() > 1 - self.floor)
        return loss, {"clipped_share": outside.to(e_base).mean()}

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        return (e_base - 1).square().mean() / 2, {}

    def to_energy(self, v: Tensor) -> Tensor:
        v = v.clamp(self.floor, 1 - self.floor)
        return (-v).log1p() - v.log()
