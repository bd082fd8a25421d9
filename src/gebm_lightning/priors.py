"""Latent priors η: `sample(n, generator) -> (n, d)`, `log_prob(z) -> (n,)` and what to do at the edge of the support."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .noise import Generator, rand, randn


class Prior(nn.Module):
    """A law on R^dim. `device_of` is a buffer, so that samples are drawn where the model is."""

    device_of: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"a prior needs at least one dimension, not {dim}")
        self.dim = dim
        self.register_buffer("device_of", torch.zeros(()), persistent=False)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """(n, dim) draws."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """(n,) log densities of z (n, dim)."""
        raise NotImplementedError

    def reflect(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z moved into the support, and the signs (n, dim) that a velocity takes; None where nothing is bounded."""
        return z, None


class Gaussian(Prior):
    """N(0, I_dim): log η(z) = −½‖z‖² − ½ dim log 2π."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        return randn((n, self.dim), generator, self.device_of.device, self.device_of.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi)


class Uniform(Prior):
    """Uniform on the box [low, high]^dim; outside it log η = −inf, with a finite (zero) gradient."""

    def __init__(self, dim: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(dim)
        if not low < high:
            raise ValueError(f"a uniform prior needs low < high, not [{low}, {high}]")
        self.low, self.high = low, high

    def sample(self, n: int, generator: Generator) -> Tensor:
        u = rand((n, self.dim), generator, self.device_of.device, self.device_of.dtype)
        return self.low + (self.high - self.low) * u

    def log_prob(self, z: Tensor) -> Tensor:
        inside = ((z >= self.low) & (z <= self.high)).all(1)
        # 0·z keeps a gradient graph, with gradient zero on both sides of the edge.
        flat = 0.0 * z.sum(1) - self.dim * math.log(self.high - self.low)
        return torch.where(inside, flat, torch.full_like(flat, -math.inf))

    def reflect(self, z: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        phase = (z - self.low) % (2 * width)
        back = phase > width
        return self.low + torch.where(back, 2 * width - phase, phase), torch.where(back, -1.0, 1.0).to(z)
