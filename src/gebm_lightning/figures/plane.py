"""What the energy adds to the base in the plane: right support, wrong support, and data on a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..divergences import wasserstein1
from ..gebm import GEBM
from ..noise import BlockNoise
from ..samplers import SIR, BaseSampler
from .laws import generator
from .models import TARGET, Bimodal, Law, on_a_line, right_support, wrong_support
from .style import INCREASED, MODEL, SMALL, P, Q, label, legend, panels, percent, plane, scatter


class Laws(NamedTuple):
    """Samples (n, 2) of the data, of the base and of the model at equilibrium."""

    data: Tensor
    base: Tensor
    gebm: Tensor


def draw(gebm: GEBM, law: Law, seed: int, num_samples: int) -> Laws:
    """Fresh samples of all three, the model's by self-normalised importance resampling of 20,000 base samples."""
    base = BaseSampler().refine(gebm, num_samples, BlockNoise(seed, stream="figures/base"))
    model = SIR(pool=20_000).refine(gebm, num_samples, BlockNoise(seed, stream="figures/gebm"))
    return Laws(law(num_samples, generator(seed, "plane/data")), base.x, model.x)


def log_weight_map(ax: Axes, gebm: GEBM, limit: float, num: int = 121, bar: bool = True) -> None:
    """log dQ_{B,E}/dQ = −E − c over the square: orange where the model has more mass than its base, blue where less."""
    ticks = torch.linspace(-limit, limit, num)
    points = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        values = gebm.log_weights(points).view(num, num).T
        on_base = gebm.log_weights(gebm.sample_base(2000, generator(0, "map"))).abs()
    most = math.ceil(2 * float(on_base.quantile(0.95))) / 2
    levels = torch.linspace(-most, most, 16).tolist()
    image = ax.contourf(ticks, ticks, values.numpy(), levels, cmap=INCREASED, extend="both")
    if bar:
        scale = ax.figure.colorbar(image, ax=ax, shrink=0.9, ticks=[-most, -most / 2, 0, most / 2, most])
        scale.set_label("log-energy $-E - c$", fontsize=SMALL)
        scale.ax.tick_params(labelsize=SMALL)


def right_support_wrong_mass(seed: int = 0, num_samples: int = 1000) -> Figure:
    """A base on the data's ring with its mass in the wrong places, and what the energy makes of it.

    Args:
        seed: of the energy, its training and all samples.
        num_samples: of each law.
    """
    return _four(right_support(seed), seed, num_samples, 1.6)


def wrong_support_wrong_mass(seed: int = 0, num_samples: int = 1000) -> Figure:
    """A base that lies elsewhere than the data: the energy prefers what is nearest to them, and can do no more.

    Args:
        seed: of the energy, its training and all samples.
        num_samples: of each law.
    """
    return _four(wrong_support(seed), seed, num_samples, 2.3)


def _four(gebm: GEBM, seed: int, num_samples: int, limit: float) -> Figure:
    laws = draw(gebm, TARGET, seed, num_samples)
    figure, axes = panels(2, 2, width=6.6, height=6.2, layout="compressed")
    data, base, model, energy = axes.flat
    for ax, points, color, name in (
        (data, laws.data, P, "data P"),
        (base, laws.base, Q, "base Q"),
        (model, laws.gebm, MODEL, "GEBM"),
    ):
        scatter(ax, points, color)
        told = "" if ax is data else f", $W_1$ = {float(wasserstein1(laws.data, points).value):.2f}"
        plane(ax, limit, f"{name}: {percent(TARGET.shares(points))}{told}")
    log_weight_map(energy, gebm, limit)
    for points, color, name in ((laws.data[:300], P, "P"), (laws.base[:300], Q, "Q")):
        scatter(energy, points, color, name, size=4, alpha=0.7)
    plane(energy, limit, "orange: increased, blue: reduced")
    legend(energy, loc="upper right", markerscale=2)
    return figure


def toy_on_a_line(seed: int = 0, num_samples: int = 1000, others: Mapping[str, Tensor] | None = None) -> Figure:
    """Data on a line in the plane, a GAN's samples (the base alone) and the GEBM's, and their mass along the line.

    Args:
        seed: of the networks, their training and all samples.
        num_samples: of each law.
        others: samples (n, 2) of further models by name, each of which gets a column of its own.
    """
    law = Bimodal()
    laws = draw(on_a_line(seed), law, seed, num_samples)
    columns = {"data": laws.data, "GAN: the base alone": laws.base, **(others or {}), "GEBM": laws.gebm}
    colors = {"data": P, "GAN: the base alone": Q, "GEBM": MODEL}
    figure, axes = panels(2, len(columns), width=7.5, height=4.6, sharey="row", height_ratios=(1.4, 1))
    edges = torch.linspace(-2.4, 2.4, 49).numpy()
    truth = law.place(law(50_000, generator(seed, "line/truth")))[0].numpy()
    for i, (name, points) in enumerate(columns.items()):
        top, bottom = axes[:, i]
        scatter(top, points, colors.get(name, "0.5"))
        plane(top, 2.2, name)
        along, off = law.place(points)
        bottom.hist(along.numpy(), edges, density=True, color=colors.get(name, "0.5"), alpha=0.5)
        bottom.hist(truth, edges, density=True, color=P, histtype="step", linewidth=1.2, label="P")
        label(
            bottom, "place along the line", "density" if i == 0 else "", f"off the line: {float(off.abs().mean()):.3f}"
        )
        if i:
            top.set_ylabel("")
        else:
            legend(bottom, loc="upper right")
    return figure
