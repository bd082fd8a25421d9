"""Have chains converged, and what are they worth: split R-hat and bulk effective sample size, as arviz defines them."""

from __future__ import annotations

import math

import torch
from scipy.special import ndtri
from torch import Tensor


def split_rhat(trace: Tensor) -> Tensor:
    """(d,) split R-hat of a trace (steps, chains, d) (Gelman et al. 2013; arviz: `rhat(method="split")`).

    Each chain is cut into halves; with W the mean variance within them and B their length times the variance of their
    means, R-hat = sqrt((B/W + steps − 1)/steps), steps being a half's. NaN for fewer than 4 steps.
    """
    halves = _halves(trace)
    n = halves.shape[0]
    if n < 2:
        return torch.full(trace.shape[2:], math.nan, dtype=torch.float64)
    between = n * halves.mean(0).var(0)
    within = halves.var(0).mean(0)
    return ((between / within + n - 1) / n).sqrt()


def effective_sample_size(trace: Tensor) -> Tensor:
    """(d,) bulk effective sample size of a trace (steps, chains, d) (Vehtari et al., Bayesian Analysis 2021; arviz: `ess`).

    Of the rank-normalised half chains: their number of draws over τ = −1 + 2Σρ_t, the sum cut by Geyer's initial monotone
    sequence. NaN for fewer than 4 steps.
    """
    halves = _halves(trace)
    n, chains, d = halves.shape
    if n < 2:
        return torch.full((d,), math.nan, dtype=torch.float64)
    defined = halves.isfinite().all(0).all(0)
    scores = _normal_scores(halves.reshape(n * chains, d)).view(n, chains, d)
    covariance = _autocovariance(scores).mean(1)
    within = covariance[0] * n / (n - 1)
    plus = covariance[0] + (scores.mean(0).var(0) if chains > 1 else 0.0)
    # A coordinate that never moves has no autocorrelation to speak of; arviz counts its draws.
    rho = torch.where(plus > 0, 1 - (within - covariance) / plus, torch.zeros_like(covariance))
    taus = [_tau(rho[:, i].tolist(), n * chains) if defined[i] else math.nan for i in range(d)]
    return n * chains / torch.tensor(taus, dtype=torch.float64)


def _halves(trace: Tensor) -> Tensor:
    if trace.dim() != 3:
        raise ValueError(f"a trace has the shape (steps, chains, d), not {tuple(trace.shape)}")
    half = trace.shape[0] // 2
    x = trace.detach().double().cpu()
    return torch.cat([x[:half], x[len(x) - half :]], 1)


def _normal_scores(x: Tensor) -> Tensor:
    """Column by column, Φ⁻¹((rank − 3/8)/(n + 1/4)), with mean ranks for ties."""
    columns = []
    for column in x.T:
        _, inverse, counts = torch.unique(column, return_inverse=True, return_counts=True)
        rank = (counts.cumsum(0) - (counts.double() - 1) / 2)[inverse]
        columns.append(torch.from_numpy(ndtri(((rank - 0.375) / (len(column) + 0.25)).numpy())))
    return torch.stack(columns, 1)


def _autocovariance(x: Tensor) -> Tensor:
    n = x.shape[0]
    spectrum = torch.fft.rfft(x - x.mean(0), 2 * n, dim=0)
    return torch.fft.irfft(spectrum.abs().square(), 2 * n, dim=0)[:n] / n


def _tau(rho: list[float], total: int) -> float:
    """1 + 2Σρ_t over Geyer's initial monotone sequence of pairs, of the autocorrelations of half chains, `total` draws in all."""
    n = len(rho)
    if any(math.isnan(r) for r in rho):
        return math.nan
    kept = [1.0, rho[1]] + [0.0] * n
    even, odd, t = 1.0, rho[1], 1
    while t < n - 3 and even + odd > 0:
        even, odd = rho[t + 1], rho[t + 2]
        if even + odd >= 0:
            kept[t + 1], kept[t + 2] = even, odd
        t += 2
    last = t - 2
    if even > 0:
        kept[last + 1] = even
    for t in range(1, last - 1, 2):
        if kept[t + 1] + kept[t + 2] > kept[t - 1] + kept[t]:
            kept[t + 1] = kept[t + 2] = (kept[t - 1] + kept[t]) / 2
    tau = -1 + 2 * sum(kept[: last + 1]) + kept[last + 1]
    return max(tau, 1 / math.log10(total))
