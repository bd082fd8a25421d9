"""Scores for data whose modes are known, and the exact Wasserstein distance of two small samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UserError


def mode_histogram(
    x: Tensor, means: Tensor, sigma: float, radius: float = 4.0, weights: Tensor | None = None
) -> Tensor:
    """(k,) masses of samples x (n, d) by their nearest mean, of those within radius·σ of it only.

    Args:
        x: samples (n, d); one that is not finite is near no mean.
        means: (k, d).
        sigma: of every mode.
        radius: in units of σ.
        weights: (n,) masses of the samples, such as self-normalised importance weights; None for 1/n each.

    Returns:
        float64 masses, whose sum is the share of high quality.

    Raises:
        UserError: samples and means have different dimensions, or there are none.
    """
    if x.dim() != 2 or x.shape[1] != means.shape[1] or len(x) == 0:
        raise UserError(
            f"modes in {means.shape[1]} dimensions score points (n, {means.shape[1]}), not {tuple(x.shape)}"
        )
    x, means = x.double(), means.to(x.device, torch.float64)
    mass = x.new_full((len(x),), 1 / len(x)) if weights is None else weights.to(x) / weights.to(x).sum()
    # Not through a matrix product, which loses what σ is small against.
    distance, nearest = torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    return x.new_zeros(len(means)).index_add(0, nearest, mass * (distance <= radius * sigma))


def total_variation(p: Tensor, q: Tensor) -> float:
    """½ Σ |p − q| of two histograms (k,), each normalised first."""
    return 0.5 * (p / p.sum() - q / q.sum()).abs().sum().item()


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """½ KL(p‖m) + ½ KL(q‖m), m = (p + q)/2, in nats, of two histograms (k,), each normalised first."""
    p, q = p.double() / p.sum(), q.double() / q.sum()
    m = (p + q) / 2
    return 0.5 * (torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).nansum().item()


def mode_scores(
    x: Tensor, means: Tensor, sigma: float, radius: float = 4.0, weights: Tensor | None = None
) -> dict[str, float]:
    """Quality and coverage of samples of a mixture of equally likely modes, arguments as of `mode_histogram`.

    Returns:
        `high_quality`, the share of samples within radius·σ of the nearest mean; `modes`, how many have at least one such
        sample; `mode_js`, the Jensen–Shannon divergence in nats of their histogram from the uniform one, log 2 at worst,
        which is also its value where no sample is of high quality; `mode_reverse_kl`, KL(p‖uniform) in nats of the histogram
        of all samples by their nearest mean (Lin et al., PacGAN, NeurIPS 2018, §4.1).
    """
    histogram = mode_histogram(x, means, sigma, radius, weights)
    share = histogram.sum().item()
    js = jensen_shannon(histogram, torch.ones_like(histogram)) if share > 0 else math.log(2)
    nearest = mode_histogram(x, means, sigma, math.inf, weights)
    p = nearest / nearest.sum()
    # Of samples none of which is finite, the worst: all in one place.
    reverse_kl = torch.xlogy(p, p * len(p)).sum().item() if nearest.sum() > 0 else math.log(len(p))
    return {
        "high_quality": share,
        "modes": float((histogram > 0).sum().item()),
        "mode_js": js,
        "mode_reverse_kl": reverse_kl,
    }


def wasserstein1_2d(x: Tensor, y: Tensor, n: int = 2000) -> float:
    """Exact W₁ with the Euclidean cost between the first n samples of each side, (m, d) and (k, d), by linear programming.

    Between two samples of one law it is not zero: compare it with that of two real samples of the same size.

    Raises:
        UserError: a side is empty, has other dimensions, or numbers that are not finite.
        RuntimeError: the solver did not end at the optimum.
    """
    import ot

    a, b = (side[:n].flatten(1).double().cpu() for side in (x, y))
    if not len(a) or not len(b) or a.shape[1] != b.shape[1] or not (a.isfinite().all() and b.isfinite().all()):
        raise UserError(f"wasserstein1_2d compares finite points (n, d), not {tuple(x.shape)} with {tuple(y.shape)}")
    cost = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    value, log = ot.emd2([], [], cost, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"the optimal transport was not found: {log['warning']}")
    return float(value)
