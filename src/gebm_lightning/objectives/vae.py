"""The evidence lower bound: what trains a variational autoencoder, the base of VAEBM, before there is an energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError, check_number
from ..gebm import GEBM
from ..noise import Generator
from .base import Logs, Objective
from .likelihood import Flat


@dataclass(frozen=True)
class ELBO(Objective):
    """−E_P[E_q[log p(x|z)] − w·KL(q(z|x) ‖ p(z))] of a base with an `elbo`, and no energy: it is 0. For `train_mode=base`.

    Args:
        kl_weight: w, 1 for the bound itself (Kingma & Welling, ICLR 2014, eq. 10), other than 1 for a β-VAE (Higgins et al.,
            ICLR 2017); `elbo` is logged at w = 1 whatever it is.
    """

    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("objective.kl_weight", self.kl_weight, low=0)

    def direct_base_loss(self, gebm: GEBM, x_real: Tensor, generator: Generator) -> tuple[Tensor, Logs]:
        terms = getattr(gebm.base, "elbo_terms", None)
        if terms is None:
            raise UserError(
                f"objective=elbo needs a base with an evidence lower bound: {type(gebm.base).__name__} has no elbo, take model=vae"
            )
        log_likelihood, kl = (term.mean() for term in terms(x_real, generator))
        with torch.no_grad():
            logs = {"elbo": log_likelihood - kl, "kl": kl.clone()}
        return self.kl_weight * kl - log_likelihood, logs

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        # The energy is flat, the critic is not part of the model.
        return 0.0 * (e_real.sum() + e_base.sum() + log_partition), {}

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        raise TypeError("the ELBO is no function of critic outputs: see direct_base_loss")

    def to_energy(self, v: Tensor) -> Tensor:
        return 0.0 * v

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        return Flat()
