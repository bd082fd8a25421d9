"""Generators φ of f-divergences, their conjugates, and the log-ratio that a critic of each stands for (f-GAN)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ..errors import UserError

Map = Callable[[Tensor], Tensor]

PEARSON_FLOOR = 1e-6
"""The smallest density ratio 1 + v/2 that a Pearson critic v is read as; below it a critic claims a negative density."""


@dataclass(frozen=True)
class Phi:
    """D_φ(P‖Q) = E_Q[φ(dP/dQ)] = sup_T E_P[T] − E_Q[φ*(T)], with T = g(v) of a critic's output v.

    Everything is elementwise, in the precision of its argument, and differentiable inside of its domain. The conventions are
    those of f-GAN (Nowozin, Cseke & Tomioka, NeurIPS 2016, tables 1, 2 and 6): `js` is twice the Jensen–Shannon divergence.

    Args:
        name: key in `PHI`.
        on_ratios: φ at u ≥ 0.
        derivative: φ' at u > 0.
        on_domain: φ* at t ≤ top.
        top: right end of the domain of φ*, whose left end is −∞ since u ≥ 0.
        activation: g, which maps critic outputs into that domain.
        dual: φ*(g(v)) in closed form: it keeps its digits where g(v) has rounded to the end of the domain.
        to_energy: E(v) = −log (φ*)'(g(v)), minus the log-ratio log dP/dQ that v stands for at the optimum.
    """

    name: str
    on_ratios: Map
    derivative: Map
    on_domain: Map
    top: float
    activation: Map
    dual: Map
    to_energy: Map

    def phi(self, u: Tensor) -> Tensor:
        """φ(u); +∞ for u < 0."""
        outside = u < 0
        return torch.where(outside, math.inf, self.on_ratios(torch.where(outside, 1.0, u)))

    def conjugate(self, t: Tensor) -> Tensor:
        """φ*(t) = sup_{u ≥ 0} ut − φ(u); +∞ outside of its domain."""
        outside = t > self.top
        return torch.where(outside, math.inf, self.on_domain(torch.where(outside, self.top - 1.0, t)))

    def log_ratio(self, v: Tensor) -> Tensor:
        """log (φ*)'(g(v)) = −E(v)."""
        return -self.to_energy(v)


def _xlogx(u: Tensor) -> Tensor:
    return torch.special.xlogy(u, u)


def _gan(u: Tensor) -> Tensor:
    """u log u − (u + 1) log(u + 1), which at a large u would be a difference of numbers that are nearly equal."""
    return -torch.special.xlog1py(u, 1 / u) - u.log1p()


def _log_lambert(a: Tensor) -> Tensor:
    """L = log W(e^a), the root of e^L + L = a.

    f(L) = e^L + L − a is convex and increasing and f ≥ 0 at the start, so Newton's steps descend to the root. The last two
    are differentiated: that gives the derivatives of the root, up to the third, whatever the start.
    """
    with torch.no_grad():
        root = torch.where(a > 1, a.clamp(min=1).log(), a)
        for _ in range(8):
            root = root - (root.exp() + root - a) / (root.exp() + 1)
    for _ in range(2):
        root = root - (root.exp() + root - a) / (root.exp() + 1)
    return root


def _jeffreys_conjugate(t: Tensor) -> Tensor:
    # φ*'(t) = u = 1/W with W = W(e^{1−t}); W + log W = 1 − t turns W + 1/W + t − 2 into u − 1 + log u, without cancellation.
    log_u = -_log_lambert(1 - t)
    return torch.expm1(log_u) + log_u


def _pearson_conjugate(t: Tensor) -> Tensor:
    # Below −2 the supremum over u ≥ 0 is at u = 0.
    s = t.clamp(min=-2)
    return s.square() / 4 + s


def _pearson_energy(v: Tensor) -> Tensor:
    return -(1 + v / 2).clamp(min=PEARSON_FLOOR).log()


