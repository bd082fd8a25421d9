"""Adaptation of a kernel's step size to a target acceptance, once, before the chains that count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..noise import Generator
from .chain import step_size_of, with_step_size
from .gradients import sampling_mode
from .kernel import PotentialFn


@dataclass(frozen=True)
class DualAveraging:
    """Dual averaging of log step size (Hoffman & Gelman, JMLR 2014, algorithm 5; γ = .05, t₀ = 10, κ = .75).

    With δ the target and a_t the mean acceptance at step t: h̄_t = (1 − 1/(t + t₀)) h̄_{t−1} + (δ − a_t)/(t + t₀),
    log ε_t = log 10ε₀ − √t h̄_t/γ, and the result is the average of log ε_t with weights t^{−κ}.

    Args:
        target: acceptance aimed at: .574 is best for MALA and .651 for HMC on large products of equal factors.
        num_steps: steps of adaptation.
    """

    target: float = 0.574
    num_steps: int = 200

    def __post_init__(self) -> None:
        check_number("tuning.num_steps", self.num_steps, low=1, integer=True)
        if not 0 < self.target < 1:
            raise UserError(f"tuning.target is an acceptance between 0 and 1, not {self.target}")

    def tune(self, kernel: Any, potential: PotentialFn, z0: Tensor, generator: Generator) -> Any:
        """The kernel with the step size that chains from z0 (n, d) arrive at; a `Counted` potential tells what it took.

        Raises:
            UserError: the kernel has no step size or never rejects, or no step size has the acceptance aimed at.
        """
        first = step_size_of(kernel)
        if first is None:
            raise UserError(f"sampler.tuning adapts a step size: {type(kernel).__name__} has none")
        if not getattr(kernel, "exact", True):
            raise UserError(f"sampler.tuning aims at an acceptance: {type(kernel).__name__} never rejects a move")
        size, error, log_mean, late = first, 0.0, 0.0, 0.0
        with sampling_mode(potential), torch.no_grad():
            state = kernel.init(z0.detach(), potential, generator)
            for t in range(1, self.num_steps + 1):
                state, info = with_step_size(kernel, size / first).step(state, potential, generator)
                acceptance = info.accept_prob.mean().item()
                late += acceptance if t > self.num_steps // 2 else 0.0
                error += (self.target - acceptance - error) / (t + 10)
                # Kept within what a float can hold, whatever the acceptance.
                log_size = math.log(10 * first) + min(max(-math.sqrt(t) / 0.05 * error, -30), 30)
                log_mean += t**-0.75 * (log_size - log_mean)
                size = math.exp(log_size)
        if late == 0:
            raise UserError(
                f"no move of {type(kernel).__name__} was accepted while its step size was tuned, down to {size:.1e}: the "
                "energy is too rough for it, or has no finite values nearby"
            )
        return with_step_size(kernel, math.exp(log_mean) / first)
