"""Models whose posterior over latents is known: exact samples, one-dimensional laws of projections, log Z."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn

from gebm_lightning import GEBM
from gebm_lightning.priors import Gaussian, Uniform


class Target(NamedTuple):
    gebm: GEBM
    sample: object
    """`(n, generator) -> (n, d)` exact draws of exp(−U_1)."""
    projections: list
    """Pairs of a function (n, d) -> (n,) and the CDF of its law."""


class Identity(nn.Module):
    def forward(self, z):
        return z


class Banana(nn.Module):
    """x = (z₁, z₂ + z₁²), a bijection of volume 1."""

    def forward(self, z):
        return torch.stack([z[:, 0], z[:, 1] + z[:, 0].square()], 1)

    def inverse(self, x):
        return torch.stack([x[:, 0], x[:, 1] - x[:, 0].square()], 1)


class Tilt(nn.Module):
    """The energy that makes `log_prob` the law of the latents: E(B(z)) = log η(z) − log p(z)."""

    def __init__(self, log_prob, prior, inverse=None):
        super().__init__()
        self.log_prob, self.inverse = log_prob, inverse
        self.log_eta = prior.log_prob

    def forward(self, x):
        z = x if self.inverse is None else self.inverse(x)
        return self.log_eta(z) - self.log_prob(z)


def _model(log_prob, prior, base=None):
    base = Identity() if base is None else base
    return GEBM(base, Tilt(log_prob, prior, getattr(base, "inverse", None)), prior).double()


def correlated_gaussian(d=10, correlation=0.6):
    """N(μ, Σ) with unit variances and equal correlations."""
    covariance = torch.full((d, d), correlation, dtype=torch.float64).fill_diagonal_(1.0)
    mean = torch.linspace(-0.5, 0.5, d, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    directions = torch.stack([torch.eye(d)[0], torch.ones(d) / d**0.5, (torch.eye(d)[1] - torch.eye(d)[2]) / 2**0.5])

    def cdf(v):
        return stats.norm((v @ mean).item(), (v @ covariance @ v).item() ** 0.5).cdf

    projections = [(lambda z, v=v: z @ v, cdf(v)) for v in directions.double()]

    def sample(n, generator):
        return mean + torch.randn(n, d, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T

    return Target(_model(law.log_prob, Gaussian(d).double()), sample, projections)


def mixture():
    """0.3·N((−1, 0), .6² I) + 0.7·N((1, .5), .5² I)."""
    weights, means, sigmas = torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.6, 0.5])
    weights, means, sigmas = weights.double(), means.double(), sigmas.double()

    def log_prob(z):
        parts = -(z[:, None] - means).square().sum(2) / (2 * sigmas**2) - 2 * sigmas.log()
        return torch.logsumexp(parts + weights.log(), 1) - np.log(2 * np.pi)

    def sample(n, generator):
        component = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return means[component] + sigmas[component][:, None] * noise

    def cdf(v):
        laws = [stats.norm((m @ v).item(), s.item()) for m, s in zip(means, sigmas, strict=True)]
        return lambda t: sum(w.item() * law.cdf(t) for w, law in zip(weights, laws, strict=True))

    directions = [torch.tensor(v, dtype=torch.float64) for v in ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8])]
    return Target(_model(log_prob, Gaussian(2).double()), sample, [(lambda z, v=v: z @ v, cdf(v)) for v in directions])


def pushforward():
    """A curved base under a Gaussian prior; the posterior is that of z = (.8w₁ + .3, w₂ − .5w₁²), w ~ N(0, I)."""

    def to_w(z):
        w1 = (z[:, 0] - 0.3) / 0.8
        return w1, z[:, 1] + 0.5 * w1.square()

    def log_prob(z):
        w1, w2 = to_w(z)
        return -0.5 * (w1.square() + w2.square()) - np.log(2 * np.pi * 0.8)

    def sample(n, generator):
        w = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return torch.stack([0.8 * w[:, 0] + 0.3, w[:, 1] - 0.5 * w[:, 0].square()], 1)

    normal = stats.norm().cdf
    projections = [(lambda z: to_w(z)[0], normal), (lambda z: to_w(z)[1], normal)]
    return Target(_model(log_prob, Gaussian(2).double(), Banana()), sample, projections)


def box():
    """p ∝ exp(a·z) on [−1, 1]², a = (1.5, −.5): mass at the edges."""
    slope = torch.tensor([1.5, -0.5], dtype=torch.float64)

    def log_prob(z):
        return z @ slope - (2 * torch.sinh(slope) / slope).log().sum()

    def sample(n, generator):
        u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return torch.log(torch.exp(-slope) + u * 2 * torch.sinh(slope)) / slope

    def cdf(a):
        return lambda t: (np.exp(a * np.clip(t, -1, 1)) - np.exp(-a)) / (2 * np.sinh(a))

    prior = Uniform(2).double()
    flat = -2 * np.log(2.0)

    class Inside(nn.Module):
        # Outside of the box log η − log p would be −∞: the energy itself is smooth everywhere.
        def forward(self, x):
            return flat - log_prob(x)

    projections = [(lambda z, i=i: z[:, i], cdf(slope[i].item())) for i in range(2)]
    return Target(GEBM(Identity(), Inside(), prior).double(), sample, projections)


TARGETS = {"gaussian": correlated_gaussian(), "mixture": mixture(), "pushforward": pushforward(), "box": box()}


def departures(z, target):
    """The smallest p-value of Kolmogorov–Smirnov tests on the projections, and the largest z-score of their two first moments."""
    exact = target.sample(400_000, torch.Generator().manual_seed(99))
    p, score = 1.0, 0.0
    for function, cdf in target.projections:
        values, reference = function(z).numpy(), function(exact).numpy()
        p = min(p, stats.kstest(values, cdf).pvalue)
        for power in (1, 2):
            a, b = values**power, reference**power
            score = max(score, abs(a.mean() - b.mean()) / (a.var() / len(a) + b.var() / len(b)) ** 0.5)
    return p, score
