"""Two-dimensional laws with known structure, as functions `(n, generator) -> (n, 2)` in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import make_swiss_roll
from torch import Tensor

from ..errors import check_number
from ..noise import stable_seed
from .datasets import ArrayDataset


def _mixture(means: Tensor, sigma: float, n: int, generator: torch.Generator) -> Tensor:
    component = torch.randint(len(means), (n,), generator=generator)
    return means[component] + sigma * torch.randn(n, 2, generator=generator)


def gaussian_grid_modes() -> tuple[Tensor, float]:
    """Means (25, 2) and σ of `gaussian_grid`."""
    ticks = torch.arange(-2, 3).float() * 2
    return torch.cartesian_prod(ticks, ticks) / 2.828, 0.05 / 2.828


def gaussian_grid(n: int, generator: torch.Generator) -> Tensor:
    """25 Gaussians at (2i, 2j), i, j in −2..2, σ = .05, all divided by 2.828 (Gulrajani et al., NeurIPS 2017)."""
    return _mixture(*gaussian_grid_modes(), n, generator)


def pacgan_grid_modes() -> tuple[Tensor, float]:
    """Means (25, 2) and σ of `pacgan_grid`."""
    ticks = torch.arange(-2, 3).float() * 2
    return torch.cartesian_prod(ticks, ticks), 0.05


def pacgan_grid(n: int, generator: torch.Generator) -> Tensor:
    """25 Gaussians at (2i, 2j), i, j in −2..2, σ = .05 (Lin et al., PacGAN, NeurIPS 2018)."""
    return _mixture(*pacgan_grid_modes(), n, generator)


def ring_modes() -> tuple[Tensor, float]:
    """Means (8, 2) and σ of `ring`."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], 1), 0.01


def ring(n: int, generator: torch.Generator) -> Tensor:
    """8 Gaussians on a circle of radius 1, σ = .01 (Lin et al., PacGAN, NeurIPS 2018)."""
    return _mixture(*ring_modes(), n, generator)


def swiss_roll(n: int, generator: torch.Generator) -> Tensor:
    """Scikit-learn's Swiss roll, noise .25, axes 0 and 2, divided by 7.5 (Gulrajani et al., NeurIPS 2017)."""
    state = int(torch.randint(2**31 - 1, (), generator=generator))
    points, _ = make_swiss_roll(n, noise=0.25, random_state=state)
    return torch.from_numpy(points[:, [0, 2]] / 7.5).float()


def three_rings(n: int, generator: torch.Generator) -> Tensor:
    """Uniform on three circles of radius .3 below one another, centres 2.5 radii apart (Glaser, Arbel & Gretton, 2021)."""
    radius = 0.3
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    drop = torch.randint(3, (n,), generator=generator) * 2.5
    return radius * torch.stack([angle.cos(), angle.sin() - drop], 1)


MODES: dict[Callable[..., Tensor], Callable[[], tuple[Tensor, float]]] = {
    gaussian_grid: gaussian_grid_modes,
    pacgan_grid: pacgan_grid_modes,
    ring: ring_modes,
}


@dataclass(frozen=True)
class Toy:
    """A finite sample of a law, with splits drawn independently; the same for every run's seed.

    Args:
        law: `(n, generator) -> (n, 2)`.
        num_train: points of the train split.
        num_held_out: points of the val split, and of the test split.
    """

    law: Callable[[int, torch.Generator], Tensor]
    num_train: int = 50_000
    num_held_out: int = 10_000

    def __post_init__(self) -> None:
        check_number("data.source.num_train", self.num_train, low=1, integer=True)
        check_number("data.source.num_held_out", self.num_held_out, low=0, integer=True)

    @property
    def name(self) -> str:
        return getattr(getattr(self.law, "func", self.law), "__name__", "toy")

    @property
    def modes(self) -> tuple[Tensor, float] | None:
        """Means (k, 2) and σ of a mixture of equally likely, round Gaussians; None for other laws."""
        modes = MODES.get(getattr(self.law, "func", self.law))
        return None if modes is None else modes()

    def split(self, name: str) -> ArrayDataset:
        n = self.num_train if name == "train" else self.num_held_out
        return ArrayDataset(self.law(n, torch.Generator().manual_seed(stable_seed("toy", name))))
