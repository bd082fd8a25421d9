"""Convex duality: φ by its tangents, and the variational bound that closes on a φ-divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..divergences import PHI, Phi, f_divergence, f_divergence_of_densities, grid
from ..networks.mlp import MLPEnergy
from ..noise import stable_seed
from .laws import Mixture, generator
from .style import SEQUENCE, SMALL, WITNESS, P, Q, density, label, legend, panels

NUMERATOR, DENOMINATOR = Mixture((-0.8, 1.2), (0.5, 0.5), (0.6, 0.4)), Mixture((0.0,), (1.2,))
"""P and Q of the bound."""


def touching_point(phi: Phi, slope: float) -> float:
    """u at which the tangent of this slope touches φ: (φ*)'(t)."""
    t = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
    (u,) = torch.autograd.grad(phi.conjugate(t), t)
    return float(u)


def biconjugate(phi: Phi, u: Tensor, slopes: Tensor) -> Tensor:
    """(n,) max over slopes t (k,) of ut − φ*(t) at u (n,): the upper envelope of the tangents."""
    return (u[:, None] * slopes - phi.conjugate(slopes)).amax(1)


def fenchel_dual(seed: int = 0, phi: str = "kl", slope: float = 1.6) -> Figure:
    """φ*(t) as minus the intercept of the tangent of slope t, and φ** = φ as the envelope of all tangents.

    Args:
        seed: not used, nothing is drawn at random.
        phi: key in `PHI`.
        slope: t.
    """
    f = PHI[phi]
    u = torch.linspace(0.001, 3, 300, dtype=torch.float64)
    at = touching_point(f, slope)
    intercept = -float(f.conjugate(torch.tensor(slope, dtype=torch.float64)))
    figure, ((left, right),) = panels(1, 2, height=3.2, sharey=True)
    left.plot(u, f.phi(u), color=WITNESS, label="φ(u)")
    left.plot(u, slope * u + intercept, color=SEQUENCE[4], label=f"tangent of slope $t$ = {slope:g}")
    left.plot([at], [slope * at + intercept], color=SEQUENCE[4], marker="o", markersize=5)
    left.plot([0], [intercept], color=SEQUENCE[1], marker="s", markersize=6, linestyle="", clip_on=False, zorder=5)
    note = f"$-φ^*(t) = {intercept:.2f}$"
    left.text(0.15, intercept, note, fontsize=9, color=SEQUENCE[1], va="top")
    label(left, "$u$", "", "the dual is an intercept")
    slopes = f.derivative(torch.logspace(-2.5, 0.6, 15, dtype=torch.float64))
    for i, t in enumerate(slopes.tolist()):
        line = t * u - float(f.conjugate(torch.tensor(t, dtype=torch.float64)))
        right.plot(u, line, color=SEQUENCE[1], alpha=0.45, linewidth=0.8, label="tangents" if i == 0 else None)
    right.plot(u, biconjugate(f, u, slopes), color=SEQUENCE[4], linewidth=2, label=f"maximum of {len(slopes)} tangents")
    right.plot(u, f.phi(u), color=WITNESS, linestyle="--", label="φ(u) = φ**(u)")
    label(right, "$u$", "", "φ** = φ")
    low, high = float(f.phi(u).min()), float(f.phi(u).max())
    for ax in (left, right):
        ax.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        ax.axvline(0, color="0.85", linewidth=0.8, zorder=0)
        ax.set_xlim(-0.08, 3)
        ax.set_ylim(min(low, intercept) - 0.9, high + 0.2)
        legend(ax, loc="upper left")
    left.set_ylabel("φ and its tangents")
    return figure


class Bounds(NamedTuple):
    """The bound E_P T − E_Q φ*(T), by quadrature, of critics that approach T = φ'(p/q)."""

    divergence: float
    exponents: Tensor
    """(k,) a, of the critics φ'((p/q)^a)."""
    family: Tensor
    """(k,) their bounds."""
    steps: Tensor
    """(m,) steps of training of a network T."""
    trained: Tensor
    """(m,) its bounds."""
    critics: dict[int, Tensor]
    """(400,) T at some of the steps, on the nodes."""
    optimum: Tensor
    """(400,) φ'(p/q) on the nodes."""
    nodes: Tensor
    """(400, 1)"""


