"""Divergences of two laws whose supports come apart: which of them can tell how far."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..divergences import f_divergence_of_densities, grid, kale, mmd, wasserstein1
from ..divergences.kernels import Gaussian
from .style import SEQUENCE, SMALL, P, Q, label, legend, panels


class Separated(NamedTuple):
    """Divergences of P = U[0, 1] and Q = U[s, s + 1] for each separation s, all (k,) in float64."""

    separation: Tensor
    kl: Tensor
    js: Tensor
    """In the convention of f-GAN, twice the Jensen–Shannon divergence."""
    w1: Tensor
    mmd: Tensor
    """Not squared."""
    kale: Tensor
    """Of a critic in an RKHS, with a penalty."""


def separated(sigma: float = 1.0, reg: float = 0.5, num_points: int = 200) -> Separated:
    """The divergences at s = 0, .1, … 3: KL and JS by quadrature, the others of `num_points` even points."""
    separation = torch.arange(31, dtype=torch.float64) / 10
    x = (torch.arange(num_points, dtype=torch.float64)[:, None] + 0.5) / num_points
    nodes, volume = grid(0.0, 4.0, 400)
    kernel = Gaussian(sigma)
    rows = []
    for s in separation.tolist():
        densities = (_uniform(0.0), _uniform(s))
        rows.append(
            [
                f_divergence_of_densities(*densities, "kl", nodes, volume).value,
                f_divergence_of_densities(*densities, "js", nodes, volume).value,
                wasserstein1(x, x + s).value,
                mmd(x, x + s, kernel, unbiased=False).value.clamp(min=0).sqrt(),
                kale(x, x + s, kernel, reg).value,
            ]
        )
    return Separated(separation, *torch.tensor(rows, dtype=torch.float64).T)


def disjoint_supports(seed: int = 0, sigma: float = 1.0, reg: float = 0.5) -> Figure:
    """KL, JS, W₁, MMD and KALE of two uniform laws against their separation.

    Args:
        seed: not used, nothing is drawn at random.
        sigma: width of the Gaussian kernel of MMD and KALE.
        reg: KALE's penalty λ.
    """
    found = separated(sigma, reg)
    s = found.separation.numpy()
    figure, ((laws, phi, metrics),) = panels(1, 3, height=2.9, width_ratios=(0.8, 1, 1))
    for start, color, name in ((0.0, P, "P"), (2.0, Q, "Q, $s = 2$")):
        laws.fill_between([start, start + 1], 1, color=color, alpha=0.3, label=name)
    label(laws, "$x$", "density", "two uniform laws")
    laws.set_ylim(0, 1.5)
    legend(laws, loc="upper right")

    top = 2.0
    infinite = torch.isinf(found.kl).numpy()
    phi.plot(s, found.js.numpy(), color=SEQUENCE[1], label="JS (× 2)")
    phi.axhline(2 * math.log(2), color=SEQUENCE[1], linestyle=":", linewidth=0.8)
    phi.plot(s[infinite], [top] * infinite.sum(), color=SEQUENCE[4], label="KL")
    phi.plot(s[~infinite], found.kl.numpy()[~infinite], color=SEQUENCE[4], marker="o", markersize=4, linestyle="")
    phi.set_yticks([0, 0.5, 1, 2 * math.log(2), top], ["0", "0.5", "1", "2 log 2", "∞"])
    phi.set_ylim(-0.1, top + 0.15)
    legend(phi, loc="center right")
    for name, values, color in (
        ("$W_1$", found.w1, SEQUENCE[0]),
        ("MMD", found.mmd, SEQUENCE[2]),
        (f"KALE, λ = {reg:g}", found.kale, SEQUENCE[3]),
    ):
        metrics.plot(s, values.numpy(), color=color, label=name)
    metrics.set_ylim(-0.15, 3.9)
    legend(metrics, loc="upper left")
    for ax, title in ((phi, "φ-divergences"), (metrics, "metrics and KALE")):
        ax.axvspan(1, 3, color="0.93", zorder=0)
        ax.text(2, 0.06, "disjoint", fontsize=SMALL, color="0.4", ha="center", transform=ax.get_xaxis_transform())
        ax.set_xlim(-0.05, 3)
        label(ax, "separation $s$", "divergence", title)
    return figure


def _uniform(low: float) -> Callable[[Tensor], Tensor]:
    def log_density(points: Tensor) -> Tensor:
        at = points[:, 0]
        return torch.where((at > low) & (at < low + 1), 0.0, -math.inf)

    return log_density
