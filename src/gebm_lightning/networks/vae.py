"""A Gaussian VAE whose decoder, noise included, is a base (Kingma & Welling, ICLR 2014; VAEBM: Xiao et al., ICLR 2021)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError, check_number
from ..noise import Generator, randn
from .blocks import image_shape, seed_and_doublings

SIZES = (8, 16, 28, 32)


class Terms(NamedTuple):
    """The two parts of log p(x) ≥ log_likelihood − kl, in nats."""

    log_likelihood: Tensor
    """(n,) log p(x|z) at one z ~ q(z|x), unbiased for its mean under q."""
    kl: Tensor
    """(n,) KL(q(z|x) ‖ N(0, I)), in closed form."""


class VAE(nn.Module):
    """ε = (ε_z, ε_x) (n, latent_dim + C·H·H) to images (n, *shape): T(ε) = μ(z) + σ ε_x, z = ε_z (VAEBM, section 3.2).

    With ε ~ N(0, I) this is z ~ N(0, I), x ~ N(μ(z), σ²I), one learned σ for all pixels: as the base of a GEBM, with that
    prior, the model is VAEBM's h(x, z) ∝ p(z) p(x|z) e^{−E(x)}. No layer mixes the samples of a batch.

    Args:
        latent_dim: of z, not of ε.
        shape: (C, H, H), H one of 8, 16, 28 and 32.
        width: channels of the largest feature map; smaller ones have at most 4·width.
        sigma: σ at first.
        sigma_floor: what σ stays above: the density of data without noise has no upper bound.

    Raises:
        UserError: other images, or a setting out of range.
    """

    def __init__(
        self, latent_dim: int, shape: Sequence[int], width: int = 32, sigma: float = 0.5, sigma_floor: float = 0.01
    ) -> None:
        super().__init__()
        channels, size = image_shape(shape, "vae")
        if size not in SIZES:
            known = ", ".join(map(str, SIZES))
            raise UserError(f"vae is built for images of {known} pixels, not {size}: choose another data.size")
        check_number("model.latent_dim", latent_dim, low=1, integer=True)
        check_number("model.width", width, low=1, integer=True)
        check_number("model.base.sigma_floor", sigma_floor, above=0)
        check_number("model.base.sigma", sigma, above=sigma_floor)
        self.latent_dim, self.shape, self.sigma_floor = latent_dim, tuple(shape), sigma_floor
        self.eps_dim = latent_dim + math.prod(shape)
        self.rho = nn.Parameter(torch.tensor(math.log(math.expm1(sigma - sigma_floor))))
        seed, doublings = seed_and_doublings(size)
        widths = [width * 2 ** min(k, 2) for k in range(doublings + 1)]
        wide = widths[-1]
        encoder: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), nn.SiLU()]
        for inputs, outputs in itertools.pairwise(widths):
            encoder += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.SiLU()]
            encoder += [nn.Conv2d(outputs, outputs, 3, 1, 1), nn.SiLU()]
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(wide * seed * seed, 2 * latent_dim))
        decoder: list[nn.Module] = [nn.Linear(latent_dim, wide * seed * seed), nn.Unflatten(1, (wide, seed, seed))]
        for inputs, outputs in itertools.pairwise(widths[::-1]):
            decoder += [nn.SiLU(), nn.Conv2d(inputs, inputs, 3, 1, 1)]
            decoder += [nn.SiLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
        self.decoder = nn.Sequential(*decoder, nn.SiLU(), nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh())

    @property
    def sigma(self) -> Tensor:
        """σ of p(x|z), a scalar: softplus(ρ) + `sigma_floor`."""
        return F.softplus(self.rho) + self.sigma_floor

    def forward(self, eps: Tensor, y: Tensor | None = None) -> Tensor:
        if eps.dim() != 2 or eps.shape[1] != self.eps_dim:
            raise ValueError(f"this base takes (ε_z, ε_x) of shape (n, {self.eps_dim}), not {tuple(eps.shape)}")
        if y is not None:
            raise UserError("a VAE has no labels: model.num_classes must be null")
        z, eps_x = eps.split([self.latent_dim, self.eps_dim - self.latent_dim], 1)
        return self.mean(z) + self.sigma * eps_x.unflatten(1, self.shape)

    def mean(self, z: Tensor) -> Tensor:
        """μ(z), images (n, *shape) in [−1, 1] from z (n, latent_dim)."""
        return self.decoder(z)

    def noiseless(self, eps: Tensor) -> Tensor:
        """μ(ε_z), images (n, *shape) from ε (n, latent_dim + C·H·H): T(ε) without σ ε_x."""
        return self.mean(eps[:, : self.latent_dim])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean m and standard deviation s of q(z|x) = N(m(x), diag s(x)²), each (n, latent_dim)."""
        mean, raw = self.encoder(x).chunk(2, 1)
        return mean, F.softplus(raw) + 1e-4

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) = −‖x − μ(z)‖²/(2σ²) − D log(σ √(2π)), shape (n,), in nats."""
        squared = ((x - self.mean(z)) / self.sigma).flatten(1).square().sum(1)
        return -0.5 * squared - math.prod(self.shape) * (self.sigma.log() + 0.5 * math.log(2 * math.pi))

    def elbo_terms(self, x: Tensor, generator: Generator) -> Terms:
        """Reconstruction at one reparametrised z = m(x) + s(x) ξ, and KL = ½Σ(m² + s² − 1 − log s²), for x (n, *shape)."""
        mean, scale = self.encode(x)
        xi = randn(tuple(mean.shape), generator, mean.device, mean.dtype)
        kl = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(1)
        return Terms(self.log_likelihood(x, mean + scale * xi), kl)

    def elbo(self, x: Tensor, generator: Generator) -> Tensor:
        """E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) ≤ log p(x) in expectation, shape (n,), in nats (Kingma & Welling, eq. 10)."""
        terms = self.elbo_terms(x, generator)
        return terms.log_likelihood - terms.kl
