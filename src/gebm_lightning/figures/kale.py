"""KALE with a critic in an RKHS: what the penalty smooths, what collapsed modes cost, and how W₁ bounds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..divergences import Estimate, kale, mmd, wasserstein1
from ..divergences.kernels import Gaussian
from .laws import Mixture, generator
from .style import SEQUENCE, SMALL, WITNESS, P, Q, density, label, legend, panels

FIRST, SECOND = Mixture((-0.4,), (0.7,)), Mixture((0.4,), (0.9,))
"""P and Q of the smoothie."""
POINTS = torch.linspace(-3.2, 3.4, 331, dtype=torch.float64)[:, None]


class Blend(NamedTuple):
    """One of the smoothie's glasses."""

    reg: float
    value: float
    log_ratio: Tensor
    """(331,) the witness h, an estimate of the log-ratio, at `POINTS`."""


def smoothie(
    seed: int = 0,
    regs: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
    num_samples: int = 300,
    sigma: float = 1.0,
    reverse: bool = False,
) -> list[Blend]:
    """KALE(P, Q), or with `reverse` KALE(Q, P), for each penalty λ, from the same draws of both laws."""
    x = FIRST.sample(num_samples, generator(seed, "smoothie/p"))
    y = SECOND.sample(num_samples, generator(seed, "smoothie/q"))
    a, b = (y, x) if reverse else (x, y)
    estimates = [(reg, kale(a, b, Gaussian(sigma), reg)) for reg in regs]
    return [Blend(reg, float(found.value), found.witness(POINTS)) for reg, found in estimates]


def kale_smoothie(
    seed: int = 0, regs: Sequence[float] = (0.03, 0.1, 0.3, 1.0), num_samples: int = 300, sigma: float = 1.0
) -> Figure:
    """The witness h and the reweighted density e^h q, for several penalties (λ/2)‖h‖², in both orders of the arguments.

    Args:
        seed: of the samples.
        regs: the penalties λ.
        num_samples: of each law.
        sigma: width of the Gaussian kernel.
    """
    figure, axes = panels(2, 2, height=5.2, sharex=True)
    at = POINTS[:, 0].numpy()
    for row, reverse in zip(axes, (False, True), strict=True):
        (of, of_color, of_name), (over, over_color, over_name) = (
            ((SECOND, Q, "Q"), (FIRST, P, "P")) if reverse else ((FIRST, P, "P"), (SECOND, Q, "Q"))
        )
        name = f"KALE({of_name}, {over_name})"
        top, below = of.log_prob(POINTS), over.log_prob(POINTS)
        density(row[1], POINTS, top.exp(), of_color, of_name)
        density(row[1], POINTS, below.exp(), over_color, over_name)
        for blend, color in zip(smoothie(seed, regs, num_samples, sigma, reverse), SEQUENCE, strict=False):
            told = f"λ = {blend.reg:g}: {blend.value:.2f}"
            row[0].plot(at, blend.log_ratio, color=color, linewidth=1.3, label=told)
            row[1].plot(at, (blend.log_ratio + below).exp(), color=color, linewidth=1.3)
        exact = (top - below).numpy()
        row[0].plot(at, exact, color=WITNESS, linestyle="--", linewidth=1, label="log-ratio")
        row[0].axhline(0, color="0.85", linewidth=0.8, zorder=0)
        row[0].set_ylim(*(-2.2, 4.4) if reverse else (-4.4, 2.2))
        row[1].set_ylim(0, 0.95)
        label(row[0], "$x$" if reverse else "", "witness $h$", name)
        legend(row[0], loc="upper left" if reverse else "lower left", title="penalty: value", title_fontsize=SMALL)
        weighed = f"$e^h$ × density of {over_name}"
        label(row[1], "$x$" if reverse else "", "density", f"{over_name} reweighted: {weighed}")
        legend(row[1], loc="upper right")
    return figure


class Widths(NamedTuple):
    """P = N(0, 1) against Q = N(0, σ²), all (k,) in float64."""

    sigmas: Tensor
    forward: Tensor
    """KALE(P, Q)"""
    backward: Tensor
    """KALE(Q, P)"""
    half_mmd2: Tensor
    """½MMD², biased."""


def widths(seed: int = 0, reg: float = 0.03, num_samples: int = 300, sigma: float = 0.5) -> Widths:
    """Divergences from the same standard normal draws, scaled by each σ."""
    sigmas = torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0], dtype=torch.float64)
    x, noise = _normals(seed, num_samples)
    kernel = Gaussian(sigma)
    rows = [
        [
            kale(x, s * noise, kernel, reg).value,
            kale(s * noise, x, kernel, reg).value,
            mmd(x, s * noise, kernel, unbiased=False).value / 2,
        ]
        for s in sigmas.tolist()
    ]
    return Widths(sigmas, *torch.tensor(rows, dtype=torch.float64).T)


