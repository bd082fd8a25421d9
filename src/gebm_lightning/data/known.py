"""Laws of which all is known: a generalized energy-based model with true parameters of the support and a true energy of the latent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..noise import stable_seed
from .datasets import ArrayDataset


@dataclass(frozen=True)
class Known:
    """P = B*_# (exp(−E*)/Z* · η) for a base B* whose parameters and an energy E* of the latent that are known.

    Args:
        num_train: points of the train split.
        num_held_out: points of the val split, and of the test split.
    """

    num_train: int = 50_000
    num_held_out: int = 10_000

    signless: ClassVar[frozenset[str]] = frozenset()
    """Parameters of which p and −p are the same support, with the same mass on it."""

    def __post_init__(self) -> None:
        for key in ("num_train", "num_held_out"):
            check_number(f"data.source.{key}", getattr(self, key), low=1, integer=True)

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The true parameters, by their names in the base's `support()`."""
        raise NotImplementedError

    @property
    def log_partition(self) -> float:
        """log Z* = log E_η[exp(−E*(z))]."""
        raise NotImplementedError

    def energy(self, z: Tensor) -> Tensor:
        """E*(z), shape (n,) from latents (n, d)."""
        raise NotImplementedError

    def log_ratio(self, z: Tensor) -> Tensor:
        """log dP/dQ* at B*(z), shape (n,): −E*(z) − log Z*."""
        return -self.energy(z) - self.log_partition

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, d) latents of data, in float64."""
        raise NotImplementedError

    def points(self, z: Tensor) -> Tensor:
        """B*(z), (n, *shape)."""
        raise NotImplementedError

    def quadrature(self, nodes: int) -> tuple[Tensor, Tensor]:
        """Latents (m, d) and weights (m,) in float64 with E_η[f] ≈ Σ w_i f(z_i) for functions of B(z)."""
        raise NotImplementedError

    def split(self, name: str) -> ArrayDataset:
        """A split, (n, d) in float32; the same for every run's seed."""
        n = self.num_train if name == "train" else self.num_held_out
        z = self.latents(n, torch.Generator().manual_seed(stable_seed("known", self.name, name)))
        return ArrayDataset(self.points(z).float())


@dataclass(frozen=True)
class Line(Known):
    """A segment with more mass at its ends: z uniform on [−1, 1], dP/dQ*(z) = floor + 3(1 − floor)z².

    Args:
        offset: the middle, at z = 0.
        direction: of any length.
        half_length: of the segment.
        floor: the density ratio in the middle, in (0, 1].
    """

    offset: Sequence[float] = (0.25, -0.25)
    direction: Sequence[float] = (2.0, 1.0)
    half_length: float = 1.0
    floor: float = 0.4

    signless: ClassVar[frozenset[str]] = frozenset({"direction"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.floor <= 1:
            raise UserError(f"data.source.floor must be above 0 and at most 1, not {self.floor}")
        check_number("data.source.half_length", self.half_length, above=0)
        if len(self.offset) != len(self.direction) or not any(self.direction):
            raise UserError(f"data.source.direction must be a direction in the space of offset, not {self.direction}")

    @property
    def parameters(self) -> dict[str, Tensor]:
        offset, direction = (torch.tensor(p, dtype=torch.float64) for p in (self.offset, self.direction))
        return {"offset": offset, "direction": direction / direction.norm()}

    @property
    def log_partition(self) -> float:
        return 0.0

    def energy(self, z: Tensor) -> Tensor:
        return -torch.log(self.floor + 3 * (1 - self.floor) * z[:, 0].square())

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        # A mixture of the uniform law and of density 3z²/2, whose |z|³ is uniform.
        u, v = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
        flat = 2 * v - 1
        return torch.where(u < self.floor, flat, flat.sign() * flat.abs() ** (1 / 3))

    def points(self, z: Tensor) -> Tensor:
        offset, direction = (p.to(z) for p in self.parameters.values())
        return offset + self.half_length * z * direction

    def quadrature(self, nodes: int = 2000) -> tuple[Tensor, Tensor]:
        z, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
        return z[:, None], w / 2


@dataclass(frozen=True)
class Flower(Known):
    """The surface x = ‖u + u⁴‖² u, u = z/‖z‖ on the unit sphere of R³, with E*(z) = −κ⟨μ, u⟩: u is von Mises–Fisher.

    log Z* = log(sinh κ / κ), and ⟨μ, u⟩ has the density κ e^{κt} / (2 sinh κ) on [−1, 1]. The surface passes through the origin
    three times, at minus the unit vectors: with any other mean than (1, 1, 1) the energy, as a function of x, is not continuous
    there.

    Args:
        mean: direction of μ, of any length.
        concentration: κ.
    """

    mean: Sequence[float] = (1.0, 1.0, 1.0)
    concentration: float = 1.5

    signless: ClassVar[frozenset[str]] = frozenset({"coefficients"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("data.source.concentration", self.concentration, above=0)
        if len(self.mean) != 3 or not any(self.mean):
            raise UserError(f"data.source.mean must be a direction in three dimensions, not {self.mean}")

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {"coefficients": torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)}

    @property
    def log_partition(self) -> float:
        return math.log(math.sinh(self.concentration) / self.concentration)

    def _mean(self, like: Tensor) -> Tensor:
        return torch.nn.functional.normalize(torch.tensor(self.mean).to(like), dim=0)

    def energy(self, z: Tensor) -> Tensor:
        return -self.concentration * torch.nn.functional.normalize(z, dim=1) @ self._mean(z)

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 3) directions u, in float64: t = ⟨μ, u⟩ by its inverse distribution function, the rest uniform on a circle."""
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        k = self.concentration
        t = (1 + torch.log(uniform + (1 - uniform) * math.exp(-2 * k)) / k)[:, None]
        around = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        mean = self._mean(around)
        around = torch.nn.functional.normalize(around - (around @ mean)[:, None] * mean, dim=1)
        return t * mean + (1 - t.square()).clamp(min=0).sqrt() * around

    def points(self, z: Tensor) -> Tensor:
        u = torch.nn.functional.normalize(z, dim=1)
        return (u + u**4).square().sum(1, keepdim=True) * u

    def quadrature(self, nodes: int = 200) -> tuple[Tensor, Tensor]:
        """Gauss–Legendre in the height, 2·nodes equal steps of the angle: (2·nodes², 3) unit vectors."""
        height, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
        angle = (torch.arange(2 * nodes).double() + 0.5) * (math.pi / nodes)
        radius = (1 - height.square()).sqrt()[:, None]
        u = torch.stack([radius * angle.cos(), radius * angle.sin(), height[:, None].expand(-1, 2 * nodes)], 2)
        return u.flatten(0, 1), (w / 2).repeat_interleave(2 * nodes) / (2 * nodes)
