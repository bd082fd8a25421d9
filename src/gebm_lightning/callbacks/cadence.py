"""A callback whose clock is the number of base updates."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from ..errors import UserError
from ..lightning.module import GEBMModule


class BaseUpdateCallback(pl.Callback):
    """Calls `on_base_update` after every `every_n_base_updates`-th base update; None for never."""

    def __init__(self, every_n_base_updates: int | None) -> None:
        if every_n_base_updates is not None and every_n_base_updates < 1:
            raise UserError(f"every_n_base_updates of {type(self).__name__} must be at least 1, or null for never")
        self.every = every_n_base_updates
        self._seen = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._seen = pl_module.base_updates

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.base_updates != self._seen:
            self._seen = pl_module.base_updates
            if self.every is not None and self._seen % self.every == 0:
                self.on_base_update(trainer, pl_module)

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        """What is due."""
        raise NotImplementedError


def log(trainer: pl.Trainer, metrics: dict[str, Any], module: GEBMModule) -> None:
    """Send numbers to every logger, by base update."""
    for logger in trainer.loggers:
        logger.log_metrics({k: float(v) for k, v in metrics.items()}, step=module.base_updates)
