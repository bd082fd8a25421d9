"""DCGAN generator and critic for square images of 8, 16 and 32 pixels (Radford, Metz & Chintala, ICLR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..errors import UserError

SIZES = (8, 16, 32)


def image_shape(shape: Sequence[int], network: str, sizes: Sequence[int] = SIZES) -> tuple[int, int]:
    """(channels, size) of an image shape (C, H, W) that `network` is built for.

    Raises:
        UserError: the shape is no square image of one of `sizes`.
    """
    known = ", ".join(map(str, sizes))
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in sizes:
        raise UserError(
            f"{network} is not built for data of shape {tuple(shape)}: it takes square images (C, H, H) with H one of "
            f"{known}; choose another data.size or model=mlp"
        )
    return shape[0], shape[1]


class DCGANBase(nn.Module):
    """z (n, latent_dim) to images (n, *shape) in [−1, 1]: a 4×4 seed, then ×2 up to size, halving the channels to `width`.

    At (3, 32, 32), latent_dim 100 and width 64 it has 3,573,824 parameters.
    """

    def __init__(self, latent_dim: int, shape: Sequence[int], width: int = 64) -> None:
        super().__init__()
        channels, size = image_shape(shape, "dcgan")
        doublings = (size // 4).bit_length() - 1
        self.latent_dim = latent_dim
        wide = width * 2**doublings
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, wide, 4, 1, 0, bias=False)]
        for _ in range(doublings):
            layers += [nn.BatchNorm2d(wide), nn.ReLU(), nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1, bias=False)]
            wide //= 2
        layers += [nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, channels, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        if z.dim() != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"this base takes latents of shape (n, {self.latent_dim}), not {tuple(z.shape)}")
        return self.layers(z[:, :, None, None])


class DCGANEnergy(nn.Module):
    """Images (n, *shape) to one number each (n,): 4×4 convolutions of stride 2 down to 2×2, doubling the channels.

    With `norm="batch"` at (3, 32, 32) and width 64 it has 2,759,424 parameters. A batch norm makes an energy depend on
    the batch while it is trained and not while it is sampled; `norm="none"` is the better choice for sampling.

    Args:
        shape: (C, H, H).
        width: channels of the first layer.
        norm: "batch" (none on the first layer) or "none" (biases instead).
        spectral: spectral normalisation of every convolution (Miyato et al., ICLR 2018).
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        norm: Literal["batch", "none"] = "batch",
        spectral: bool = False,
    ) -> None:
        super().__init__()
        channels, size = image_shape(shape, "dcgan")
        if norm not in ("batch", "none"):
            raise UserError(f"model.energy.norm must be batch or none, not {norm}")
        halvings = size.bit_length() - 2
        bias = norm == "none"
        layers: list[nn.Module] = []
        for i in range(halvings):
            wide = width * 2**i
            layers.append(nn.Conv2d(channels, wide, 4, 2, 1, bias=bias))
            if norm == "batch" and i > 0:
                layers.append(nn.BatchNorm2d(wide))
            layers.append(nn.LeakyReLU(0.2))
            channels = wide
        layers.append(nn.Conv2d(channels, 1, 2, 2, bias=bias))
        if spectral:
            layers = [spectral_norm(layer) if isinstance(layer, nn.Conv2d) else layer for layer in layers]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten()
