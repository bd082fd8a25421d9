"""Particles on their way to three rings, by the gradient flows of MMD and of KALE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from matplotlib.figure import Figure

from ..divergences.kernels import Gaussian
from ..transports import Flow, KALEFlow, MMDFlow
from ..transports.rings import three_rings
from .style import SEQUENCE, P, Q, label, legend, panels, scatter

KERNEL = Gaussian(math.sqrt(0.05))
"""exp(−‖x − y‖²/.1)"""
SHOWN = (0.0, 0.1, 0.3, 1.0)
"""Shares of the steps after which the particles are shown."""


@lru_cache(maxsize=4)
def moved(flow: MMDFlow | KALEFlow, num_steps: int, seed: int, per_ring: int) -> Flow:
    """The flow of the published experiment, traced at each hundredth of the steps; seed 42 draws its particles."""
    particles, target = three_rings(per_ring, seed=seed)
    return flow.run(
        particles, target, num_steps, torch.Generator().manual_seed(seed), keep_every=max(num_steps // 100, 1)
    )


def mmd_flow(
    seed: int = 42, num_steps: int = 1000, step_size: float = 1e-3, noise: float = 0.0, per_ring: int = 80
) -> Figure:
    """Particles Y ← Y − γ∇f(Y + βU) down ½MMD² to three rings (Arbel, Korba, Salim & Gretton, NeurIPS 2019).

    Args:
        seed: of the particles' first places, and of the noise.
        num_steps: of the flow.
        step_size: γ.
        noise: β.
        per_ring: points of the target on a ring.
    """
    flow = MMDFlow(KERNEL, step_size, noise)
    return _draw(moved(flow, num_steps, seed, per_ring), num_steps, seed, per_ring, "½MMD²")


def kale_flow(
    seed: int = 42,
    num_steps: int = 1000,
    reg: float = 1e-3,
    step_size: float = 1e-4,
    noise: float = 0.0,
    per_ring: int = 80,
) -> Figure:
    """Particles down (1 + λ)·KALE to three rings (Glaser, Arbel & Gretton, NeurIPS 2021).

    Args:
        seed: of the particles' first places, and of the noise.
        num_steps: of the flow.
        reg: λ.
        step_size: γ.
        noise: β.
        per_ring: points of the target on a ring.
    """
    flow = KALEFlow(KERNEL, reg, step_size, noise)
    return _draw(moved(flow, num_steps, seed, per_ring), num_steps, seed, per_ring, f"(1 + λ) KALE, λ = {reg:g}")


def _draw(flow: Flow, num_steps: int, seed: int, per_ring: int, loss: str) -> Figure:
    assert flow.trace is not None
    _, target = three_rings(per_ring, seed=seed)
    every = max(num_steps // 100, 1)
    shown = _iterations(num_steps, every)
    figure, (axes,) = panels(1, len(shown) + 1, height=2.8, width_ratios=[1] * len(shown) + [2])
    for i, (ax, step) in enumerate(zip(axes, shown, strict=False)):
        scatter(ax, target, P, "target P", size=4, alpha=0.6)
        scatter(ax, flow.trace[step // every], Q, "particles", size=4, alpha=0.8)
        ax.set(xlim=(-0.55, 0.55), ylim=(-2.0, 0.45), xticks=[-0.5, 0.5], aspect="equal")
        label(ax, "$x_1$", "$x_2$" if i == 0 else "", f"step {step}")
        if i:
            ax.set_yticklabels([])
    curve = axes[-1]
    curve.plot(torch.arange(num_steps + 1), flow.losses, color=SEQUENCE[1])
    for step in shown:
        curve.plot(step, float(flow.losses[step]), color=SEQUENCE[1], marker="o", markersize=4)
    curve.set_yscale("log")
    label(curve, "step", loss, f"{float(flow.losses[0]):.3g} → {float(flow.losses[-1]):.3g}")
    legend(curve, handles=axes[0].collections, loc="upper right", markerscale=2)
    return figure


def _iterations(num_steps: int, every: int, shares: Sequence[float] = SHOWN) -> list[int]:
    return [round(share * num_steps / every) * every for share in shares]
