"""Latent priors η: `sample(n, generator) -> (n, d)`, `log_prob(z) -> (n,)` and what to do at the edge of the support."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from .errors import UserError, first_line
from .noise import Generator, rand, randn


class Prior(nn.Module):
    """A law on R^dim. `device_of` is a buffer, so that samples are drawn where the model is."""

    device_of: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"a prior needs at least one dimension, not {dim}")
        self.dim = dim
        self.register_buffer("device_of", torch.zeros(()), persistent=False)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """(n, dim) draws."""
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """(n,) log densities of z (n, dim)."""
        raise NotImplementedError

    def reflect(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z moved into the support, and the signs (n, dim) that a velocity takes; None where nothing is bounded."""
        return z, None


class Gaussian(Prior):
    """N(0, I_dim): log η(z) = −½‖z‖² − ½ dim log 2π."""

    def sample(self, n: int, generator: Generator) -> Tensor:
        return randn((n, self.dim), generator, self.device_of.device, self.device_of.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi)


class Uniform(Prior):
    """Uniform on the box [low, high]^dim; outside it log η = −inf, with a finite (zero) gradient."""

    def __init__(self, dim: int, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(dim)
        if not low < high:
            raise ValueError(f"a uniform prior needs low < high, not [{low}, {high}]")
        self.low, self.high = low, high

    def sample(self, n: int, generator: Generator) -> Tensor:
        u = rand((n, self.dim), generator, self.device_of.device, self.device_of.dtype)
        return self.low + (self.high - self.low) * u

    def log_prob(self, z: Tensor) -> Tensor:
        inside = ((z >= self.low) & (z <= self.high)).all(1)
        # 0·z keeps a gradient graph, with gradient zero on both sides of the edge.
        flat = 0.0 * z.sum(1) - self.dim * math.log(self.high - self.low)
        return torch.where(inside, flat, torch.full_like(flat, -math.inf))

    def reflect(self, z: Tensor) -> tuple[Tensor, Tensor]:
        width = self.high - self.low
        # Ten widths away no step of a sensible size leads: folded back, it would look like a perfect sample.
        z = torch.where((z < self.low - 10 * width) | (z > self.high + 10 * width), torch.nan, z)
        phase = (z - self.low) % (2 * width)
        back = phase > width
        return self.low + torch.where(back, 2 * width - phase, phase), torch.where(back, -1.0, 1.0).to(z)


class Flow(Prior):
    """A normalising flow of zuko, z = f⁻¹(ξ) with ξ ~ N(0, I): log η(z) = log N(f(z)) + log |det ∂f/∂z|. It is frozen.

    From the command line, with the extra `flows` installed and a flow that was trained before:
    `model.prior._target_=gebm_lightning.priors.Flow '+model.prior.flow={_target_:zuko.flows.NSF,features:2}'
    +model.prior.weights=flow.pt`.

    Args:
        flow: an unconditional zuko flow with a standard normal base, such as `zuko.flows.NSF(2)`.
        weights: a file of its tensors, as of `networks.pretrained.read_weights`; None or False leaves the flow as it is.
        prefix: of the tensors' names in the file.
        dim: what the flow's dimension must be; None for any.

    Raises:
        UserError: the flow has labels, another base or no good inverse, or the file or dimension is not the flow's.
    """

    def __init__(
        self, flow: nn.Module, weights: str | bool | None = None, prefix: str = "", dim: int | None = None
    ) -> None:
        if weights:
            from .networks.pretrained import load_weights

            load_weights(flow, str(weights), prefix, key="model.prior.weights")
        flow.requires_grad_(False)
        try:
            law: Any = flow()
            base, (features,) = law.base, law.event_shape
            noise = torch.randn(64, features, generator=torch.Generator().manual_seed(0)).to(base.mean)
            off = (law.transform(law.transform.inv(noise)) - noise).abs().amax(1)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"model.prior.flow is no unconditional zuko flow over vectors: {first_line(error)}"
            ) from error
        normal = isinstance(base, Independent) and isinstance(base.base_dist, Normal)
        if not normal or base.mean.any() or (base.stddev != 1).any():
            raise UserError(f"model.prior.flow must have a standard normal base, not {base}")
        # A few rows may be steep; zuko's GF searches f⁻¹ in a box that most rows are outside of.
        if not off.quantile(0.9) < 1e-2:
            raise UserError(
                "model.prior.flow cannot be sampled: its inverse leads elsewhere; take NSF, MAF, RealNVP or NICE"
            )
        if dim is not None and dim != features:
            raise UserError(f"model.prior.flow has {features} dimensions, model.latent_dim is {dim}")
        super().__init__(features)
        self.flow = flow

    def sample(self, n: int, generator: Generator) -> Tensor:
        noise = randn((n, self.dim), generator, self.device_of.device, self.device_of.dtype)
        return self.flow().transform.inv(noise)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.flow().log_prob(z)
