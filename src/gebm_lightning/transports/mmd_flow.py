"""The gradient flow of MMD with noise injection (Arbel, Korba, Salim & Gretton, NeurIPS 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..divergences.kernels import Kernel
from ..samplers.schedules import Schedule
from .flow import Field, ParticleFlow, check_flow


@dataclass(frozen=True)
class MMDFlow(ParticleFlow):
    """Y ← Y − γ∇f(Y + βU), f = mean_i k(·, Y_i) − mean_j k(·, X_j), U ~ N(0, I).

    Particles Y move to the target X. The loss is ½MMD²(Y, X), biased; n times its gradient in Y_i is ∇f(Y_i). It is computed
    in float64, with n·(n + m)·d numbers in memory.

    Args:
        kernel: k, differentiable.
        step_size: γ.
        noise: β; 0 for none.
        schedule: factor on γ by step, from 0.
        noise_schedule: factor on β by step; `StepDecay(0.5, 1000)` halves it every 1000.
    """

    kernel: Kernel
    step_size: float
    noise: float = 0.0
    schedule: Schedule | None = None
    noise_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        check_flow(self)

    def _field(self, target: Tensor) -> MMDField:
        return MMDField(self.kernel, target)


class MMDField:
    """½MMD² of particles and a fixed target, and f."""

    def __init__(self, kernel: Kernel, target: Tensor) -> None:
        self.kernel, self.target = kernel, target
        self.square = kernel(target, target).mean()

    def __call__(self, particles: Tensor) -> Field:
        def potential(points: Tensor) -> Tensor:
            return self.kernel(points, particles).mean(1) - self.kernel(points, self.target).mean(1)

        with torch.enable_grad():
            points = particles.detach().requires_grad_()
            own, cross = self.kernel(points, particles), self.kernel(points, self.target)
            (gradient,) = torch.autograd.grad((own.mean(1) - cross.mean(1)).sum(), points)
        loss = (own.detach().mean() - 2 * cross.detach().mean() + self.square) / 2
        return Field(loss, gradient, potential)
