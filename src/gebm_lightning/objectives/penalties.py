"""Penalties on the critic: callables `(critic, x_real, x_base, generator) -> scalar`, already weighted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError, check_number
from ..noise import Generator, rand

AT = ("interpolates", "real", "base")


class AtLabels(nn.Module):
    """A conditional critic at fixed labels y (n,), as a function of x (k·n, *shape), k samples to a label."""

    def __init__(self, critic: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.critic, self.y = critic, y

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x, self.y.repeat_interleave(len(x) // len(self.y)))


@dataclass(frozen=True)
class GradientPenalty:
    """weight · mean (‖∇_x E(x̃)‖ − centre)², with x̃ = αx + (1 − α)y and α ~ U(0, 1) for each sample.

    Args:
        weight: λ; 1 in the paper's image runs.
        centre: the norm that costs nothing: 0, or 1 as for Wasserstein critics (Gulrajani et al., NeurIPS 2017, eq. 3).
        at: where the gradient is taken: "interpolates" of real and base samples, "real" (R1) or "base" (R2) samples.
    """

    weight: float = 1.0
    at: str = "interpolates"
    centre: float = 0.0

    def __post_init__(self) -> None:
        check_number("the gradient penalty's weight", self.weight, low=0)
        check_number("the gradient penalty's centre", self.centre, low=0)
        if self.at not in AT:
            raise UserError(f"a gradient penalty is taken at one of {', '.join(AT)}, not at {self.at}")

    def __call__(
        self, critic: Callable[[Tensor], Tensor], x_real: Tensor, x_base: Tensor, generator: Generator
    ) -> Tensor:
        x = points(self.at, x_real, x_base, generator)
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return self.of_gradient(gradient)

    def of_gradient(self, gradient: Tensor) -> Tensor:
        """The penalty on gradients (n, *shape) at the points."""
        squared = gradient.flatten(1).square().sum(1)
        if self.centre > 0:
            # The square root has no derivative at 0.
            squared = ((squared + 1e-12).sqrt() - self.centre).square()
        return self.weight * squared.mean()


def points(at: str, x_real: Tensor, x_base: Tensor, generator: Generator) -> Tensor:
    """Where a penalty takes the critic's gradient, as a leaf (n, *shape)."""
    x = {"real": x_real, "base": x_base}.get(at)
    if x is None:
        shape = (x_real.shape[0],) + (1,) * (x_real.dim() - 1)
        alpha = rand(shape, generator, x_real.device, x_real.dtype)
        x = alpha * x_real + (1 - alpha) * x_base
    return x.detach().requires_grad_()


@dataclass(frozen=True)
class L2Penalty:
    """weight · ‖ψ‖² / d_ψ, with d_ψ the number of the critic's parameters."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("the L2 penalty's weight", self.weight, low=0)

    def __call__(self, critic: nn.Module, x_real: Tensor, x_base: Tensor, generator: Generator) -> Tensor:
        parameters = list(critic.parameters())
        total = torch.stack([p.square().sum() for p in parameters]).sum()
        return self.weight * total / sum(p.numel() for p in parameters)


@dataclass(frozen=True)
class SpectralPenalty:
    """weight · Σ σ_max(W) over the critic's linear and convolutional layers, W of shape (out, in·k·k) (VAEBM, section 3.1).

    σ_max = ‖Wᵀu‖ with u the first left singular vector, a constant: the gradient is uvᵀ, exact where σ_max is simple.
    A spectrally normalised layer counts with its normalised weight.

    Raises:
        UserError: the critic has no such layer.
    """

    weight: float = 0.2

    def __post_init__(self) -> None:
        check_number("the spectral penalty's weight", self.weight, low=0)

    def __call__(self, critic: nn.Module, x_real: Tensor, x_base: Tensor, generator: Generator) -> Tensor:
        norms = spectral_norms(critic)
        if not norms:
            raise UserError(
                f"the spectral penalty is for linear and convolutional layers: {type(critic).__name__} has none"
            )
        return self.weight * torch.stack(list(norms.values())).sum()


def spectral_norms(critic: nn.Module) -> dict[str, Tensor]:
    """σ_max(W), a scalar, of each linear and convolutional layer by its name; a critic that is one itself is "critic".

    In train mode, reading a spectrally normalised weight moves its power iteration.
    """
    layers = {n: m for n, m in critic.named_modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))}
    return {name or "critic": _largest_singular_value(matrix_of(layer)) for name, layer in layers.items()}


def matrix_of(layer: nn.Module) -> Tensor:
    """The weight of a linear or convolutional layer as a matrix (out, in·k·k)."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return (weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight).flatten(1)


def _largest_singular_value(w: Tensor) -> Tensor:
    w = w if w.shape[0] <= w.shape[1] else w.T
    with torch.no_grad():
        u = torch.linalg.eigh(w @ w.T)[1][:, -1]
    return (u @ w).norm()
