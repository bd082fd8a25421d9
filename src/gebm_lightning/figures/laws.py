"""Laws on the line and in the plane that the figures are about, drawn from explicit generators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import stable_seed


def generator(seed: int, name: str) -> torch.Generator:
    """A stream of its own for each figure and purpose."""
    return torch.Generator().manual_seed(stable_seed("figures", name, seed))


@dataclass(frozen=True)
class Mixture:
    """Σ_k w_k N(m_k, s_k²) on the line.

    Args:
        means: m.
        sigmas: s.
        weights: w; equal if None.
    """

    means: Sequence[float]
    sigmas: Sequence[float]
    weights: Sequence[float] | None = None

    @property
    def shares(self) -> Tensor:
        """(k,) w in float64, of sum 1."""
        w = torch.tensor(self.weights or [1.0] * len(self.means), dtype=torch.float64)
        return w / w.sum()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 1) draws in float64."""
        component = torch.multinomial(self.shares, n, replacement=True, generator=generator)
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        means, sigmas = (torch.tensor(s, dtype=torch.float64)[component] for s in (self.means, self.sigmas))
        return (means + sigmas * noise)[:, None]

    def log_prob(self, points: Tensor) -> Tensor:
        """(n,) log-densities of points (n, 1)."""
        means, sigmas = (torch.tensor(s).to(points) for s in (self.means, self.sigmas))
        normal = -((points - means) / sigmas).square() / 2 - (sigmas * math.sqrt(2 * math.pi)).log()
        return torch.logsumexp(normal + self.shares.to(points).log(), 1)


@dataclass(frozen=True)
class Arcs:
    """A ring in the plane with more mass around some angles: the radius is N(r, s²), the angle a mixture.

    Args:
        angles: (k,) in turns, where the modes are.
        weights: (k,) of the modes.
        spread: standard deviation of a mode's angle, in turns.
        radius: r.
        thickness: s.
    """

    angles: Sequence[float] = (0.125, 0.458, 0.792)
    weights: Sequence[float] = (0.6, 0.3, 0.1)
    spread: float = 0.07
    radius: float = 1.0
    thickness: float = 0.08

    @property
    def modes(self) -> Tensor:
        """(k, 2) the middles of the arcs."""
        return self._at(torch.tensor(self.angles), torch.tensor(self.radius))

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 2) draws in float32."""
        component = torch.multinomial(torch.tensor(self.weights), n, replacement=True, generator=generator)
        noise = torch.randn(2, n, generator=generator)
        turns = torch.tensor(self.angles)[component] + self.spread * noise[0]
        return self._at(turns, self.radius + self.thickness * noise[1])

    def shares(self, x: Tensor) -> Tensor:
        """(k,) the shares of points (n, 2) that are nearest to each mode."""
        return torch.bincount(torch.cdist(x, self.modes).argmin(1), minlength=len(self.angles)) / len(x)

    def _at(self, turns: Tensor, radius: Tensor) -> Tensor:
        angle = 2 * math.pi * turns
        return radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
