"""How the networks that are trained are held and run: memory format and compiler."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from ..errors import UserError
from ..objectives import Objective


class Networks(pl.Callback):
    """Brings base and critic into shape before training begins.

    Args:
        channels_last: hold weights of convolutions, and with them images, as (n, H, W, C).
        compile: `torch.compile` the base, and the critic where its loss has no second derivatives, which compiled code has not.
    """

    def __init__(self, channels_last: bool = False, compile: bool = False) -> None:
        for key, value in (("channels_last", channels_last), ("compile", compile)):
            if not isinstance(value, bool):
                raise UserError(f"trainer.{key} must be true or false, not {value!r}")
        self.channels_last, self.compile = channels_last, compile

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        networks: list[nn.Module] = [pl_module.gebm.base, pl_module.critic]
        if self.channels_last:
            for network in networks:
                network.to(memory_format=torch.channels_last)
        if self.compile:
            for network in networks if first_order(pl_module.objective) else networks[:1]:
                network.compile()


def first_order(objective: Objective) -> bool:
    """Whether the energy's loss is a function of critic outputs alone, not of the critic's gradients."""
    kind = type(objective)
    direct = kind.direct_loss is not Objective.direct_loss or kind.scale is not Objective.scale
    return not direct and not any(penalty is not None for penalty in objective.penalties.values())
