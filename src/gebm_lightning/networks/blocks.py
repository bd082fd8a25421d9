"""What several networks share: conditional batch norm, a label-aware stack, image sizes, the projection of a label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..errors import UserError, check_number

SIZES = (8, 16, 28, 32, 64, 128)


def image_shape(shape: Sequence[int], network: str) -> tuple[int, int]:
    """(channels, size) of an image shape (C, H, W) that `network` is built for.

    Raises:
        UserError: the shape is no square image of one of `SIZES`.
    """
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in SIZES:
        known = ", ".join(map(str, SIZES))
        raise UserError(
            f"{network} is not built for data of shape {tuple(shape)}: it takes square images (C, H, H) with H one of "
            f"{known}; choose another data.size or model=mlp"
        )
    return shape[0], shape[1]


def seed_and_doublings(size: int) -> tuple[int, int]:
    """The side of a generator's first feature map, 7 for 28 pixels and else 4, and how often it doubles up to `size`."""
    seed = 7 if size == 28 else 4
    return seed, (size // seed).bit_length() - 1


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias are learned for each class (de Vries et al., NeurIPS 2017)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Embedding(num_classes, channels), nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.norm(x) * self.gain(y)[:, :, None, None] + self.bias(y)[:, :, None, None]


def batch_norm(channels: int, num_classes: int | None) -> nn.Module:
    """Batch norm, conditional where there are classes."""
    return nn.BatchNorm2d(channels) if num_classes is None else ConditionalBatchNorm2d(channels, num_classes)


class Stack(nn.Sequential):
    """A sequence that hands the labels to those of its modules that take them."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for module in self:
            x = module(x, y) if isinstance(module, (Stack, Labelled, ConditionalBatchNorm2d)) else module(x)
        return x


class Labelled(nn.Module):
    """Marks a module whose forward takes (x, y)."""


class Projection(nn.Module):
    """The label's part of a critic, ⟨embedding(y), h⟩ for features h (n, f) (Miyato & Koyama, ICLR 2018)."""

    def __init__(self, features: int, num_classes: int, spectral: bool) -> None:
        super().__init__()
        embedding = nn.Embedding(num_classes, features)
        nn.init.normal_(embedding.weight, std=features**-0.5)
        self.embedding = spectral_norm(embedding) if spectral else embedding

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        return (self.embedding(y) * h).sum(1)


def normalised(layer: nn.Module, spectral: bool) -> nn.Module:
    """The layer, spectrally normalised if asked for (Miyato et al., ICLR 2018)."""
    return spectral_norm(layer) if spectral else layer


class Latents(nn.Module):
    """z (n, latent_dim), joined by an embedding of the label as long as z where there are classes; `size` is the sum.

    Raises:
        ValueError: z has another shape, or labels are missing.
    """

    def __init__(self, latent_dim: int, num_classes: int | None) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, latent_dim)
        self.size = latent_dim * (1 if num_classes is None else 2)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"this base takes latents of shape (n, {self.latent_dim}), not {tuple(z.shape)}")
        return z if self.embedding is None else torch.cat([z, self.embedding(given(y))], 1)


def given(y: Tensor | None) -> Tensor:
    """The labels that a conditional network cannot do without.

    Raises:
        ValueError: there are none.
    """
    if y is None:
        raise ValueError("this network was built with num_classes: it needs labels y of shape (n,)")
    return y


def critic_outputs(outputs: int | None, num_classes: int | None) -> int:
    """How many numbers a critic's last layer has for each datum: 1, or as many features as an objective such as MMD compares.

    Raises:
        UserError: there are none, or a conditional critic, whose label adds to one number, is asked for features.
    """
    if outputs is None:
        return 1
    check_number("model.energy.outputs", outputs, low=1, integer=True)
    if num_classes is not None:
        raise UserError("model.energy.outputs: a conditional critic (model.num_classes) has one output: leave it null")
    return outputs
