"""DCGAN generator and critic (Radford, Metz & Chintala, ICLR 2016)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ..errors import UserError
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


class DCGANBase(nn.Module):
    """z (n, latent_dim) to images (n, *shape) in [−1, 1]: a small map, then ×2 up to size, halving the channels to `width`.

    At (3, 32, 32), latent_dim 100 and width 64 it has 3,573,824 parameters. Channels are at most 8·width.

    Args:
        latent_dim: size of z.
        shape: (C, H, H).
        width: channels of the last feature map.
        num_classes: None, or how many classes its embedding and conditional batch norms tell apart.
        spectral: spectral normalisation of every convolution.
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
        channels, size = image_shape(shape, "dcgan")
        seed, doublings = seed_and_doublings(size)
        widths = [width * 2 ** min(k, 3) for k in range(doublings, -1, -1)]
        self.latents = Latents(latent_dim, num_classes)
        layers: list[nn.Module] = [
            normalised(nn.ConvTranspose2d(self.latents.size, widths[0], seed, 1, 0, bias=False), spectral)
        ]
        for wide, narrow in itertools.pairwise(widths):
            up = nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False)
            layers += [batch_norm(wide, num_classes), nn.ReLU(), normalised(up, spectral)]
        last = nn.Conv2d(width, channels, 1, bias=False)
        layers += [batch_norm(width, num_classes), nn.ReLU(), normalised(last, spectral), nn.Tanh()]
        self.layers = Stack(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(self.latents(z, y)[:, :, None, None], y)


class DCGANEnergy(nn.Module):
    """Images (n, *shape) to one number each (n,): 4×4 convolutions of stride 2 down to 2×2 or 3×3, doubling the channels.

    With `norm="batch"` at (3, 32, 32) and width 64 it has 2,759,424 parameters. A batch norm makes an energy depend on
    the batch while it is trained and not while it is sampled; `norm="none"` is the better choice for sampling.

    Args:
        shape: (C, H, H).
        width: channels of the first layer; later ones have at most 8·width.
        norm: "batch" (none on the first layer) or "none" (biases instead).
        spectral: spectral normalisation of every convolution (Miyato et al., ICLR 2018).
        num_classes: None, or how many classes its projection tells apart.
        outputs: None for one number each; with a number, features (n, outputs) instead, for objectives that compare such.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        norm: Literal["batch", "none"] = "batch",
        spectral: bool = False,
        num_classes: int | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        channels, size = image_shape(shape, "dcgan")
        if norm not in ("batch", "none"):
            raise UserError(f"model.energy.norm must be batch or none, not {norm}")
        bias = norm == "none"
        layers: list[nn.Module] = []
        wide = width
        while size > 3:
            layers.append(normalised(nn.Conv2d(channels, wide, 4, 2, 1, bias=bias), spectral))
            if norm == "batch" and len(layers) > 1:
                layers.append(nn.BatchNorm2d(wide))
            layers.append(LeakyReLU(0.2))
            channels, wide, size = wide, min(2 * wide, 8 * width), size // 2
        self.layers = nn.Sequential(*layers)
        self.last = normalised(
            nn.Conv2d(channels, critic_outputs(outputs, num_classes), size, size, bias=bias), spectral
        )
        self.projection = None if num_classes is None else Projection(channels, num_classes, spectral)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        value = self.last(h).flatten(1)
        if self.outputs is not None:
            return value
        value = value.squeeze(1)
        return value if self.projection is None else value + self.projection(h.sum((2, 3)), given(y))
