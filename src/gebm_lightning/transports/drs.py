"""Discriminator rejection sampling (Azadi et al., ICLR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM, call_base
from ..noise import Generator, rand, shared
from ..samplers.gradients import sampling_mode
from ..samplers.refiner import Samples, chunks
from .space import check_finite, filled, labels_of, latent, merge, per_sample, starts

ESTIMATION_CHUNK = 512
CERTAIN_ROUNDS = 20  # a row that accepts once in R/20 rounds is still empty-handed after R with probability e^{−20}


class Threshold(NamedTuple):
    maximum: float
    """max d over the burn-in."""
    gamma: float
    acceptance: float
    """Mean acceptance over the burn-in, without the maximum itself, which is always accepted."""


@dataclass(frozen=True)
class DRS:
    """Base samples, each accepted with probability σ(F): F = Δ − log(1 − e^{Δ−ε}) − γ, Δ = d − max d, d = −β·E.

    With γ = 0 the probability is e^Δ, and this is exact rejection sampling of the model dQ_{B,E}/dQ ∝ e^d, as far as the
    maximum over the burn-in is one; the paper's γ, a percentile of F over the burn-in, accepts more and flattens the ratio. A
    candidate above the maximum counts as at it. Maximum and γ are estimated once for all samples, for each class of its own
    with an equal part of the burn-in.

    Args:
        percentile: of F over the burn-in, 0 to 100; None for γ = 0.
        num_burn_in: base samples of the burn-in.
        max_rounds: candidates that a sample may take.
        epsilon: ε.
        beta: inverse temperature of the energy.
        chunk: samples drawn side by side; memory, not results, depends on it.
    """

    percentile: float | None = 80.0
    num_burn_in: int = 10_000
    max_rounds: int = 100_000
    epsilon: float = 1e-8
    beta: float = 1.0
    chunk: int = 512

    uses_gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.percentile is not None:
            check_number("sampler.percentile", self.percentile, low=0)
            if self.percentile > 100:
                raise UserError(f"sampler.percentile runs from 0 to 100, not to {self.percentile}")
        check_number("sampler.num_burn_in", self.num_burn_in, low=2, integer=True)
        check_number("sampler.max_rounds", self.max_rounds, low=1, integer=True)
        check_number("sampler.epsilon", self.epsilon, above=0)
        check_number("sampler.beta", self.beta)
        check_number("sampler.chunk", self.chunk, low=1, integer=True)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        """n samples, each with its own candidates; `info` tells the `acceptance`, and what share was `above_maximum`.

        Raises:
            UserError: too few candidates would be accepted, or an energy is not finite.
        """
        with sampling_mode(gebm), torch.no_grad():
            labels = labels_of(gebm, y)
            size = max(self.num_burn_in // (1 if y is None else gebm.num_classes or len(labels)), 2)
            thresholds = {label: self._burn_in(gebm, generator, size, label) for label in labels}
            parts = [
                self._reject(gebm, noise, z, own, thresholds)
                for noise, z, own in starts(gebm, n, generator, self.chunk, y)
            ]
        drawn = merge(parts, beta=self.beta, gradients=0.0)
        candidates = drawn.info.pop("candidates")
        cost = {"acceptance": 1 / candidates, "evaluations": candidates + size * len(labels) / n}
        maxima, gammas = ([getattr(t, key) for t in thresholds.values()] for key in ("maximum", "gamma"))
        return drawn._replace(info=drawn.info | cost | {"maximum": max(maxima), "gamma": sum(gammas) / len(gammas)})

    def _burn_in(self, gebm: GEBM, generator: Generator, size: int, label: int | None) -> Threshold:
        noise, logits = shared(generator, "burn-in" if label is None else f"burn-in/{label}"), []
        for rows, own in chunks(size, noise, ESTIMATION_CHUNK):
            z = gebm.prior.sample(rows.stop - rows.start, own)
            logits.append(latent(gebm, self.beta, z, filled(label, len(z), z.device)).logit(z).double())
        d = torch.cat(logits)
        check_finite("DRS's burn-in", "mend the energy", d[:, None])
        f = self._f(d, d.max())
        gamma = 0.0 if self.percentile is None else torch.quantile(f, self.percentile / 100).item()
        probability = torch.sigmoid(f - gamma)
        acceptance = (probability.sum() - probability.max()).item() / (size - 1)
        threshold = Threshold(d.max().item(), gamma, acceptance)
        if threshold.acceptance * self.max_rounds < CERTAIN_ROUNDS:
            raise UserError(
                f"DRS accepts {threshold.acceptance:.1e} of its candidates, too few for sampler.max_rounds={self.max_rounds}: "
                f"lower sampler.percentile={self.percentile} or sampler.beta={self.beta}"
            )
        return threshold

    def _f(self, d: Tensor, maximum: Tensor) -> Tensor:
        delta = (d - maximum).clamp(max=0)
        return delta - (-torch.expm1(delta - self.epsilon)).log()

    def _reject(
        self, gebm: GEBM, noise: Generator, z: Tensor, y: Tensor | None, thresholds: dict[int | None, Threshold]
    ) -> Samples:
        n, kept = len(z), torch.empty_like(z)
        double = torch.empty(0, dtype=torch.float64, device=z.device)
        maximum, gamma = (
            per_sample({k: getattr(t, key) for k, t in thresholds.items()}, y, double).expand(n)
            for key in ("maximum", "gamma")
        )
        waiting = torch.arange(n, device=z.device)
        candidates = above = 0
        for _ in range(self.max_rounds):
            # Every row draws, whether it waits or not: its stream must not depend on the others'.
            u = rand((n,), noise, z.device, torch.float64)[waiting]
            d = latent(gebm, self.beta, z, None if y is None else y[waiting]).logit(z[waiting]).double()
            check_finite("DRS", "mend the energy", d[:, None])
            accepted = u < torch.sigmoid(self._f(d, maximum[waiting]) - gamma[waiting])
            kept[waiting[accepted]] = z[waiting[accepted]]
            candidates += len(waiting)
            above += int((d > maximum[waiting]).sum())
            waiting = waiting[~accepted]
            if not len(waiting):
                break
            z = gebm.prior.sample(n, noise)
        else:
            raise UserError(
                f"DRS found nothing to accept for {len(waiting)} samples in sampler.max_rounds={self.max_rounds} candidates: "
                f"lower sampler.percentile={self.percentile} or sampler.beta={self.beta}"
            )
        x = call_base(gebm.base, kept, y)
        check_finite("DRS", "mend the base", x)
        return Samples(x, kept, {"candidates": candidates / n, "above_maximum": above / candidates})
