"""Optimisers, learning-rate schedules and clipping of the two players."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import UserError, check_number, first_line


@dataclass(frozen=True)
class Optim:
    """What each player is optimised with.

    Args:
        energy: partial optimiser of the energy; c is a parameter group of it.
        base: partial optimiser of the base.
        log_partition_lr: learning rate of c.
        energy_scheduler: partial learning-rate scheduler, stepped once each base update; None for a constant rate.
        base_scheduler: the same for the base.
        energy_clip_norm: largest gradient norm of the energy; None for no clipping.
        base_clip_norm: the same for the base.
        energy_weight_clip: None, or the bound c of the critic's parameters, clamped to [−c, c] after every update (Arjovsky,
            Chintala & Bottou, ICML 2017).
    """

    energy: Callable[..., Optimizer]
    base: Callable[..., Optimizer]
    log_partition_lr: float = 1e-2
    energy_scheduler: Callable[..., Any] | None = None
    base_scheduler: Callable[..., Any] | None = None
    energy_clip_norm: float | None = None
    base_clip_norm: float | None = None
    energy_weight_clip: float | None = None

    def __post_init__(self) -> None:
        check_number("optim.log_partition_lr", self.log_partition_lr, low=0)
        for key in ("energy_clip_norm", "base_clip_norm", "energy_weight_clip"):
            if getattr(self, key) is not None:
                check_number(f"optim.{key}", getattr(self, key), above=0)

    def clip_gradients(self, player: str, parameters: list[nn.Parameter]) -> Tensor:
        """The norm of a player's gradient as it was, a scalar on their device; then clip it if `<player>_clip_norm` says so."""
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        clip = getattr(self, f"{player}_clip_norm")
        if clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        return norm

    @torch.no_grad()
    def clip_weights(self, critic: Iterable[nn.Parameter]) -> None:
        """Clamp the critic's parameters if `energy_weight_clip` says so."""
        if self.energy_weight_clip is not None:
            for p in critic:
                p.clamp_(-self.energy_weight_clip, self.energy_weight_clip)

    def configure(
        self, energy: Iterable[nn.Parameter], log_partition: nn.Parameter, base: Iterable[nn.Parameter]
    ) -> tuple[list[Optimizer], list[Any]]:
        """Both optimisers, energy first, and their schedulers.

        Raises:
            UserError: an optimiser or scheduler refuses its settings.
        """
        c = {"params": [log_partition], "lr": self.log_partition_lr, "weight_decay": 0.0}
        optimizers = [
            _make("energy", self.energy, [{"params": list(energy)}, c]),
            _make("base", self.base, [{"params": list(base)}]),
        ]
        schedulers = []
        for player, optimizer in zip(("energy", "base"), optimizers, strict=True):
            make = getattr(self, f"{player}_scheduler")
            if make is not None:
                schedulers.append(_make(f"{player}_scheduler", make, optimizer))
        return optimizers, schedulers


def _make(key: str, make: Callable[..., Any], argument: Any) -> Any:
    try:
        return make(argument)
    except (TypeError, ValueError, LookupError) as error:
        settings = getattr(make, "keywords", {})
        raise UserError(f"optim.{key} cannot be made with {settings}: {first_line(error)}") from error


def step_schedulers(schedulers: Any, optimizers: list[Optimizer], train_mode: str) -> None:
    """Step what schedules Lightning has, one or several, but for those of a player who stays as it is."""
    still = {"energy": 1, "base": 0}.get(train_mode)
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if still is None or scheduler.optimizer is not optimizers[still]:
            scheduler.step()
