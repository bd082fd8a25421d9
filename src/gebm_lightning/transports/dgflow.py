"""Discriminator gradient flow (Ansari, Ang & Soh, ICLR 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import check_number
from ..gebm import GEBM
from ..noise import Generator, randn
from ..samplers.gradients import sampling_mode, value_and_grad
from ..samplers.refiner import Samples
from .space import SPACES, Space, check_choice, check_finite, merge, spread, starts

# −∇f'(e^{−d}) = s(d)·∇d for f of each divergence: the velocity of the flow.
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": torch.ones_like,
    "js": torch.sigmoid,
    "logd": lambda d: torch.sigmoid(-d),
}


@dataclass(frozen=True)
class DGFlow:
    """The gradient flow of an entropy-regularised f-divergence to the data, discretised (algorithm 1).

    z ← z + η·s(d)·∇d(z) + √(2ηγ)·ξ with d = −β·E(B(z)), and s = 1 for KL, σ(d) for JS, σ(−d) for log D. There is no prior
    term, so the model's own law is not stationary under it: report the mass of modes beside any score. With
    space="data" it moves x in place of z, and the samples have no latents.

    Args:
        divergence: "kl", "js" or "logd".
        step_size: η.
        noise: γ, weight of the entropy; 0 for none.
        num_steps: steps from the base's own samples.
        space: "latent" or "data".
        beta: inverse temperature of the energy.
        chunk: samples moved side by side; memory, not results, depends on it.
    """

    divergence: str = "kl"
    step_size: float = 0.01
    noise: float = 0.0
    num_steps: int = 25
    space: str = "latent"
    beta: float = 1.0
    chunk: int = 512

    uses_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("sampler.divergence", self.divergence, WEIGHTS)
        check_choice("sampler.space", self.space, SPACES)
        check_number("sampler.step_size", self.step_size, above=0)
        check_number("sampler.noise", self.noise, low=0)
        check_number("sampler.num_steps", self.num_steps, low=0, integer=True)
        check_number("sampler.beta", self.beta)
        check_number("sampler.chunk", self.chunk, low=1, integer=True)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        """n samples; `info["moved"]` is the mean distance from the base's own.

        Raises:
            UserError: the samples left the finite numbers.
        """
        with sampling_mode(gebm), torch.no_grad():
            parts = [
                self._flow(SPACES[self.space](gebm, self.beta, z, labels), noise)
                for noise, z, labels in starts(gebm, n, generator, self.chunk, y)
            ]
        return merge(parts, beta=self.beta, gradients=float(self.num_steps), evaluations=0.0)

    def _flow(self, space: Space, noise: Generator) -> Samples:
        points, weight = space.start, WEIGHTS[self.divergence]
        for _ in range(self.num_steps):
            logit, gradient = value_and_grad(space.logit, points)
            points = points + self.step_size * spread(weight(logit), points) * gradient
            if self.noise > 0:
                xi = randn(tuple(points.shape), noise, points.device, points.dtype)
                points = points + math.sqrt(2 * self.step_size * self.noise) * xi
        x, z = space.finish(points)
        check_finite("DGFlow", f"lower sampler.step_size={self.step_size} or sampler.beta={self.beta}", points, x)
        return Samples(x, z, {"moved": (points - space.start).flatten(1).norm(dim=1).mean().item()})
