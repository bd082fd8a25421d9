"""KALE: the KL approximate lower-bound estimator, with a learned log-partition (Arbel, Zhou & Gretton, ICLR 2021, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..gebm import log_mean_exp
from .base import Logs
from .donsker_varadhan import DonskerVaradhan


class _LogPartitionTerm(torch.autograd.Function):
    """c + mean exp(−(E + c)) − 1, whose gradient in c is the amortised exp(c − ĉ) − 1.

    The true gradient 1 − exp(ĉ − c) is unbounded below when c lags behind ĉ; the amortised one has the same sign and
    the same root and is never less than −1 (same paper, appendix on amortised estimation).
    """

    @staticmethod
    def forward(ctx: Any, log_partition: Tensor, e_base: Tensor) -> Tensor:
        ctx.save_for_backward(log_partition, e_base)
        return log_partition + torch.exp(-e_base - log_partition).mean() - 1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        log_partition, e_base = ctx.saved_tensors
        to_c = torch.exp(log_partition - log_mean_exp(-e_base)) - 1
        to_energy = -torch.exp(-e_base - log_partition) / e_base.shape[0]
        return grads[0] * to_c, grads[0] * to_energy


@dataclass(frozen=True)
class KALE(DonskerVaradhan):
    """F = −E_P[E + c] − E_Q[exp(−(E + c))] + 1 ≤ L, tight at c = log E_Q[exp(−E)].

    The energy player minimises −F over the energy and c; c's gradient is the amortised one. The base descends on −ĉ as
    for Donsker–Varadhan: the two bounds agree at the optimal c.
    """

    learns_log_partition: ClassVar[bool] = True
    needs_global_batch: ClassVar[frozenset[str]] = frozenset({"log_partition", "base"})

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        loss = e_real.mean() + _LogPartitionTerm.apply(log_partition, e_base)
        c_hat = log_mean_exp(-e_base.detach())
        logs = {
            "kale": -loss.detach(),
            "donsker_varadhan": -e_real.detach().mean() - c_hat,
            "c": log_partition.detach().clone(),
            "c_hat": c_hat,
        }
        return loss, logs
