"""Kinetic Langevin (Arbel, Zhou & Gretton 2021, algorithm 3): the splitting position–velocity–friction–velocity–position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import check_number
from ..noise import Generator, randn
from .gradients import value_and_grad
from .kernel import Info, PotentialFn, reflect


class KLAState(NamedTuple):
    z: Tensor
    velocity: Tensor
    midpoint: Tensor


@dataclass(frozen=True)
class KLA:
    """Kinetic Langevin of unit mass, h = 2 sqrt(λ), C = exp(−κh), one gradient per step, taken at the midpoint z½.

    z½ = z + (h/2)v; v½ = v − (h/2)∇U(z½); ṽ = C v½ + sqrt(1 − C²) ξ; v' = ṽ − (h/2)∇U(z½); z' = z½ + (h/2)v'.

    On a Gaussian of precision ω² the variance is exactly 1/ω² at z' and 1/(ω²(1 − λω²)) at z½. In the limit of high
    friction κ it is ULA with the step λ' = h²/2 = 2λ; at low friction it moves between modes. Approximate; at the edge
    of a bounded support it reflects and turns the velocity.
    """

    step_size: float
    friction: float
    exact: ClassVar[bool] = False
    carries: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        check_number("step_size", self.step_size, above=0)
        check_number("friction", self.friction, low=0)

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> KLAState:
        return KLAState(z, randn(tuple(z.shape), generator, z.device, z.dtype), z)

    def step(self, state: KLAState, potential: PotentialFn, generator: Generator) -> tuple[KLAState, Info]:
        h = 2 * math.sqrt(self.step_size)
        keep = math.exp(-self.friction * h)
        noise = randn(tuple(state.z.shape), generator, state.z.device, state.z.dtype)
        half, v = _move(state.z, state.velocity, h / 2, potential)
        u, gradient = value_and_grad(potential, half)
        v = keep * (v - h / 2 * gradient) + math.sqrt(1 - keep**2) * noise - h / 2 * gradient
        z, v = _move(half, v, h / 2, potential)
        ones = torch.ones_like(u)
        return KLAState(z, v, half), Info(ones, ones.bool(), u)


def _move(z: Tensor, velocity: Tensor, time: float, potential: PotentialFn) -> tuple[Tensor, Tensor]:
    z, signs = reflect(z + time * velocity, potential)
    return z, velocity if signs is None else velocity * signs
