"""How much of a known truth a trained model recovered: the base's parameters, the energy along the latent, log Z."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.known import Known
from ..gebm import GEBM, call_base, call_energy
from ..noise import BlockNoise
from ..samplers.gradients import sampling_mode
from .likelihood import log_partition


def recovery(gebm: GEBM, truth: Known, noise: BlockNoise, num_samples: int = 20_000) -> dict[str, Any]:
    """Learned against true, as plain numbers for `summary.json`.

    Args:
        gebm: a model whose base has the truth's parameters in its `support()`, and the truth's latents.
        truth: where the data come from.
        noise: of base samples and annealed chains.
        num_samples: base samples behind the regression and the Monte-Carlo log Z; a tenth as many annealed chains.
    """
    energy = _regression(gebm, truth, noise.substream("regression"), num_samples)
    exact, relative_variance = quadrature_log_partition(gebm, truth)
    estimates: dict[str, Any] = {}
    for method in ("learned", "monte_carlo", "ais"):
        n = num_samples // 10 if method == "ais" else num_samples
        estimates[method] = log_partition(gebm, noise.substream(method), method, num_samples=n)._asdict()
        estimates[method]["error"] = estimates[method]["value"] - exact
    return {
        "parameters": {
            name: _parameter(gebm, name, value, name in truth.signless) for name, value in truth.parameters.items()
        },
        "energy": energy,
        "log_partition": {"quadrature": exact, "relative_variance": relative_variance, **estimates},
    }


def _parameter(gebm: GEBM, name: str, true: Tensor, signless: bool) -> dict[str, Any]:
    support: Any = gebm.base.support
    learned = support()[name].detach().double().cpu()
    if signless and learned @ true < 0:
        learned = -learned
    return {"true": true.tolist(), "learned": learned.tolist(), "error": (learned - true).abs().max().item()}


def _regression(gebm: GEBM, truth: Known, noise: BlockNoise, num_samples: int) -> dict[str, float]:
    """Slope and R² of the centred learned energy E(B(z)) on the centred optimal one, −log dP/dQ through the latent, over z ~ η."""
    z = gebm.prior.sample(num_samples, noise)
    learned = energies(gebm, z)
    learned = learned - learned.mean()
    optimal = -truth.log_ratio(z.double())
    optimal = optimal - optimal.mean()
    slope = (learned @ optimal / (optimal @ optimal)).item()
    residual = (learned - slope * optimal).square().sum() / learned.square().sum()
    return {"slope": slope, "r2": 1 - residual.item(), "num_samples": num_samples}


def quadrature_log_partition(gebm: GEBM, truth: Known, **settings: int) -> tuple[float, float]:
    """log E_η[exp(−E(B(z)))] of the learned energy, and CV²(e^{−E}), by quadrature over the latent."""
    z, weights = truth.quadrature(**settings)
    log_terms = -energies(gebm, z.to(gebm.log_partition)) + weights.to(gebm.log_partition.device).log()
    log_z = torch.logsumexp(log_terms, 0)
    second = torch.logsumexp(2 * log_terms - weights.to(log_terms).log(), 0)
    return log_z.item(), torch.expm1(second - 2 * log_z).item()


def energies(gebm: GEBM, z: Tensor, chunk: int = 4096) -> Tensor:
    """E(B(z)) (n,) in float64 of latents (n, d), networks in eval mode."""
    with sampling_mode(gebm), torch.no_grad():
        return torch.cat([call_energy(gebm.energy, call_base(gebm.base, part)).double() for part in z.split(chunk)])
