"""f-divergences: the variational bound that a critic gives, and quadrature where both densities are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import UserError, check_number
from ._phi import PHI, Phi
from .estimate import Estimate

Map = Callable[[Tensor], Tensor]


def _find(phi: Phi | str) -> Phi:
    if isinstance(phi, Phi):
        return phi
    if phi not in PHI:
        raise UserError(f"phi must be a Phi or one of {', '.join(PHI)}, not {phi!r}")
    return PHI[phi]


def f_divergence(x: Tensor, y: Tensor, phi: Phi | str, critic: Map) -> Estimate:
    """The bound E_P[T] − E_Q[φ*(T)] ≤ D_φ(P‖Q) that a critic gives, T = g(v), from samples of P and Q.

    Nowozin, Cseke & Tomioka, f-GAN, NeurIPS 2016, equation 4. Tight at T = φ'(dP/dQ). Differentiable in whatever x, y and the
    critic depend on: minus the value is the critic's loss.

    Args:
        x: (n, ...) from P.
        y: (m, ...) from Q.
        phi: φ, or its key in `PHI`.
        critic: points (n, ...) → (n,) raw outputs v, high on P; T = φ's activation g of v.

    Returns:
        The value, an estimate of the bound (above D if the critic has seen these samples: then use fresh ones), the
        witness T, and in `info` `sem`, the value's standard error.

    Raises:
        UserError: an unknown phi, no points, or a critic whose outputs are not (n,).
    """
    phi = _find(phi)

    def outputs(points: Tensor) -> Tensor:
        v = critic(points)
        if v.shape != points.shape[:1]:
            raise UserError(f"a critic must give one number a point, ({len(points)},), not {tuple(v.shape)}")
        return v

    if not (len(x) and len(y)):
        raise UserError("f_divergence needs at least one point in x and one in y")
    gain, cost = phi.activation(outputs(x)), phi.dual(outputs(y))
    sem = (gain.detach().var(correction=0) / len(x) + cost.detach().var(correction=0) / len(y)).sqrt()
    return Estimate(gain.mean() - cost.mean(), lambda points: phi.activation(outputs(points)), {"sem": sem})


def f_divergence_of_densities(
    log_p: Map, log_q: Map, phi: Phi | str, points: Tensor, weights: Tensor | float
) -> Estimate:
    """D_φ(P‖Q) = Σ_i w_i q(t_i) φ(p(t_i)/q(t_i)), a quadrature of known densities.

    Computed in logs, so right where q or p underflows. Where p > 0 = q the summand is p·lim φ(u)/u = p·φ'(∞), where
    p = 0 < q it is q·φ(0): infinite for KL, finite for Jensen–Shannon.

    Args:
        log_p: points (n, d) → (n,) log-density of P; −∞ outside of its support.
        log_q: the same of Q.
        phi: φ, or its key in `PHI`. One that is not of `PHI` is evaluated at p/q itself, which must not overflow.
        points: (n, d) the nodes t; `grid` gives some.
        weights: (n,) or a number, the volumes w.

    Returns:
        The value, and as its witness φ'(p/q), the critic at which the variational bound is tight (with log p/q clamped
        to what the dtype can exponentiate). In `info`, `mass_p` and `mass_q`: the integrals of p and q over the nodes,
        1 if these are wide and dense enough.

    Raises:
        UserError: an unknown phi, or log-densities that are NaN or not (n,).
    """
    phi = _find(phi)
    at_p, at_q = _log_density("log_p", log_p, points), _log_density("log_q", log_q, points)
    integrand = _IN_LOGS[phi.name] if PHI.get(phi.name) is phi else _generic(phi)
    value = (integrand(at_p, at_q, _log_ratio(at_p, at_q)) * weights).sum()

    def witness(points: Tensor) -> Tensor:
        most = math.log(torch.finfo(points.dtype).max) - 1
        log_ratio = _log_ratio(_log_density("log_p", log_p, points), _log_density("log_q", log_q, points))
        return phi.derivative(log_ratio.clamp(-most, most).exp())

    return Estimate(value, witness, {"mass_p": (at_p.exp() * weights).sum(), "mass_q": (at_q.exp() * weights).sum()})


def grid(
    low: float | Sequence[float], high: float | Sequence[float], num: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, float]:
    """The midpoints (num^d, d) of a box's num^d equal cells, and the volume of a cell.

    The midpoint rule's error falls faster than any power of num for smooth densities that vanish at the box's sides.
    """
    lows, highs = ([s] if isinstance(s, (int, float)) else list(s) for s in (low, high))
    check_number("a grid's num", num, low=1, integer=True)
    if len(lows) != len(highs) or not all(a < b for a, b in zip(lows, highs, strict=True)):
        raise UserError(f"a grid's low must be below its high in each dimension, not {low} and {high}")
    axes = [a + (b - a) * (torch.arange(num, dtype=dtype) + 0.5) / num for a, b in zip(lows, highs, strict=True)]
    nodes = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)
    return nodes, math.prod((b - a) / num for a, b in zip(lows, highs, strict=True))


def _log_density(name: str, function: Map, points: Tensor) -> Tensor:
    values = function(points)
    if values.shape != points.shape[:1]:
        raise UserError(f"{name} must give one number a point, ({len(points)},), not {tuple(values.shape)}")
    if values.isnan().any():
        raise UserError(f"{name} is NaN at some of the points")
    return values


def _log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    neither = (log_p == -math.inf) & (log_q == -math.inf)
    return torch.where(neither, 0.0, log_p - log_q)


def _times(mass: Tensor, factor: Tensor) -> Tensor:
    """mass·factor, 0 where the mass is 0 and the factor infinite."""
    return mass * torch.where(mass == 0, 0.0, factor)


def _generic(phi: Phi) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def integrand(p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        # φ'(∞), the slope of φ at infinity, is the end of the domain of φ*.
        atom = q == -math.inf
        return torch.where(
            atom,
            _times(p.exp(), torch.full_like(p, phi.top)),
            _times(q.exp(), phi.phi(torch.where(atom, 0.0, r).exp())),
        )

    return integrand


def _larger(p: Tensor, q: Tensor) -> Tensor:
    return torch.maximum(p, q).exp()


def _share(r: Tensor) -> Tensor:
    """|p − q| / max(p, q) = 1 − e^{−|r|}."""
    return -torch.expm1(-r.abs())


# q·φ(p/q) of log p, log q and r = log p − log q, with no step that overflows or cancels unless the result does.
_IN_LOGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "kl": lambda p, q, r: _times(p.exp(), r),
    "reverse_kl": lambda p, q, r: _times(q.exp(), -r),
    "pearson": lambda p, q, r: (torch.maximum(p, q) + r.clamp(min=0)).exp() * _share(r).square(),
    "neyman": lambda p, q, r: (torch.maximum(p, q) - r.clamp(max=0)).exp() * _share(r).square(),
    "squared_hellinger": lambda p, q, r: _larger(p, q) * _share(r / 2).square(),
    "jeffreys": lambda p, q, r: _times(_larger(p, q) * _share(r), r.abs()),
    "js": lambda p, q, r: _times(p.exp(), math.log(2) + logsigmoid(r)) + _times(q.exp(), math.log(2) + logsigmoid(-r)),
    "gan": lambda p, q, r: _times(p.exp(), logsigmoid(r)) + _times(q.exp(), logsigmoid(-r)),
    "total_variation": lambda p, q, r: _larger(p, q) * _share(r) / 2,
}
