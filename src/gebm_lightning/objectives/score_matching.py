"""Score matching: the model's score ∇log q − ∇E is fitted to the data's, without samples of the model or its log Z."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM
from ..noise import Generator, randn
from .base import Logs
from .energies import EnergyObjective

KINDS = ("sliced", "denoising")


@dataclass(frozen=True)
class ScoreMatching(EnergyObjective):
    """The Fisher divergence between data and model, whose base has a density.

    "sliced": E[vᵀ∇(vᵀs) + ½‖s‖²], v ~ N(0, I), s the model's score (Song et al., UAI 2019, eq. 8, variance-reduced).
    "denoising": ½E‖σ s(x + σε) + ε‖², the score of the data smoothed by N(0, σ²I) (Vincent, Neural Computation 2011), times σ².
    It does not see the masses of modes that lie far apart.

    Args:
        kind: one of the two.
        sigma: σ of "denoising", in units of the data.
        num_projections: v's for each sample of "sliced".
    """

    kind: str = "sliced"
    sigma: float = 0.1
    num_projections: int = 1
    base_by: str = field(default="own_likelihood", kw_only=True)

    learns_log_partition: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise UserError(f"objective.kind of score matching is one of {', '.join(KINDS)}, not {self.kind}")
        check_number("objective.sigma", self.sigma, above=0)
        check_number("objective.num_projections", self.num_projections, low=1, integer=True)

    @property
    def needs_base_density(self) -> bool:
        return True

    def direct_loss(
        self, gebm: GEBM, critic: Callable[[Tensor], Tensor], x_real: Tensor, generator: Generator
    ) -> tuple[Tensor, Logs]:
        noise = randn(tuple(x_real.shape), generator, x_real.device, x_real.dtype)
        x = (x_real + self.sigma * noise if self.kind == "denoising" else x_real).detach().requires_grad_()
        score = _score(gebm, critic, x)
        if self.kind == "denoising":
            loss = 0.5 * (self.sigma * score + noise).flatten(1).square().sum(1).mean()
        else:
            loss = 0.5 * score.flatten(1).square().sum(1).mean()
            for i in range(self.num_projections):
                v = noise if i == 0 else randn(tuple(x_real.shape), generator, x_real.device, x_real.dtype)
                (hessian_v,) = torch.autograd.grad((v * score).sum(), x, create_graph=True, materialize_grads=True)
                loss = loss + (v * hessian_v).flatten(1).sum(1).mean() / self.num_projections
        return loss, {"score_matching": loss.detach()}

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        raise TypeError("score matching has no loss of critic outputs alone: see direct_loss")


def _score(gebm: GEBM, critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """∇ log q(x) − ∇E(x), shaped as x."""
    try:
        log_q = gebm.base_log_prob(x)
    except TypeError as error:
        raise UserError(f"score matching needs a base with a density: {error}") from error
    (score,) = torch.autograd.grad((log_q - critic(x)).sum(), x, create_graph=True)
    return score
