"""Do chains move between modes: how many each visits, and how long the memory of a mode lasts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..gebm import GEBM, call_base
from ..samplers import sampling_mode
from .features import extract


def mode_mixing(which: Tensor, num_modes: int) -> dict[str, float]:
    """From the mode (steps, chains) of each state, as whole numbers below `num_modes`.

    Returns:
        `modes_per_chain`, the mean number of modes that a chain visits; `mode_time`, the autocorrelation time in steps
        1 + 2Σρ_t of the mode, ρ_t = (P(same mode t steps later) − Σp²)/(1 − Σp²), the sum ending with the first pair of
        lags that is not positive. It is at most about the number of steps, where no chain ever leaves its mode, and 1 where
        all states are in one.
    """
    steps, chains = which.shape
    visited = torch.nn.functional.one_hot(which, num_modes).double()
    modes = visited.any(0).sum(1).double().mean().item()
    p = visited.mean((0, 1))
    spread = 1 - p.square().sum()
    if spread < 1e-12:
        return {"modes_per_chain": modes, "mode_time": 1.0}
    # About the mean of all chains, so that one that stays where it is counts as correlated.
    centred = torch.cat([visited - p, torch.zeros_like(visited)])
    spectrum = torch.fft.rfft(centred, dim=0).abs().square()
    covariance = torch.fft.irfft(spectrum, 2 * steps, dim=0)[:steps].sum((1, 2)) / chains
    rho = covariance / torch.arange(steps, 0, -1) / spread
    time = -1.0
    for lag in range(0, steps - 1, 2):
        pair = (rho[lag] + rho[lag + 1]).item()
        if pair <= 0:
            break
        time += 2 * pair
    return {"modes_per_chain": modes, "mode_time": max(time, 1.0)}


@torch.no_grad()
def chain_mixing(
    gebm: GEBM, trace: Tensor, features: nn.Module, modes: tuple[Tensor, float] | None
) -> dict[str, float]:
    """`mode_mixing` of latents (steps, chains, d), by the nearest of known modes or the extractor's own classes; else nothing."""
    class_scores: Any = getattr(features, "class_scores", None)
    if gebm.num_classes is not None or (modes is None and class_scores is None):
        return {}
    device, chosen = gebm.log_partition.device, []
    with sampling_mode(gebm):
        for z in trace.flatten(0, 1).split(512):
            x = call_base(gebm.base, z)
            if modes is not None:
                chosen.append(torch.cdist(x.double().cpu(), modes[0].double()).argmin(1))
            else:
                chosen.append(class_scores(extract(features, [x], device)).argmax(1))
    which = torch.cat(chosen).view(trace.shape[:2])
    return mode_mixing(which, len(modes[0]) if modes is not None else int(which.max()) + 1)
