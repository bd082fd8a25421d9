"""The model: a base measure reweighted by an energy, dQ_{B,E}/dQ = exp(−E)/Z (Arbel, Zhou & Gretton, ICLR 2021)."""

from __future__ import annotations

import copy
import math
from typing import Self, cast

import torch
from torch import Tensor, nn

from .noise import Generator, rand
from .priors import Prior


class GEBM(nn.Module):
    """A base (generator), an energy (low on real data), a latent prior and log Z.

    Args:
        base: `base(z, y=None) -> (n, *shape)` from latents z (n, d).
        energy: `energy(x, y=None) -> (n,)`, low on real data.
        prior: law η of the latents, with `sample` and `log_prob`.
        log_partition: estimate c of log Z = log E_Q[exp(−E)], a parameter of the model.
        num_classes: None, or how many classes base and energy take labels y (n,) of; their frequencies, equal at first,
            are a buffer.
    """

    def __init__(
        self,
        base: nn.Module,
        energy: nn.Module,
        prior: Prior,
        log_partition: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.base, self.energy, self.prior = base, energy, prior
        self.log_partition = nn.Parameter(torch.tensor(float(log_partition)))
        if num_classes is not None:
            self.register_buffer("label_frequencies", torch.full((num_classes,), 1 / num_classes, dtype=torch.float64))

    def latent_potential(self, z: Tensor, beta: float = 1.0, y: Tensor | None = None) -> Tensor:
        """U_β(z) = −log η(z) + β·E(B(z)), shape (n,) from z (n, d); only the energy is tempered, c drops out."""
        return Potential(self, beta, y)(z)

    def potential(self, beta: float = 1.0, y: Tensor | None = None) -> Potential:
        """U_β as an object, for the samplers."""
        return Potential(self, beta, y)

    def log_weights(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log dQ_{B,E}/dQ (x) = −E(x) − c, shape (n,)."""
        return -call_energy(self.energy, x, y) - self.log_partition

    def sample_labels(self, n: int, generator: Generator) -> Tensor | None:
        """(n,) labels, each as frequent as in the data trained on; None for an unconditional model."""
        if self.num_classes is None:
            return None
        u = rand((n,), generator, dtype=torch.float64)
        borders = cast(Tensor, self.label_frequencies).double().cpu().cumsum(0)
        return torch.searchsorted(borders / borders[-1], u, right=True).to(self.log_partition.device)

    @torch.no_grad()
    def count_labels(self, y: Tensor) -> None:
        """Take the frequencies of labels (m,) for those of `sample_labels`."""
        counts = torch.bincount(y, minlength=self.num_classes or 0).double()
        cast(Tensor, self.label_frequencies).copy_(counts / counts.sum())

    def sample_base(self, n: int, generator: Generator, y: Tensor | None = None) -> Tensor:
        """n samples of the base alone, shape (n, *shape)."""
        return call_base(self.base, self.prior.sample(n, generator), y)

    def base_log_prob(self, x: Tensor) -> Tensor:
        """log q(x) of the base alone, shape (n,) from x (n, d), where it has a density.

        An `Invertible` base gives log η(T(x)) + log |det ∂T/∂x|, another its own `log_prob`.

        Raises:
            TypeError: the base has neither, as no generator with a low-dimensional latent has.
        """
        inverse = getattr(self.base, "inverse", None)
        if inverse is not None:
            z, log_det = inverse(x)
            return self.prior.log_prob(z) + log_det
        log_prob = getattr(self.base, "log_prob", None)
        if log_prob is not None:
            return log_prob(x)
        raise TypeError(
            f"{type(self.base).__name__} has no density: log_prob needs a base with an inverse or a log_prob of its own"
        )

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log q(x) − E(x) − c, shape (n,), where the base has a density q; `metrics.log_likelihood` takes other estimates of log Z.

        Raises:
            TypeError: the base has no density.
        """
        return self.base_log_prob(x) + self.log_weights(x, y)


class Potential:
    """U_β(z) = −log η(z) + β·E(B(z)): (n, d) -> (n,), with `.prior`, `.beta`, `.energy(z)` and `.tempered(beta)`."""

    def __init__(self, gebm: GEBM, beta: float = 1.0, y: Tensor | None = None) -> None:
        self.gebm, self.beta, self.y = gebm, beta, y

    @property
    def prior(self) -> Prior:
        return self.gebm.prior

    def energy(self, z: Tensor) -> Tensor:
        """E(B(z)), shape (n,)."""
        return call_energy(self.gebm.energy, call_base(self.gebm.base, z, self.y), self.y)

    def tempered(self, beta: float) -> Self:
        """The same potential at another inverse temperature."""
        other = copy.copy(self)
        other.beta = beta
        return other

    def given(self, y: Tensor | None) -> Self:
        """The same potential of chains with labels y (n,)."""
        other = copy.copy(self)
        other.y = y
        return other

    def __call__(self, z: Tensor) -> Tensor:
        return -self.prior.log_prob(z) + self.beta * self.energy(z)


def call_base(base: nn.Module, z: Tensor, y: Tensor | None = None) -> Tensor:
    """base(z) or base(z, y): networks without labels need not take them."""
    return base(z) if y is None else base(z, y)


def call_energy(energy: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """energy(x) or energy(x, y), checked to be (n,).

    Raises:
        ValueError: the energy returned another shape.
    """
    value = energy(x) if y is None else energy(x, y)
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"an energy must return shape {tuple(x.shape[:1])}, one number a sample, not {tuple(value.shape)}"
        )
    return value


def log_mean_exp(x: Tensor) -> Tensor:
    """log of the mean of exp(x), x of shape (n,)."""
    return torch.logsumexp(x, 0) - math.log(x.shape[0])


@torch.no_grad()
def estimate_log_partition(gebm: GEBM, generator: Generator, num_samples: int = 4096, chunk: int = 512) -> Tensor:
    """Monte-Carlo log Z = log mean exp(−E(B(z))), z ~ η, a scalar; networks as they stand (set eval mode first)."""
    energies = []
    for start in range(0, num_samples, chunk):
        n = min(chunk, num_samples - start)
        y = gebm.sample_labels(n, generator)
        energies.append(call_energy(gebm.energy, gebm.sample_base(n, generator, y), y))
    return log_mean_exp(-torch.cat(energies).float())


def full_precision(v: Tensor) -> Tensor:
    """Critic outputs as float32 where autocast made them half: log-sum-exps need it; doubles stay doubles."""
    return v.float() if v.dtype in (torch.bfloat16, torch.float16) else v
