"""Positive-definite kernels k(x, y) on R^d: what MMD, KALE and the particle flows compare points with.

All are differentiable twice in both arguments, as gradient penalties need, also where two points coincide: there the
gradient of a distance is taken as 0. They hold a few tensors of n·m·d numbers at once; the estimators call them by blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import UserError, check_number

WIDE = 16
"""The dimension above which distances that nobody differentiates are computed without a tensor of differences."""


class Kernel(Protocol):
    """k(x, y) = ⟨φ(x), φ(y)⟩."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m) k(x_i, y_j) of x (n, d) and y (m, d)."""
        ...

    def diagonal(self, x: Tensor) -> Tensor:
        """(n,) k(x_i, x_i)."""
        ...


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m) ‖x_i − y_j‖² of x (n, d) and y (m, d).

    By differences, not by ‖x‖² + ‖y‖² − 2x·y: non-negative, 0 where points coincide, symmetric, and right for close points
    that are far from the origin, in value and in gradient.
    """
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"a kernel compares points (n, d) and (m, d), not {tuple(x.shape)} and {tuple(y.shape)}")
    if x.shape[1] > WIDE and not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        # Without the (d, n, m) tensor; but cdist's backward cannot be differentiated again.
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    # The sum over the first axis of a contiguous (d, n, m) is several times faster than over a short last one.
    return (x.T.contiguous()[:, :, None] - y.T.contiguous()[:, None, :]).square().sum(0)


def _root(squares: Tensor) -> Tensor:
    # The derivative of the root at 0 is infinite, and times 0 it would be NaN.
    zero = squares == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())


def distances(x: Tensor, y: Tensor) -> Tensor:
    """(n, m) Euclidean ‖x_i − y_j‖ of x (n, d) and y (m, d), with gradient 0 where it is 0."""
    return _root(squared_distances(x, y))


def norms(x: Tensor) -> Tensor:
    """(n,) Euclidean ‖x_i‖ of x (n, d), with gradient 0 at 0."""
    return _root(x.square().sum(1))


@dataclass(frozen=True)
class Gaussian:
    """k(x, y) = exp(−‖x − y‖²/(2σ²))."""

    sigma: float

    def __post_init__(self) -> None:
        check_number("the Gaussian kernel's sigma", self.sigma, above=0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (squared_distances(x, y) / (-2 * self.sigma**2)).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 0])


@dataclass(frozen=True)
class Laplace:
    """k(x, y) = exp(−‖x − y‖/σ) with the Euclidean norm (not the 1-norm), as the Matérn kernel of smoothness ½."""

    sigma: float

    def __post_init__(self) -> None:
        check_number("the Laplace kernel's sigma", self.sigma, above=0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (distances(x, y) / -self.sigma).exp()

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 0])


@dataclass(frozen=True)
class RationalQuadratic:
    """k(x, y) = Σ_α (1 + ‖x − y‖²/(2α·scale²))^−α (Bińkowski et al., Demystifying MMD GANs, ICLR 2018, section 2)."""

    alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alphas", tuple(self.alphas))
        if not self.alphas:
            raise UserError("the rational quadratic kernel needs at least one alpha")
        for alpha in self.alphas:
            check_number("the rational quadratic kernel's alpha", alpha, above=0)
        check_number("the rational quadratic kernel's scale", self.scale, above=0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        squares = squared_distances(x, y) / (2 * self.scale**2)
        return torch.stack([(1 + squares / alpha) ** -alpha for alpha in self.alphas]).sum(0)

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, 0], len(self.alphas))


@dataclass(frozen=True)
class Polynomial:
    """k(x, y) = (scale·x·y + offset)^degree; with scale = 1/d, which None stands for, offset 1 and degree 3, KID's kernel."""

    degree: int = 3
    scale: float | None = None
    offset: float = 1.0

    def __post_init__(self) -> None:
        check_number("the polynomial kernel's degree", self.degree, low=1, integer=True)
        check_number("the polynomial kernel's offset", self.offset, low=0)
        if self.scale is not None:
            check_number("the polynomial kernel's scale", self.scale, above=0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self._power(x @ y.T, x.shape[1])

    def diagonal(self, x: Tensor) -> Tensor:
        return self._power(x.square().sum(1), x.shape[1])

    def _power(self, products: Tensor, dim: int) -> Tensor:
        return (products * (1 / dim if self.scale is None else self.scale) + self.offset) ** self.degree


@dataclass(frozen=True)
class EnergyDistance:
    """k(x, y) = (‖x‖ + ‖y‖ − ‖x − y‖)/2, whose MMD² is half of the energy distance.

    MMD² = E‖X − Y‖ − E‖X − X'‖/2 − E‖Y − Y'‖/2 (Sejdinovic et al., Annals of Statistics 2013, with the origin as the base
    point): ‖x‖ and ‖y‖ cancel.
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (norms(x)[:, None] + norms(y) - distances(x, y)) / 2

    def diagonal(self, x: Tensor) -> Tensor:
        return norms(x)


@dataclass(frozen=True)
class Sum:
    """k = Σ_i k_i."""

    kernels: Sequence[Kernel]

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", tuple(self.kernels))
        if not self.kernels:
            raise UserError("a sum of kernels needs at least one kernel")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([kernel(x, y) for kernel in self.kernels]).sum(0)

    def diagonal(self, x: Tensor) -> Tensor:
        return torch.stack([kernel.diagonal(x) for kernel in self.kernels]).sum(0)


def gaussians(sigmas: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)) -> Sum:
    """Σ_σ exp(−‖x − y‖²/(2σ²)), by default with the widths of MMD GAN (Li et al., NeurIPS 2017)."""
    return Sum([Gaussian(sigma) for sigma in sigmas])


@torch.no_grad()
def median_heuristic(x: Tensor, y: Tensor | None = None, max_points: int = 1000) -> float:
    """The median distance between two different points of the pooled sample x (n, d), y (m, d): a width for a kernel.

    Of more than `max_points` pooled points, evenly spaced ones are taken, so the result is a function of the samples alone. If
    over half of the pairs coincide, it is the median of the others, and 1 if all do.
    """
    check_number("max_points", max_points, low=2, integer=True)
    pooled = x if y is None else torch.cat([x, y])
    if len(pooled) > max_points:
        pooled = pooled[torch.arange(max_points, device=pooled.device) * len(pooled) // max_points]
    pairs = torch.pdist(pooled.double())
    if not pairs.numel() or pairs.median() == 0:
        pairs = pairs[pairs > 0]
    return float(pairs.median()) if pairs.numel() else 1.0
