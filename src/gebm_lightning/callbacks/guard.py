"""Stops a run whose numbers are no longer finite, before they reach a checkpoint."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from ..errors import UserError
from ..lightning.module import GEBMModule
from .cadence import BaseUpdateCallback


class NonFiniteGuard(BaseUpdateCallback):
    """Raises as soon as a loss, penalty, bound or gradient norm of the last step is NaN or infinite.

    On a GPU at the update after that: what it finds is fetched while the next one is being computed, so that nothing waits.
    What is saved meanwhile is looked at by who saves it (`check_parameters`).
    """

    def __init__(self, every_n_base_updates: int = 1) -> None:
        super().__init__(every_n_base_updates)
        self._found: Found | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._found = None

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        before, self._found = self._found, Found(module)
        if before is not None:
            before.check()
        if not module.on_gpu:
            self.on_train_epoch_end(trainer, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        before, self._found = self._found, None
        if before is not None:
            before.check()


class Found:
    """Which of a step's numbers are finite, on its way from the device."""

    def __init__(self, module: GEBMModule) -> None:
        self.names, self.base_updates = list(module.logs), module.base_updates
        finite = torch.isfinite(torch.stack([v.float() for v in module.logs.values()]))
        self.finite = finite.to("cpu", non_blocking=finite.is_cuda)
        self.arrived = torch.cuda.Event() if finite.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def check(self) -> None:
        """Raise for those that are not."""
        if self.arrived is not None:
            self.arrived.synchronize()
        if not self.finite.all():
            what = ", ".join(k for k, finite in zip(self.names, self.finite.tolist(), strict=True) if not finite)
            raise non_finite(what, self.base_updates)


def check_parameters(module: GEBMModule) -> None:
    """Raise if any parameter, or any number of the last step, is NaN or infinite."""
    if module.logs:
        Found(module).check()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise non_finite(name, module.base_updates)


def non_finite(what: str, base_updates: int) -> UserError:
    """The error for numbers that left the finite ones."""
    return UserError(
        f"training diverged: {what} is not finite at base update {base_updates}; the last checkpoint is from "
        "before; lower the learning rates (optim.energy.lr, optim.base.lr) or raise objective.penalties.gradient.weight"
    )
