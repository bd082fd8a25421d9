"""What objectives share whose critic is an energy, low on real data: the base's side of the game, or its likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from ..errors import UserError
from ..gebm import log_mean_exp
from .base import Logs, Objective

BASE_BY = ("kale", "likelihood", "own_likelihood")


@dataclass(frozen=True)
class EnergyObjective(Objective):
    """The critic is the energy, up to a constant factor (`to_energy`).

    With L the model's log-likelihood in a base of density q, for an energy fixed as a function of x:

    Attributes:
        base_by: what the base descends on. "kale": −ĉ = −log mean exp(−E(B(z))), whose gradient is Σ w_i ∇E(B(z_i)) with
            w = softmax(−E), that of the generalised log-likelihood (Arbel, Zhou & Gretton, ICLR 2021, theorem 7); any base will do.
            "likelihood": −L = −E_P[log q] + ĉ. "own_likelihood": −E_P[log q], the base's own, as if there were no energy.
    """

    base_by: str = field(default="kale", kw_only=True)

    needs_global_batch: ClassVar[frozenset[str]] = frozenset({"base"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base_by not in BASE_BY:
            raise UserError(f"objective.base_by is one of {', '.join(BASE_BY)}, not {self.base_by}")

    @property
    def by_likelihood(self) -> bool:
        return self.base_by != "kale"

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        return -log_mean_exp(-self.to_energy(e_base)), {}

    def likelihood_loss(self, log_base: Tensor, e_base: Tensor) -> tuple[Tensor, Logs]:
        own = -log_base.mean()
        loss = own if self.base_by == "own_likelihood" else own + log_mean_exp(-self.to_energy(e_base))
        return loss, {"base_nll": own.detach()}

    def to_energy(self, v: Tensor) -> Tensor:
        return v

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        return critic
