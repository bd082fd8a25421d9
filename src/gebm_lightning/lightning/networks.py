"""How the networks that are trained are held and run: memory format and compiler."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from ..errors import UserError
from ..objectives import Objective
from ..samplers.precision import allow_variants


class Networks(pl.Callback):
    """Brings base and critic into shape before training begins.

    Args:
        channels_last: hold weights of convolutions, and with them images, as (n, H, W, C).
        compile: `torch.compile` the base, and the critic where its loss has no second derivatives, which compiled code has not.

    Raises:
        UserError: a setting that is no truth value, or nothing that could be compiled.
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
            chosen = compilable(pl_module.objective)
            if not any(chosen):
                raise UserError(
                    f"trainer.compile=true leaves nothing to compile with {type(pl_module.objective).__name__}: its losses are "
                    "densities or second derivatives; leave it false"
                )
            # What an earlier run in this process compiled counts against torch's limit of variants.
            torch._dynamo.reset()
            allow_variants()
            for network, wanted in zip(networks, chosen, strict=True):
                if wanted:
                    network.compile()


def compilable(objective: Objective) -> tuple[bool, bool]:
    """Whether the base's loss needs its forward pass, and the critic's no more than its outputs: what can be compiled."""
    kind = type(objective)
    base = kind.direct_base_loss is Objective.direct_base_loss
    scaled = kind.scale is not Objective.scale and getattr(objective, "scaled", True) is not None
    penalised = any(penalty is not None for penalty in objective.penalties.values())
    return base, base and not (kind.direct_loss is not Objective.direct_loss or scaled or penalised)
