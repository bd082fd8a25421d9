"""Stops a run whose numbers are no longer finite, before they reach a checkpoint."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from ..errors import UserError
from ..lightning.module import GEBMModule
from .cadence import BaseUpdateCallback


class NonFiniteGuard(BaseUpdateCallback):
    """Raises as soon as a loss, penalty, bound or gradient norm of the last step is NaN or infinite."""

    def __init__(self, every_n_base_updates: int = 1) -> None:
        super().__init__(every_n_base_updates)

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        values = torch.stack([v.float() for v in module.logs.values()])
        if not torch.isfinite(values).all():
            raise non_finite(module, ", ".join(k for k, v in module.logs.items() if not torch.isfinite(v)))


def check_parameters(module: GEBMModule) -> None:
    """Raise if any parameter is NaN or infinite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise non_finite(module, name)


def non_finite(module: GEBMModule, what: Any) -> UserError:
    """The error for numbers that left the finite ones."""
    return UserError(
        f"training diverged: {what} is not finite at base update {module.base_updates}; the last checkpoint is from "
        "before; lower the learning rates (optim.energy.lr, optim.base.lr) or raise objective.penalties.gradient.weight"
    )
