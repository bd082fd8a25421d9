"""Held-out likelihood while training, and the weights that were best by it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytorch_lightning as pl
import torch

from .. import distributed
from ..errors import UserError, check_number
from ..lightning.module import GEBMModule
from ..metrics.likelihood import has_density, mean_nll
from ..noise import BlockNoise
from .cadence import BaseUpdateCallback, log


class BestOnValidation(BaseUpdateCallback):
    """Logs −log p of the val split, and leaves the run with the weights at which it was lowest, before its last checkpoint is written.

    A finished run that is resumed with more updates goes on from those weights.

    Args:
        every_n_base_updates: cadence.
        patience: end the run when so many looks in a row brought nothing better; None to train to the end.
        num_samples: for log Z, where it is not known.

    Raises:
        UserError: the base has no density.
    """

    def __init__(self, every_n_base_updates: int = 50, patience: int | None = None, num_samples: int = 10_000) -> None:
        super().__init__(every_n_base_updates)
        if patience is not None:
            check_number("callbacks.validation.patience", patience, low=1, integer=True)
        check_number("callbacks.validation.num_samples", num_samples, low=2, integer=True)
        self.patience, self.num_samples = patience, num_samples
        self.best, self.best_at, self.looks_since = math.inf, 0, 0
        self._weights: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        if not has_density(pl_module.gebm) or pl_module.gebm.num_classes is not None:
            raise UserError(
                "callbacks.validation needs an unconditional model whose base has a density: set it to null"
            )
        if pl_module.ema is not None:
            raise UserError("callbacks.validation keeps the best weights, not their average: set callbacks.ema=null")

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        noise = BlockNoise(module.seed, stream="validation")
        with distributed.alone():
            try:
                nll = mean_nll(module.gebm, data, "val", noise, self.num_samples)
            except UserError:
                # A density that is NaN at one outlier: not better, and no reason to lose what was best.
                nll = math.inf
        # What one process decides, all do.
        nll = distributed.broadcast(nll)
        log(trainer, {"val/nll": nll}, module)
        if nll < self.best:
            self.best, self.best_at, self.looks_since = nll, module.base_updates, 0
            self._weights = copy.deepcopy(module.gebm.state_dict())
            return
        self.looks_since += 1
        if self.patience is not None and self.looks_since >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # The one epoch's end, where the last checkpoint is written: on_train_end would come too late for it.
        if pl_module.interrupted or not self._weights:
            return
        with torch.no_grad():
            pl_module.gebm.load_state_dict(self._weights)
        log(trainer, {"val/best_nll": self.best, "val/best_base_update": self.best_at}, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_at": self.best_at,
            "looks_since": self.looks_since,
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_at = state_dict["best"], state_dict["best_at"]
        self.looks_since, self._weights = state_dict["looks_since"], state_dict["weights"]
