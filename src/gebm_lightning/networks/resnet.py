"""The residual pair of spectrally normalised GANs (Gulrajani et al., NeurIPS 2017; Miyato et al., ICLR 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import (
    Labelled,
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


class UpBlock(Labelled):
    """x (n, c, h, w) to (n, c, 2h, 2w): norm, ReLU, ×2, convolution, norm, ReLU, convolution, plus the enlarged input."""

    def __init__(self, channels: int, num_classes: int | None, spectral: bool) -> None:
        super().__init__()
        self.residual = Stack(
            batch_norm(channels, num_classes),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            normalised(nn.Conv2d(channels, channels, 3, 1, 1), spectral),
            batch_norm(channels, num_classes),
            nn.ReLU(),
            normalised(nn.Conv2d(channels, channels, 3, 1, 1), spectral),
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.residual(x, y) + F.interpolate(x, scale_factor=2)


class ResNetBase(nn.Module):
    """z (n, latent_dim) to images (n, *shape) in [−1, 1]: a linear seed, residual blocks of ×2, norm, ReLU, convolution.

    At (3, 32, 32), latent_dim 100 and width 128 it has 1,097,603 parameters.

    Args:
        latent_dim: size of z.
        shape: (C, H, H).
        width: channels of every feature map.
        num_classes: None, or how many classes its embedding and conditional batch norms tell apart.
        spectral: spectral normalisation of every layer.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: Sequence[int],
        width: int = 128,
        num_classes: int | None = None,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        channels, size = image_shape(shape, "resnet")
        seed, doublings = seed_and_doublings(size)
        self.latents = Latents(latent_dim, num_classes)
        self.layers = Stack(
            normalised(nn.Linear(self.latents.size, width * seed * seed), spectral),
            nn.Unflatten(1, (width, seed, seed)),
            *(UpBlock(width, num_classes, spectral) for _ in range(doublings)),
            batch_norm(width, num_classes),
            nn.ReLU(),
            normalised(nn.Conv2d(width, channels, 3, 1, 1), spectral),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(self.latents(z, y), y)


class DownBlock(nn.Module):
    """x (n, inputs, h, w) to (n, width, h/2, w/2), or the same size if not `down`; the first block has no ReLU before it."""

    def __init__(self, inputs: int, width: int, down: bool, first: bool, spectral: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.residual = nn.Sequential(
            *([] if first else [nn.ReLU()]),
            normalised(nn.Conv2d(inputs, width, 3, 1, 1), spectral),
            nn.ReLU(),
            normalised(nn.Conv2d(width, width, 3, 1, 1), spectral),
        )
        self.skip = normalised(nn.Conv2d(inputs, width, 1), spectral) if down or inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if not self.down:
            return self.residual(x) + self.skip(x)
        return F.avg_pool2d(self.residual(x), 2) + F.avg_pool2d(self.skip(x), 2)


class ResNetEnergy(nn.Module):
    """Images (n, *shape) to one number each (n,): residual blocks down to 8×8 (4×4 from 8, 7×7 from 28), two more, mean, linear.

    At (3, 32, 32) and width 128 it has 1,053,825 parameters.

    Args:
        shape: (C, H, H).
        width: channels of every feature map.
        spectral: spectral normalisation of every layer.
        num_classes: None, or how many classes its projection tells apart.
        outputs: None for one number each; with a number, features (n, outputs) instead, for objectives that compare such.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        spectral: bool = True,
        num_classes: int | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        channels, size = image_shape(shape, "resnet")
        blocks: list[nn.Module] = [DownBlock(channels, width, True, True, spectral)]
        size //= 2
        while size > 8:
            blocks.append(DownBlock(width, width, True, False, spectral))
            size //= 2
        blocks += [DownBlock(width, width, False, False, spectral) for _ in range(2)]
        self.layers = nn.Sequential(*blocks, nn.ReLU())
        self.last = normalised(nn.Linear(width, critic_outputs(outputs, num_classes)), spectral)
        self.projection = None if num_classes is None else Projection(width, num_classes, spectral)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x).mean((2, 3))
        value = self.last(h).flatten(1)
        if self.outputs is not None:
            return value
        value = value.squeeze(1)
        return value if self.projection is None else value + self.projection(h, given(y))
