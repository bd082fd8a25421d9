"""Two integral probability metrics, and the witness functions that attain them, as the law Q moves towards P."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..divergences import Estimate, mmd, wasserstein1
from ..divergences.kernels import Gaussian
from .laws import Mixture, generator
from .style import WITNESS, P, Q, density, label, legend, panels

LAW = Mixture(means=(-1.0, 1.0), sigmas=(0.35, 0.35))
"""P."""
SHIFTS = (1.5, 0.7)
"""Where the mean of Q is: far and near."""
POINTS = torch.linspace(-2.6, 3.2, 401, dtype=torch.float64)[:, None]


class Witness(NamedTuple):
    """A divergence of P and Q from samples, and its witness."""

    law: Mixture
    """Q."""
    value: float
    heights: Tensor
    """(401,) the witness at `POINTS`, less its mean: a constant changes nothing."""


def witnesses(
    divergence: Callable[[Tensor, Tensor], Estimate],
    value: Callable[[Estimate], Tensor],
    seed: int,
    num_samples: int,
    shifts: Sequence[float] = SHIFTS,
) -> list[Witness]:
    """The divergence of P and Q = N(shift, .4²) at each shift, from `num_samples` draws of each law."""
    x = LAW.sample(num_samples, generator(seed, "witness/p"))
    found = []
    for shift in shifts:
        law = Mixture((shift,), (0.4,))
        estimate = divergence(x, law.sample(num_samples, generator(seed, "witness/q")))
        heights = estimate.witness(POINTS)
        found.append(Witness(law, float(value(estimate)), heights - heights.mean()))
    return found


def wasserstein_witnesses(seed: int = 0, num_samples: int = 2000) -> list[Witness]:
    """W₁(P, Q) at each shift."""
    return witnesses(wasserstein1, lambda estimate: estimate.value, seed, num_samples)


def mmd_witnesses(seed: int = 0, num_samples: int = 2000, sigma: float = 0.7) -> list[Witness]:
    """MMD(P, Q), biased and not squared, at each shift; the witness is scaled to norm 1 in the RKHS."""

    def unit(x: Tensor, y: Tensor) -> Estimate:
        estimate = mmd(x, y, Gaussian(sigma), unbiased=False)
        return estimate._replace(witness=lambda points: estimate.witness(points) / estimate.info["mmd"])

    return witnesses(unit, lambda estimate: estimate.info["mmd"], seed, num_samples)


def wasserstein_witness(seed: int = 0, num_samples: int = 2000) -> Figure:
    """The 1-Lipschitz f that attains W₁ = max E_P f − E_Q f (Kantorovich), for Q far from P and near it."""
    return _draw(wasserstein_witnesses(seed, num_samples), "$W_1$", "1-Lipschitz witness")


def mmd_witness(seed: int = 0, num_samples: int = 2000, sigma: float = 0.7) -> Figure:
    """The function f of norm 1 in the RKHS that attains MMD = max E_P f − E_Q f, for Q far from P and near it.

    Args:
        seed: of the samples.
        num_samples: of each law.
        sigma: width of the Gaussian kernel.
    """
    return _draw(mmd_witnesses(seed, num_samples, sigma), "MMD", "witness of norm 1")


def _draw(found: list[Witness], name: str, of: str) -> Figure:
    figure, axes = panels(2, len(found), height=4.0, sharex=True, sharey="row", height_ratios=(1, 1.2))
    for column, witness in enumerate(found):
        top, bottom = axes[:, column]
        density(top, POINTS, LAW.log_prob(POINTS).exp(), P, "P")
        density(top, POINTS, witness.law.log_prob(POINTS).exp(), Q, "Q")
        label(top, "", "density" if column == 0 else "", f"{name} = {witness.value:.2f}")
        bottom.axhline(0, color="0.8", linewidth=0.8)
        bottom.plot(POINTS[:, 0].numpy(), witness.heights.numpy(), color=WITNESS)
        label(bottom, "$x$", of if column == 0 else "")
        legend(top, loc="upper left")
    return figure
