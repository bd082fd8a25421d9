"""Chains of the GEBM in the plane: cold ones that settle at modes, and ones that move between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..samplers import KLA, sample_chain
from ..samplers.schedules import StepDecay
from .laws import generator
from .models import TARGET, right_support
from .plane import log_weight_map
from .style import MODEL, label, panels, percent, plane, scatter

LIMIT = 1.6
WAYS = ("#000000", "#5E35B1", "#00838F")
"""Colours of single chains."""


class Cooling(NamedTuple):
    """Tempered chains at successive steps."""

    steps: tuple[int, ...]
    x: list[Tensor]
    """(n, 2) at each of the steps."""
    energy: Tensor
    """(k,) their mean energy."""


def cooling(
    seed: int = 0, beta: float = 100.0, steps: Sequence[int] = (0, 10, 50, 1000), num_chains: int = 400
) -> Cooling:
    """KLA from the prior with the paper's settings: λ = 1e-4, friction 100, steps × .1 every 200."""
    gebm, noise = right_support(seed), generator(seed, "cooling")
    z0 = gebm.prior.sample(num_chains, noise)
    seen = {0: z0}

    def keep(step: int, state: NamedTuple, info: object) -> None:
        if step in steps:
            seen[step] = state[0]

    kernel = KLA(step_size=1e-4, friction=100.0)
    sample_chain(
        kernel, gebm.potential(beta), z0, max(steps), generator=noise, schedule=StepDecay(0.1, 200), on_step=keep
    )
    with torch.no_grad():
        x = [gebm.base(seen[step]) for step in steps]
        energy = torch.stack([gebm.energy(points).mean() for points in x])
    return Cooling(tuple(steps), x, energy)


def sampling_at_modes(seed: int = 0, beta: float = 100.0, num_chains: int = 400) -> Figure:
    """Cold chains after successive steps: they descend the energy, which is not sampling the model at β = 1.

    Args:
        seed: of the model and the chains.
        beta: inverse temperature.
        num_chains: how many.
    """
    found = cooling(seed, beta, num_chains=num_chains)
    gebm = right_support(seed)
    figure, (axes,) = panels(1, len(found.steps), width=7.5, height=2.6, layout="compressed")
    for i, (ax, step, x) in enumerate(zip(axes, found.steps, found.x, strict=True)):
        log_weight_map(ax, gebm, LIMIT, bar=False)
        scatter(ax, x, MODEL, size=4)
        plane(ax, LIMIT, f"step {step}\n$E = {float(found.energy[i]):.2f}$\n{percent(TARGET.shares(x))}")
        if i:
            label(ax, "$x_1$", "")
    return figure


class Wandering(NamedTuple):
    """Chains of one friction."""

    friction: float
    trace: Tensor
    """(steps, n, 2) where they were, in the plane."""
    switches: float
    """How often a chain came within .4 of the middle of another mode than the last, on average."""


def wandering(
    seed: int = 0,
    friction: float = 0.05,
    beta: float = 3.0,
    step_size: float = 1e-3,
    num_steps: int = 500,
    num_chains: int = 64,
) -> Wandering:
    """KLA from the same starts, whatever the friction."""
    gebm, noise = right_support(seed), generator(seed, "wandering")
    z0 = gebm.prior.sample(num_chains, noise)
    chain = sample_chain(KLA(step_size, friction), gebm.potential(beta), z0, num_steps, generator=noise, thin=1)
    assert chain.trace is not None
    with torch.no_grad():
        x = gebm.base(torch.cat([z0[None], chain.trace]).flatten(0, 1))
    distance, mode = (t.view(num_steps + 1, num_chains) for t in torch.cdist(x, TARGET.modes).min(1))
    visits = [mode[distance[:, i] < 0.4, i] for i in range(num_chains)]
    switches = sum(int((v[1:] != v[:-1]).sum()) for v in visits) / num_chains
    return Wandering(friction, x.view(num_steps + 1, num_chains, 2), switches)


def moving_between_modes(
    seed: int = 0, frictions: Sequence[float] = (100.0, 0.05), beta: float = 3.0, num_steps: int = 500, drawn: int = 3
) -> Figure:
    """The ways of a few chains through the plane at high and at low friction, all else equal.

    Args:
        seed: of the model and the chains.
        frictions: κ of each panel.
        beta: inverse temperature.
        num_steps: of each chain.
        drawn: chains that are drawn; the rate of switches is that of 64.
    """
    gebm = right_support(seed)
    figure, (axes,) = panels(1, len(frictions), width=7.4, height=3.9, layout="compressed")
    for i, (ax, friction) in enumerate(zip(axes, frictions, strict=True)):
        found = wandering(seed, friction, beta, num_steps=num_steps)
        log_weight_map(ax, gebm, LIMIT, bar=False)
        for way, color in zip(found.trace.transpose(0, 1)[:drawn], WAYS, strict=False):
            ax.plot(*way.numpy().T, color=color, linewidth=0.5, alpha=0.6)
            ax.plot(*way[0].numpy(), color=color, marker="o", markerfacecolor="white", markersize=6)
            ax.plot(*way[-1].numpy(), color=color, marker="o", markersize=6)
        plane(
            ax,
            LIMIT,
            f"friction {friction:g}: {found.switches:.1f} changes of mode\nin {num_steps} steps, β = {beta:g}",
        )
        if i:
            label(ax, "$x_1$", "")
    return figure
