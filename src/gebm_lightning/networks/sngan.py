"""The convolutional pair of spectrally normalised GANs (Miyato et al., ICLR 2018), as the GEBM paper uses it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from .activations import LeakyReLU
from .blocks import (
    Latents,
    Projection,
    Stack,
    batch_norm,
    critic_outputs,
    given,
    image_shape,
    normalised,
    seed_and_doublings,
)


class SNGANBase(nn.Module):
    """z (n, latent_dim) to images (n, *shape) in [−1, 1]: a linear seed, then batch norm, ReLU, ×2, and a last convolution.

    At (3, 32, 32), latent_dim 100 and width 64 it has 3,584,003 parameters. Channels are at most 8·width.

    Args:
        latent_dim: size of z.
        shape: (C, H, H).
        width: channels of the last feature map.
        num_classes: None, or how many classes its embedding and conditional batch norms tell apart.
        spectral: spectral normalisation of every layer.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        width: int = 64,
        num_classes: int | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        channels, size = image_shape(shape, "sngan")
        seed, doublings = seed_and_doublings(size)
        widths = [width * 2 ** min(k, 3) for k in range(doublings, -1, -1)]
        self.latents = Latents(latent_dim, num_classes)
        layers: list[nn.Module] = [
            normalised(nn.Linear(self.latents.size, widths[0] * seed * seed), spectral),
            nn.Unflatten(1, (widths[0], seed, seed)),
        ]
        for wide, narrow in itertools.pairwise(widths):
            up = nn.ConvTranspose2d(wide, narrow, 4, 2, 1)
            layers += [batch_norm(wide, num_classes), nn.ReLU(), normalised(up, spectral)]
        last = nn.ConvTranspose2d(width, channels, 3, 1, 1)
        layers += [batch_norm(width, num_classes), nn.ReLU(), normalised(last, spectral), nn.Tanh()]
        self.layers = Stack(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(self.latents(z, y), y)


class SNGANEnergy(nn.Module):
    """Images (n, *shape) to one number each (n,): pairs of 4×4 stride-2 and 3×3 convolutions down to 4×4 (3×3 from 28).

    At (3, 32, 32) and width 64 it has 5,860,865 parameters.

    Args:
        shape: (C, H, H).
        width: channels of the first layer; later ones have at most 8·width.
        spectral: spectral normalisation of every layer.
        num_classes: None, or how many classes its projection tells apart.
        outputs: None for one number each; with a number, features (n, outputs) instead, for objectives that compare such.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        spectral: bool = True,
        num_classes: int | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        channels, size = image_shape(shape, "sngan")
        layers: list[nn.Module] = [normalised(nn.Conv2d(channels, width, 3, 1, 1), spectral), LeakyReLU(0.1)]
        wide = width
        while size > 4:
            wider = min(2 * wide, 8 * width)
            layers += [normalised(nn.Conv2d(wide, wider, 4, 2, 1), spectral), LeakyReLU(0.1)]
            layers += [normalised(nn.Conv2d(wider, wider, 3, 1, 1), spectral), LeakyReLU(0.1)]
            wide, size = wider, size // 2
        self.layers = nn.Sequential(*layers)
        self.last = normalised(nn.Linear(wide * size * size, critic_outputs(outputs, num_classes)), spectral)
        self.projection = None if num_classes is None else Projection(wide, num_classes, spectral)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        value = self.last(h.flatten(1)).flatten(1)
        if self.outputs is not None:
            return value
        value = value.squeeze(1)
        return value if self.projection is None else value + self.projection(h.sum((2, 3)), given(y))
