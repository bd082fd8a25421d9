"""Multilayer perceptrons for base and energy, for data of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .activations import LeakyReLU
from .blocks import Latents, Projection, critic_outputs, given, normalised


def _layers(inputs: int, width: int, depth: int, slope: float, spectral: bool) -> nn.Sequential:
    modules: list[nn.Module] = []
    for size in [inputs, *[width] * (depth - 1)]:
        modules += [normalised(nn.Linear(size, width), spectral), LeakyReLU(slope)]
    return nn.Sequential(*modules)


class MLPBase(nn.Module):
    """z (n, latent_dim) to data (n, *shape); images, shapes of three axes, end in tanh.

    Args:
        latent_dim: size of z.
        shape: of one datum.
        width: of the hidden layers.
        depth: how many hidden layers.
        slope: of the leaky ReLUs.
        num_classes: None, or how many classes an embedding, joined to z, tells apart.
        spectral: spectral normalisation of every layer.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 3,
        slope: float = 0.2,
        num_classes: int | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.latents, self.shape = Latents(latent_dim, num_classes), tuple(shape)
        self.layers = _layers(self.latents.size, width, depth, slope, spectral)
        self.last = normalised(nn.Linear(width, math.prod(shape)), spectral)
        self.output = nn.Tanh() if len(self.shape) == 3 else nn.Identity()

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.output(self.last(self.layers(self.latents(z, y)))).unflatten(1, self.shape)


class MLPEnergy(nn.Module):
    """Data (n, *shape) to one number each (n,).

    Args:
        shape: of one datum.
        width: of the hidden layers.
        depth: how many hidden layers.
        slope: of the leaky ReLUs.
        spectral: spectral normalisation of every layer.
        num_classes: None, or how many classes its projection tells apart.
        outputs: None for one number each; with a number, features (n, outputs) instead, for objectives that compare such.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 3,
        slope: float = 0.2,
        spectral: bool = False,
        num_classes: int | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.layers = _layers(math.prod(shape), width, depth, slope, spectral)
        self.last = normalised(nn.Linear(width, critic_outputs(outputs, num_classes)), spectral)
        self.projection = None if num_classes is None else Projection(width, num_classes, spectral)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x.flatten(1))
        value = self.last(h).flatten(1)
        if self.outputs is not None:
            return value
        value = value.squeeze(1)
        return value if self.projection is None else value + self.projection(h, given(y))
