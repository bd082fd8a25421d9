"""The gradient flow of KALE (Glaser, Arbel & Gretton, NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..divergences._kale import gram
from ..divergences._kale_dual import SOLVERS, Dual, solve
from ..divergences.kernels import Kernel
from ..errors import check_number
from ..samplers.schedules import Schedule
from .flow import Field, ParticleFlow, check_flow
from .space import check_choice


@dataclass(frozen=True)
class KALEFlow(ParticleFlow):
    """Y ← Y − γ(1 + λ)∇h(Y + βU), U ~ N(0, I), h the witness of KALE(Y‖X): high on the particles Y, low on the target X.

    h = (1/λ)(mean_i k(·, Y_i) − Σ_j α_j k(·, X_j)), α the optimum of `divergences.kale`'s dual, found by Newton's method
    from those of the steps before. The loss is (1 + λ)·KALE(Y‖X); n times its gradient in Y_i is
    (1 + λ)∇h(Y_i). As λ → ∞ it is MMD's flow, as λ → 0 that of KL. It is computed in float64, with n·(n + m)·d + m² numbers
    in memory.

    Args:
        kernel: k, positive definite and differentiable.
        reg: λ.
        step_size: γ.
        noise: β; 0 for none.
        schedule: factor on γ by step, from 0.
        noise_schedule: factor on β by step.
        method: solver of the dual, "newton" or "lbfgs".
        tolerance: of the loss, at each step.
        max_steps: of the solver, at each step.
    """

    kernel: Kernel
    reg: float
    step_size: float
    noise: float = 0.0
    schedule: Schedule | None = None
    noise_schedule: Schedule | None = None
    method: str = "newton"
    tolerance: float = 1e-9
    max_steps: int = 1000

    def __post_init__(self) -> None:
        check_flow(self)
        check_number("particles.reg", self.reg, above=0)
        check_choice("particles.method", self.method, SOLVERS)
        check_number("particles.tolerance", self.tolerance, above=0)
        check_number("particles.max_steps", self.max_steps, low=1, integer=True)

    def _field(self, target: Tensor) -> KALEField:
        return KALEField(self, target)


class KALEField:
    """(1 + λ)·KALE of particles and a fixed target, and (1 + λ)h; it remembers the last weights, to start from them."""

    def __init__(self, settings: KALEFlow, target: Tensor) -> None:
        self.settings, self.target = settings, target
        self.gram = gram(settings.kernel, target)
        self.past: list[Tensor] = []

    def start(self, dual: Dual) -> Tensor | None:
        """log(Nα) of the step before, the line through those of the two steps before, or 0, by which is nearest the optimum."""
        if not self.past:
            return None
        tried = [self.past[-1], torch.zeros_like(self.past[-1])]
        if len(self.past) > 1:
            tried.append(2 * self.past[1] - self.past[0])
        gaps = torch.stack([dual.at(u).gap for u in tried]).nan_to_num(nan=torch.inf)
        nearest = int(gaps.argmin())
        return None if nearest == 1 else tried[nearest]

    def __call__(self, particles: Tensor) -> Field:
        kernel, reg, solver = self.settings.kernel, float(self.settings.reg), SOLVERS[self.settings.method]
        scale = (1 + reg) / reg
        with torch.enable_grad():
            points = particles.detach().requires_grad_()
            own, cross = kernel(points, particles), kernel(points, self.target)
        dual = Dual(self.gram, cross.detach().mean(0), own.detach().mean(), reg)
        solution, _ = solve(dual, self.start(dual), solver, self.settings.tolerance, self.settings.max_steps)
        self.past = [*self.past[-1:], solution.log_ratio]
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(scale * (own.mean(1) - cross @ solution.alpha).sum(), points)

        def potential(points: Tensor) -> Tensor:
            return scale * (kernel(points, particles).mean(1) - kernel(points, self.target) @ solution.alpha)

        return Field((1 + reg) * solution.value, gradient, potential)
