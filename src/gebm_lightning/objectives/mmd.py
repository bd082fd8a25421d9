"""MMD GAN: the maximum mean discrepancy between learned features (Li et al., NeurIPS 2017; Bińkowski et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..distributed import gather, gather_for_all
from ..divergences._mmd import mmd
from ..divergences.kernels import RationalQuadratic
from ..errors import UserError, check_number
from ..noise import Generator
from .base import Logs, Objective, ScaledEnergy
from .penalties import GradientPenalty, points


def as_features(v: Tensor) -> Tensor:
    """(n, k) features from a critic's outputs (n, k) or (n,)."""
    return v[:, None] if v.dim() == 1 else v


@dataclass(frozen=True)
class MMD(Objective):
    """MMD²(φ(P), φ(Q)) of a kernel on the critic's outputs φ (n, k): the energy player raises it, the base lowers it.

    The energy is −s·f with the witness f(x) = mean k(φ(x), φ(real)) − mean k(φ(x), φ(base)) over reference samples, kept
    as features, and a calibrated s.

    Args:
        kernel: of `divergences.kernels`.
        scaled: None, or the weight w ≥ 0 of the scaled MMD, MMD²/(1 + w·E_P‖∂φ/∂x‖²_F) (Arbel et al., NeurIPS 2018): it
            takes one backward pass for each feature.
        num_reference: real, and as many base, samples behind the witness.
    """

    kernel: Any = field(default_factory=RationalQuadratic)
    scaled: float | None = None
    num_reference: int = 512

    needs_real: ClassVar[bool] = True
    needs_global_batch: ClassVar[frozenset[str]] = frozenset({"energy", "base"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("objective.num_reference", self.num_reference, low=1, integer=True)
        if self.scaled is not None:
            check_number("objective.scaled", self.scaled, low=0)

    @property
    def calibrates(self) -> bool:
        return True

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        value = mmd(as_features(e_real), as_features(e_base), self.kernel).value
        return -value, {"mmd2": value.detach()}

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        if e_real is None:
            raise ValueError("MMD compares the base's samples with real ones: base_loss needs e_real")
        return mmd(as_features(e_real), as_features(e_base), self.kernel).value, {}

    def scale(self, critic: Callable[[Tensor], Tensor], x_real: Tensor) -> Tensor | None:
        if self.scaled is None:
            return None
        x = x_real.detach().requires_grad_()
        features = as_features(critic(x))
        squared = torch.zeros_like(features[:, 0])
        for k in range(features.shape[1]):
            (row,) = torch.autograd.grad(features[:, k].sum(), x, create_graph=True)
            squared = squared + row.flatten(1).square().sum(1)
        return 1 / (1 + self.scaled * gather(squared).mean())

    def to_energy(self, v: Tensor) -> Tensor:
        raise UserError(
            "MMD's critic returns features: its energy is a witness, made by make_energy, not a function of one v"
        )

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        energy = WitnessEnergy(critic, self)
        if reference is not None:
            with torch.no_grad():
                features = as_features(critic(reference))
                # As many as the buffer has, so that the state of one energy fits another.
                energy.real_features = features[torch.arange(self.num_reference) % len(features)]
        return energy


class WitnessEnergy(ScaledEnergy):
    """E(x) = −s·(mean_j k(φ(x), r_j) − mean_j k(φ(x), b_j)) with the features r of real and b of base samples as buffers.

    Until `refer` was called the features are zeros, and so is the energy.
    """

    real_features: Tensor
    base_features: Tensor

    def __init__(self, critic: nn.Module, objective: MMD) -> None:
        super().__init__(critic, objective)
        self.kernel, self.num_reference = objective.kernel, objective.num_reference
        shape = (objective.num_reference, getattr(critic, "outputs", None) or 1)
        self.register_buffer("real_features", torch.zeros(shape))
        self.register_buffer("base_features", torch.zeros(shape))

    @torch.no_grad()
    def refer(self, x_real: Tensor, x_base: Tensor) -> None:
        """Take `num_reference` samples of each kind, (n, *shape), for the witness; fewer are repeated."""
        for name, x in (("real_features", x_real), ("base_features", x_base)):
            buffer = getattr(self, name)
            features = as_features(self.critic(x[: len(buffer)]))
            buffer.copy_(features[torch.arange(len(buffer), device=features.device) % len(features)])

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        features = as_features(self.critic(x))
        return -self.scale * witness(self.kernel, features, self.real_features, self.base_features)


def witness(kernel: Any, at: Tensor, real: Tensor, base: Tensor) -> Tensor:
    """(n,) mean_j k(at_i, real_j) − mean_j k(at_i, base_j)."""
    value: Tensor = kernel(at, real).mean(1) - kernel(at, base).mean(1)
    return value


@dataclass(frozen=True)
class WitnessPenalty(GradientPenalty):
    """weight · mean (‖∇_x f(x̃)‖ − centre)² of the witness f between the batch's features (Bińkowski et al., ICLR 2018, §2.1).

    Args:
        kernel: the objective's.
    """

    centre: float = 1.0
    kernel: Any = field(default_factory=RationalQuadratic)

    def __call__(
        self, critic: Callable[[Tensor], Tensor], x_real: Tensor, x_base: Tensor, generator: Generator
    ) -> Tensor:
        real, base = (gather_for_all(as_features(critic(x))) for x in (x_real, x_base))
        x = points(self.at, x_real, x_base, generator)
        value = witness(self.kernel, as_features(critic(x)), real, base)
        (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        return self.of_gradient(gradient)
