"""Multilayer perceptrons for base and energy, for data of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def _layers(inputs: int, width: int, depth: int, outputs: int, slope: float, spectral: bool = False) -> nn.Sequential:
    sizes = [inputs] + [width] * depth
    linear = [nn.Linear(a, b) for a, b in zip(sizes, [*sizes[1:], outputs], strict=True)]
    modules: list[nn.Module] = []
    for i, layer in enumerate(linear):
        modules += [spectral_norm(layer) if spectral else layer]
        modules += [nn.LeakyReLU(slope)] if i < depth else []
    return nn.Sequential(*modules)


class MLPBase(nn.Module):
    """z (n, latent_dim) to data (n, *shape); images, shapes of three axes, end in tanh."""

    def __init__(
        self, latent_dim: int, shape: Sequence[int], width: int = 128, depth: int = 3, slope: float = 0.2
    ) -> None:
        super().__init__()
        self.latent_dim, self.shape = latent_dim, tuple(shape)
        self.layers = _layers(latent_dim, width, depth, math.prod(shape), slope)
        self.output = nn.Tanh() if len(self.shape) == 3 else nn.Identity()

    def forward(self, z: Tensor) -> Tensor:
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"this base takes latents of shape (n, {self.latent_dim}), not {tuple(z.shape)}")
        return self.output(self.layers(z)).unflatten(1, self.shape)


class MLPEnergy(nn.Module):
    """Data (n, *shape) to one number each (n,), optionally with spectral normalisation of every layer."""

    def __init__(
        self, shape: Sequence[int], width: int = 128, depth: int = 3, slope: float = 0.2, spectral: bool = False
    ) -> None:
        super().__init__()
        self.layers = _layers(math.prod(shape), width, depth, 1, slope, spectral)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1)).squeeze(1)