def bounds(
    seed: int = 0, phi: str = "kl", num_steps: int = 400, shown: Sequence[int] = (0, 20, 80, 400), batch: int = 512
) -> Bounds:
    """Bounds of a family of critics and of one that is trained, Adam on minus the bound of fresh samples."""
    f = PHI[phi]
    nodes, volume = grid(-5.0, 5.0, 400)
    log_p, log_q = NUMERATOR.log_prob(nodes), DENOMINATOR.log_prob(nodes)
    exact = f_divergence_of_densities(NUMERATOR.log_prob, DENOMINATOR.log_prob, f, nodes, volume)

    def bound(critic: Tensor) -> Tensor:
        return ((log_p.exp() * critic - log_q.exp() * f.conjugate(critic)) * volume).sum()

    exponents = torch.linspace(0, 2, 41, dtype=torch.float64)
    family = torch.stack([bound(f.derivative((a * (log_p - log_q)).exp())) for a in exponents])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed("figures", "bound", seed))
        network = MLPEnergy((1,), width=32, depth=2)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    noise = generator(seed, "bound")
    steps, trained, critics = [], [], {}
    for step in range(num_steps + 1):
        if step % 4 == 0 or step in shown:
            with torch.no_grad():
                critic = f.activation(network(nodes.float())).double()
            steps.append(step)
            trained.append(bound(critic))
            if step in shown:
                critics[step] = critic
        x, y = NUMERATOR.sample(batch, noise).float(), DENOMINATOR.sample(batch, noise).float()
        optimiser.zero_grad()
        (-f_divergence(x, y, f, network).value).backward()
        optimiser.step()
    return Bounds(
        float(exact.value),
        exponents,
        family,
        torch.tensor(steps),
        torch.stack(trained),
        critics,
        exact.witness(nodes),
        nodes,
    )


def variational_bound(seed: int = 0, phi: str = "kl", num_steps: int = 400) -> Figure:
    """E_P T − E_Q φ*(T) ≤ D_φ(P‖Q), and equal at T = φ'(p/q) (Nguyen, Wainwright & Jordan 2010).

    Args:
        seed: of the network and of the samples that it is trained on.
        phi: key in `PHI`.
        num_steps: of training.
    """
    found = bounds(seed, phi, num_steps, (0, num_steps // 20, num_steps // 5, num_steps))
    figure, ((critics, family, training),) = panels(1, 3, height=3.1, width_ratios=(1.25, 1, 1))
    at = found.nodes[:, 0]
    seen = (at > -2.6) & (at < 3.0)
    for (step, critic), color in zip(found.critics.items(), SEQUENCE, strict=False):
        critics.plot(at[seen], critic[seen], color=color, linewidth=1.2, label=f"{step} steps")
    critics.plot(at[seen], found.optimum[seen], color=WITNESS, linestyle="--", label="φ'(p/q)")
    below = critics.twinx()
    for law, color, name in ((NUMERATOR, P, "P"), (DENOMINATOR, Q, "Q")):
        density(below, found.nodes[seen], law.log_prob(found.nodes[seen]).exp(), color, name)
    below.set_ylim(0, 2.2)
    below.set_yticks([])
    legend(below, loc="lower right")
    low, high = float(found.optimum[seen].min()), float(found.optimum[seen].max())
    critics.set_ylim(low - 0.8 * (high - low), high + 0.75 * (high - low))
    legend(critics, loc="upper left", ncols=2, columnspacing=0.8)
    label(critics, "$x$", "critic $T(x)$", "a trained critic")
    family.plot(found.exponents, found.family, color=SEQUENCE[1])
    label(family, "exponent $a$", "bound", "critics φ'$((p/q)^a)$")
    training.plot(found.steps, found.trained, color=SEQUENCE[1])
    label(training, "steps of training", "", "that network's bound")
    for ax in (family, training):
        ax.axhline(found.divergence, color=WITNESS, linestyle="--", linewidth=1)
        low = float(found.trained.min()) if ax is training else float(found.family.min())
        ax.set_ylim(min(low, 0) - 0.05 * found.divergence, 1.25 * found.divergence)
        ax.text(
            0.97,
            found.divergence * 1.04,
            f"$D_φ$ = {found.divergence:.3f}",
            fontsize=SMALL,
            ha="right",
            transform=ax.get_yaxis_transform(),
        )
    return figure