def unequal_variances(
    seed: int = 0, narrow: float = 0.4, reg: float = 0.03, num_samples: int = 300, sigma: float = 0.5
) -> Figure:
    """Two normal laws of equal means: what KALE charges a Q that has collapsed, and one that is too wide.

    Args:
        seed: of the samples.
        narrow: standard deviation of Q in the first two panels.
        reg: the penalty λ.
        num_samples: of each law.
        sigma: width of the Gaussian kernel.
    """
    x, noise = _normals(seed, num_samples)
    one, other = Mixture((0.0,), (1.0,)), Mixture((0.0,), (narrow,))
    figure, ((forward, backward, curve),) = panels(1, 3, height=3.0)
    for ax, order in ((forward, "KALE(P, Q)"), (backward, "KALE(Q, P)")):
        towards_p = ax is forward
        found = kale(*(x, narrow * noise) if towards_p else (narrow * noise, x), Gaussian(sigma), reg)
        law, name = (other, "$e^h q$") if towards_p else (one, "$e^h p$")
        density(ax, POINTS, one.log_prob(POINTS).exp(), P, "P")
        density(ax, POINTS, other.log_prob(POINTS).exp(), Q, "Q")
        weighed = (law.log_prob(POINTS) + found.witness(POINTS)).exp()
        ax.plot(POINTS[:, 0], weighed, color=WITNESS, linewidth=1.3, label=name)
        label(ax, "$x$", "density" if towards_p else "", f"{order} = {float(found.value):.2f}")
        ax.set_ylim(0, 1.75)
        legend(ax, loc="upper left")
    values = widths(seed, reg, num_samples, sigma)
    curve.plot(values.sigmas, values.forward, color=SEQUENCE[0], marker=".", label="KALE(P, Q)")
    curve.plot(values.sigmas, values.backward, color=SEQUENCE[3], marker=".", label="KALE(Q, P)")
    curve.plot(values.sigmas, values.half_mmd2, color=SEQUENCE[2], marker=".", label="½MMD²")
    curve.axvline(1, color="0.85", linewidth=0.8, zorder=0)
    label(curve, "standard deviation of Q", "divergence", "equal at 1")
    legend(curve, loc="upper right")
    return figure


def _normals(seed: int, n: int) -> tuple[Tensor, Tensor]:
    standard = Mixture((0.0,), (1.0,))
    return standard.sample(n, generator(seed, "widths/p")), standard.sample(n, generator(seed, "widths/q"))


class Bounded(NamedTuple):
    """KALE(P, Q) and its bound as Q moves, all (k,) in float64."""

    shifts: Tensor
    kale: Tensor
    w1: Tensor
    lipschitz: Tensor
    """L = max |h'| over the line between the outermost samples."""


def lipschitz_constant(found: Estimate, low: float, high: float, num_points: int = 2000) -> float:
    """max |h'| of a witness on the line, over a fine grid."""
    points = torch.linspace(low, high, num_points, dtype=torch.float64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(found.witness(points).sum(), points)
    return float(slope.abs().max())


def below_w1(seed: int = 0, reg: float = 0.1, num_samples: int = 300, sigma: float = 1.0) -> Bounded:
    """KALE, W₁ and L of P = N(0, ½²) and Q, other draws of it moved by each shift."""
    shifts = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.75, 0.5, 0.25, 0.1, 0.0], dtype=torch.float64)
    x, y = (0.5 * normal for normal in _normals(seed, num_samples))
    rows = []
    for shift in shifts.tolist():
        found = kale(x, y + shift, Gaussian(sigma), reg)
        both = torch.cat([x, y + shift])
        slope = lipschitz_constant(found, float(both.min()), float(both.max()))
        rows.append([found.value, wasserstein1(x, y + shift).value, slope])
    return Bounded(shifts, *torch.tensor(rows, dtype=torch.float64).T)


def kale_below_w1(seed: int = 0, reg: float = 0.1, num_samples: int = 300, sigma: float = 1.0) -> Figure:
    """KALE ≤ L·W₁, L the witness's Lipschitz constant, so that KALE vanishes as Q goes to P weakly.

    Args:
        seed: of the samples.
        reg: the penalty λ.
        num_samples: of each law.
        sigma: width of the Gaussian kernel.
    """
    found = below_w1(seed, reg, num_samples, sigma)
    figure, ((values, slopes),) = panels(1, 2, height=3.0, width_ratios=(1.4, 1))
    values.plot(found.shifts, found.lipschitz * found.w1, color=SEQUENCE[3], marker=".", label="$L · W_1$")
    values.plot(found.shifts, found.w1, color=SEQUENCE[1], marker=".", label="$W_1$")
    values.plot(found.shifts, found.kale, color=SEQUENCE[0], marker=".", label=f"KALE(P, Q), λ = {reg:g}")
    values.set_yscale("log")
    label(values, "distance of Q's mean from P's", "divergence", "KALE below its bound")
    legend(values, loc="lower right")
    slopes.plot(found.shifts, found.lipschitz, color=WITNESS, marker=".")
    slopes.set_ylim(bottom=0)
    label(slopes, "distance of Q's mean from P's", "$L = \\max |h'|$", "slope of the witness")
    return figure
