"""Log-likelihood of a GEBM whose base has a density: log q − E − log Z, with log Z learned, by Monte Carlo or by AIS."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM, call_base, call_energy, log_mean_exp
from ..noise import Generator
from ..samplers import HMC, ais_log_z
from ..samplers.gradients import sampling_mode
from ..samplers.refiner import chunks

MIN_EFFECTIVE = 10
METHODS = ("learned", "monte_carlo", "ais", "exact")


class LogPartition(NamedTuple):
    """An estimate of log Z = log E_Q[exp(−E)]."""

    value: float
    standard_error: float | None
    """That of log Z by the delta method; None for the learned c, which has none; 0 where log Z is known."""
    method: str


class LogLikelihood(NamedTuple):
    """Log densities of given samples."""

    values: Tensor
    """(n,) log q(x) − E(x) − log Z, in nats."""
    mean: float
    standard_error: float
    """Over the samples alone; that of log Z is apart."""
    log_partition: LogPartition


def log_partition(
    gebm: GEBM,
    generator: Generator,
    method: str = "monte_carlo",
    num_samples: int = 50_000,
    num_betas: int = 50,
    kernel: Any = None,
) -> LogPartition:
    """log Z of an unconditional model.

    Args:
        gebm: the model.
        generator: where all noise comes from.
        method: "learned" for c, "monte_carlo" for log mean exp(−E) over base samples, "ais" for annealed importance sampling,
            "exact" where the model is normalised by construction, as with a `FlowEnergy`: log Z = 0.
        num_samples: base samples, or annealed chains.
        num_betas: temperatures of AIS, evenly spaced.
        kernel: exact, of AIS; None for `HMC(0.1, 5)`.

    Raises:
        UserError: another method, "exact" where log Z is not known, or an energy that is NaN or −inf at base samples.
    """
    if method not in METHODS:
        raise UserError(f"log Z is estimated by one of {', '.join(METHODS)}, not {method}")
    if method == "learned":
        return LogPartition(gebm.log_partition.item(), None, method)
    if method == "exact":
        if not known_log_partition(gebm):
            raise UserError(
                f"log Z of {type(gebm.energy).__name__} is not known exactly: take another of {', '.join(METHODS)}"
            )
        return LogPartition(0.0, 0.0, method)
    check_number("num_samples", num_samples, low=2, integer=True)
    if method == "ais":
        check_number("num_betas", num_betas, low=1, integer=True)
        betas = [k / num_betas for k in range(1, num_betas + 1)]
        return LogPartition(*ais_log_z(gebm, num_samples, betas, kernel or HMC(0.1, 5), generator), method)
    energies = []
    with sampling_mode(gebm), torch.no_grad():
        for rows, noise in chunks(num_samples, generator, 4096):
            z = gebm.prior.sample(rows.stop - rows.start, noise)
            energies.append(call_energy(gebm.energy, call_base(gebm.base, z)).double())
    log_weights = -torch.cat(energies)
    log_z = log_mean_exp(log_weights)
    if not torch.isfinite(log_z):
        raise UserError("log Z by Monte Carlo is not finite: the energy is NaN or infinite at samples of the base")
    relative = (log_weights - log_z).exp()
    return LogPartition(log_z.item(), (relative.std() / math.sqrt(num_samples)).item(), method)


def has_density(gebm: GEBM) -> bool:
    """Whether the base has a density, so that the model has a log-likelihood."""
    return hasattr(gebm.base, "inverse") or hasattr(gebm.base, "log_prob")


def known_log_partition(gebm: GEBM) -> bool:
    """Whether log Z is 0 by construction: the energy is a flow's against this very base, or flat."""
    normalised = getattr(gebm.energy, "normalised", None)
    return normalised is not None and normalised(gebm.base)


def usual_log_partition(gebm: GEBM, generator: Generator, num_samples: int) -> LogPartition:
    """log Z exactly where it is known, else by Monte Carlo."""
    return log_partition(gebm, generator, "exact" if known_log_partition(gebm) else "monte_carlo", num_samples)


def mean_nll(gebm: GEBM, data: Any, split: str, generator: Generator, num_samples: int) -> float:
    """Mean −log p of a split of a data module, in nats."""
    x = torch.cat([batch.x for batch in data.batches(split)]).to(gebm.log_partition)
    return -log_likelihood(gebm, x, usual_log_partition(gebm, generator, num_samples)).mean


def negative_log_likelihoods(
    gebm: GEBM, data: Any, splits: Iterable[str], generator: Generator, num_samples: int = 50_000
) -> dict[str, Any]:
    """Mean −log p of splits of a data module in nats, of model and base: for `summary.json`. log Z is exact or by Monte Carlo.

    The data's own units are those in which it is served, whitened where it is. A log Z that rests on a handful of samples is no
    estimate: then there is a note in place of the splits.
    """
    z = usual_log_partition(gebm, generator, num_samples)
    told: dict[str, Any] = {"log_partition": z._asdict(), "splits": {}}
    effective = num_samples / (1 + num_samples * (z.standard_error or 0.0) ** 2)
    if effective < MIN_EFFECTIVE:
        told["note"] = f"log Z rests on {effective:.1f} effective samples of {num_samples}: no likelihood is known"
        return told
    for split in splits:
        x = torch.cat([batch.x for batch in data.batches(split)]).to(gebm.log_partition)
        model = log_likelihood(gebm, x, z)
        with sampling_mode(gebm), torch.no_grad():
            base = torch.cat([gebm.base_log_prob(part).double() for part in x.split(4096)])
        told["splits"][split] = {
            "nll": -model.mean,
            "standard_error": model.standard_error,
            "base_nll": -base.mean().item(),
            "num": len(x),
        }
    return told


def log_likelihood(gebm: GEBM, x: Tensor, log_z: LogPartition) -> LogLikelihood:
    """Log densities of x (n, *shape), given log Z.

    Raises:
        UserError: the base has no density, or a sample's density is NaN.
    """
    with sampling_mode(gebm), torch.no_grad():
        try:
            parts = [
                gebm.base_log_prob(part).double() - call_energy(gebm.energy, part).double() for part in x.split(4096)
            ]
        except TypeError as error:
            raise UserError(f"there is no likelihood: {error}") from error
    values = torch.cat(parts) - log_z.value
    if values.isnan().any():
        raise UserError(f"{int(values.isnan().sum())} of {len(x)} samples have a log density that is NaN")
    spread = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return LogLikelihood(values, values.mean().item(), spread, log_z)
