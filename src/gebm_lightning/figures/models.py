"""Small models in the plane, trained in seconds with the package's own objective, for the figures to look at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from ..gebm import GEBM
from ..networks.mlp import MLPEnergy
from ..noise import stable_seed
from ..objectives.kale import KALE
from ..objectives.penalties import GradientPenalty
from ..priors import Gaussian
from .laws import Arcs, generator

Law = Callable[[int, torch.Generator], Tensor]

TARGET = Arcs()
"""The data of all figures of rings: three modes with masses .6, .3 and .1."""


class Ring(nn.Module):
    """z (n, 2) to a ring in the plane, c + z/‖z‖·(r + s(‖z‖ − E‖z‖)): all angles alike, z ~ N(0, I).

    Args:
        radius: r.
        thickness: s, .66 of which is the radius's standard deviation.
        centre: c.
    """

    centre: Tensor

    def __init__(self, radius: float = 1.0, thickness: float = 0.12, centre: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.radius, self.thickness = radius, thickness
        self.register_buffer("centre", torch.tensor(centre))

    def forward(self, z: Tensor) -> Tensor:
        length = z.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return self.centre + z / length * (self.radius + self.thickness * (length - math.sqrt(math.pi / 2)))


class Line(nn.Module):
    """z (n, 1) to a + bz, a normal law on a line in the plane whose place and direction are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.affine = nn.Linear(1, 2)
        nn.init.constant_(self.affine.bias, 0.0)
        with torch.no_grad():
            self.affine.weight.copy_(torch.tensor([[0.4], [-0.4]]))

    def forward(self, z: Tensor) -> Tensor:
        return self.affine(z)


@dataclass(frozen=True)
class Bimodal:
    """Data on a line in the plane: the place along it is a mixture of two normal laws of unequal weights."""

    origin: tuple[float, float] = (0.3, -0.2)
    direction: tuple[float, float] = (0.8, 0.6)
    means: tuple[float, float] = (-0.8, 0.9)
    sigma: float = 0.25
    share: float = 0.7
    """Of the first mode."""

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 2) draws in float32."""
        first = torch.rand(n, generator=generator) < self.share
        place = torch.where(first, *self.means) + self.sigma * torch.randn(n, generator=generator)
        return torch.tensor(self.origin) + place[:, None] * torch.tensor(self.direction)

    def place(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where points (n, 2) are along the line, and how far from it, both (n,)."""
        along, off = torch.tensor(self.direction), torch.tensor([-self.direction[1], self.direction[0]])
        return (x - torch.tensor(self.origin)) @ along, (x - torch.tensor(self.origin)) @ off


def small(base: nn.Module, latent_dim: int, seed: int) -> GEBM:
    """A GEBM of this base, latents (n, latent_dim) to the plane, and an untrained energy of 64 × 64 units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed("figures", "energy", seed))
        return GEBM(base, MLPEnergy((2,), width=64, depth=2), Gaussian(latent_dim))


def train(
    gebm: GEBM,
    law: Law,
    noise: torch.Generator,
    num_steps: int,
    penalty: float,
    with_base: bool = False,
    batch: int = 256,
    rate: float = 2e-3,
    base_rate: float = 1e-2,
) -> None:
    """KALE for `num_steps` energy updates on fresh samples, by Adam with cosine schedules.

    Args:
        gebm: what is trained.
        law: the data.
        noise: where all samples come from.
        num_steps: energy updates.
        penalty: weight of the gradient penalty.
        with_base: whether the base is updated after each update of the energy, or stays as it is.
        batch: samples of each side in an update.
        rate: Adam's for the energy and c, at first.
        base_rate: Adam's for the base, at first.
    """
    objective, gradient_penalty = KALE(), GradientPenalty(penalty)
    gebm.requires_grad_(True)
    energy = torch.optim.Adam([*gebm.energy.parameters(), gebm.log_partition], rate, betas=(0.5, 0.999))
    base = torch.optim.Adam(gebm.base.parameters(), base_rate, betas=(0.5, 0.999)) if with_base else None
    players = [player for player in (energy, base) if player is not None]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(p, lambda step: (1 + math.cos(math.pi * step / num_steps)) / 2)
        for p in players
    ]
    for _ in range(num_steps):
        x, y = law(batch, noise), gebm.sample_base(batch, noise).detach()
        loss, _ = objective.energy_loss(gebm.energy(x), gebm.energy(y), gebm.log_partition)
        _update(energy, loss + gradient_penalty(gebm.energy, x, y, noise))
        if base is not None:
            _update(base, objective.base_loss(gebm.energy(gebm.sample_base(batch, noise)), gebm.log_partition)[0])
        for schedule in schedules:
            schedule.step()
    gebm.requires_grad_(False)


def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@lru_cache(maxsize=4)
def right_support(seed: int) -> GEBM:
    """The base is a ring with all angles alike, where the data prefer three."""
    gebm = small(Ring(), 2, seed)
    train(gebm, TARGET, generator(seed, "right support"), 600, penalty=0.003)
    return gebm


@lru_cache(maxsize=4)
def wrong_support(seed: int) -> GEBM:
    """The base is a thicker ring beside the data's."""
    gebm = small(Ring(1.1, 0.5, (0.5, -0.2)), 2, seed)
    train(gebm, TARGET, generator(seed, "wrong support"), 600, penalty=0.01)
    return gebm


@lru_cache(maxsize=4)
def on_a_line(seed: int) -> GEBM:
    """Base, a normal law on a line at best, and energy together; then the energy alone, with less penalty."""
    gebm, noise = small(Line(), 1, seed), generator(seed, "line")
    train(gebm, Bimodal(), noise, 600, penalty=0.1, with_base=True)
    train(gebm, Bimodal(), noise, 300, penalty=0.001)
    return gebm
