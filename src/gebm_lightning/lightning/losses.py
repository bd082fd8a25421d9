"""Each player's loss from the samples of this process, whose gradients sum over processes to those of the global batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from .. import distributed
from ..gebm import GEBM, call_base, full_precision
from ..noise import BlockNoise
from ..objectives import Objective

Losses = tuple[Tensor, dict[str, Tensor]]
Critic = Callable[[Tensor], Tensor]


def energy_loss(
    objective: Objective, gebm: GEBM, critic: Critic, x_real: Tensor, x_base: Tensor, noise: BlockNoise
) -> Losses:
    """The energy player's loss with its penalties, a scalar, and what to log of it.

    A spectrally normalised weight is computed once for all of it, so its power iteration moves once an update.
    """
    with parametrize.cached():
        return _energy_loss(objective, gebm, critic, x_real, x_base, noise)


def _energy_loss(
    objective: Objective, gebm: GEBM, critic: Critic, x_real: Tensor, x_base: Tensor, noise: BlockNoise
) -> Losses:
    direct = objective.direct_loss(gebm, critic, x_real, noise)
    if direct is None:
        x_seen = objective.perturb(x_real, noise)
        e_real, e_base = (distributed.gather(full_precision(critic(x))) for x in (x_seen, x_base))
        loss, told = objective.energy_loss(e_real, e_base, gebm.log_partition)
        logs = {"loss/energy": loss.detach()}
    else:
        # A mean over this process's samples: its share of the global batch's.
        loss = direct[0] / distributed.world_size()
        told = {k: distributed.all_sum(v / distributed.world_size()) for k, v in direct[1].items()}
        logs = {"loss/energy": distributed.all_sum(loss.detach())}
    logs |= {f"train/{k}": v for k, v in told.items()}
    # Second derivatives and squared norms of gradients lose too much in half precision.
    with torch.autocast(x_real.device.type, enabled=False):
        if (factor := objective.scale(critic, x_real)) is not None:
            loss = loss * factor
        for name, penalty in objective.penalties.items():
            if penalty is None:
                continue
            # One base sample for each real one, whatever number there are.
            value = penalty(critic, x_real, x_base[:: len(x_base) // len(x_real)], noise) / distributed.world_size()
            logs[f"penalty/{name}"] = distributed.all_sum(value.detach())
            loss = loss + value
    return loss, logs


def base_loss(
    objective: Objective, gebm: GEBM, critic: Critic, x_real: Tensor, y: Tensor | None, noise: BlockNoise, copies: int
) -> Losses:
    """The base player's loss with `copies` base samples for each real one, a scalar, and what to log of it."""
    direct = objective.direct_base_loss(gebm, x_real, noise)
    if direct is not None:
        loss = direct[0] / distributed.world_size()
        told = {k: distributed.all_sum(v / distributed.world_size()) for k, v in direct[1].items()}
        return loss, {"loss/base": distributed.all_sum(loss.detach()), **{f"train/{k}": v for k, v in told.items()}}
    z = gebm.prior.sample(copies * len(x_real), noise.shifted((copies - 1) * distributed.rank() * len(x_real)))
    if y is not None:
        y = y.repeat_interleave(copies)
    e_real = None
    if objective.needs_real:
        with torch.no_grad():
            e_real = distributed.gather(full_precision(critic(x_real)))
    e_base = distributed.gather(full_precision(critic(call_base(gebm.base, z, y))))
    if objective.by_likelihood:
        log_base = distributed.gather(full_precision(gebm.base_log_prob(x_real)))
        loss, told = objective.likelihood_loss(log_base, e_base)
    else:
        loss, told = objective.base_loss(e_base, gebm.log_partition, e_real)
    return loss, {"loss/base": loss.detach(), **{f"train/{k}": v for k, v in told.items()}}
