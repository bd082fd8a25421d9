"""The gradient flow of MMD with noise injection (Arbel, Korba, Salim & Gretton, NeurIPS 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..divergences.kernels import Kernel
from ..noise import Generator
from ..samplers.schedules import Schedule
from .flow import Field, Flow, OnStep, check_flow, flow


@dataclass(frozen=True)
class MMDFlow:
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
        check_flow(self.step_size, self.noise)

    def run(
        self,
        particles: Tensor,
        target: Tensor,
        num_steps: int,
        generator: Generator | None = None,
        *,
        keep_every: int | None = None,
        on_step: OnStep | None = None,
    ) -> Flow:
        """Move particles (n, d) towards the target (m, d) in `num_steps` steps.

        Args:
            generator: where the noise comes from; needed if there is some.
            keep_every: keep every so-manieth state in the trace, the first included.
            on_step: called with (iteration, particles, loss, gradient norm) before each step and after the last.

        Raises:
            UserError: samples that cannot be compared, or a step size so large that the particles are lost.
        """
        return flow(
            lambda goal: MMDField(self.kernel, goal),
            particles,
            target,
            num_steps,
            generator,
            self.step_size,
            self.noise,
            self.schedule,
            self.noise_schedule,
            keep_every,
            on_step,
        )


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