def _no_energy(v: Tensor) -> NoReturn:
    raise UserError(
        "total variation gives no log-ratio: its critic is a sign only, and an energy E = −s·v needs a scale s calibrated on "
        "held-out data (transports.calibrated)"
    )


PHI: dict[str, Phi] = {
    phi.name: phi
    for phi in (
        Phi(
            "kl",
            on_ratios=_xlogx,
            derivative=lambda u: u.log() + 1,
            on_domain=lambda t: (t - 1).exp(),
            top=math.inf,
            activation=lambda v: v,
            dual=lambda v: (v - 1).exp(),
            to_energy=lambda v: 1 - v,
        ),
        Phi(
            "reverse_kl",
            on_ratios=lambda u: -u.log(),
            derivative=lambda u: -1 / u,
            on_domain=lambda t: -1 - (-t).log(),
            top=0.0,
            activation=lambda v: -(-v).exp(),
            dual=lambda v: v - 1,
            to_energy=lambda v: -v,
        ),
        Phi(
            "pearson",
            on_ratios=lambda u: (u - 1).square(),
            derivative=lambda u: 2 * (u - 1),
            on_domain=_pearson_conjugate,
            top=math.inf,
            activation=lambda v: v,
            dual=_pearson_conjugate,
            to_energy=_pearson_energy,
        ),
        Phi(
            "neyman",
            on_ratios=lambda u: (1 - u).square() / u,
            derivative=lambda u: 1 - u.square().reciprocal(),
            on_domain=lambda t: 2 - 2 * (1 - t).sqrt(),
            top=1.0,
            activation=lambda v: -torch.expm1(-v),
            dual=lambda v: -2 * torch.expm1(-v / 2),
            to_energy=lambda v: -v / 2,
        ),
        Phi(
            "squared_hellinger",
            on_ratios=lambda u: (u.sqrt() - 1).square(),
            derivative=lambda u: 1 - u.rsqrt(),
            on_domain=lambda t: t / (1 - t),
            top=1.0,
            activation=lambda v: -torch.expm1(-v),
            dual=torch.expm1,
            to_energy=lambda v: -2 * v,
        ),
        Phi(
            "jeffreys",
            on_ratios=lambda u: (u - 1) * u.log(),
            derivative=lambda u: u.log() + 1 - 1 / u,
            on_domain=_jeffreys_conjugate,
            top=math.inf,
            activation=lambda v: v,
            dual=_jeffreys_conjugate,
            to_energy=lambda v: _log_lambert(1 - v),
        ),
        Phi(
            "js",
            on_ratios=lambda u: _gan(u) + (u + 1) * math.log(2),
            derivative=lambda u: math.log(2) + u.log() - u.log1p(),
            on_domain=lambda t: -math.log(2) - (-torch.expm1(t - math.log(2))).log(),
            top=math.log(2),
            activation=lambda v: math.log(2) + logsigmoid(v),
            dual=lambda v: softplus(v) - math.log(2),
            to_energy=lambda v: -v,
        ),
        Phi(
            "gan",
            on_ratios=_gan,
            derivative=lambda u: u.log() - u.log1p(),
            on_domain=lambda t: -(-torch.expm1(t)).log(),
            top=0.0,
            activation=logsigmoid,
            dual=softplus,
            to_energy=lambda v: -v,
        ),
        Phi(
            "total_variation",
            on_ratios=lambda u: (u - 1).abs() / 2,
            derivative=lambda u: (u - 1).sign() / 2,
            on_domain=lambda t: t.clamp(min=-0.5),
            top=0.5,
            activation=lambda v: v.tanh() / 2,
            dual=lambda v: v.tanh() / 2,
            to_energy=_no_energy,
        ),
    )
}
"""The generators by name: kl, reverse_kl, pearson, neyman, squared_hellinger, jeffreys, js, gan, total_variation."""
