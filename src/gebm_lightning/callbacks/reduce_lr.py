"""Lowers both learning rates when KID no longer improves."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ..distributed import broadcast
from ..errors import UserError, check_number
from ..lightning.module import GEBMModule
from ..metrics.compare import sample_features
from ..metrics.reference import real_features
from ..metrics.relative_kid import kid_rows, relative_kid_test
from ..samplers import BaseSampler
from .cadence import BaseUpdateCallback, log


class ReduceLROnKID(BaseUpdateCallback):
    """Multiplies all learning rates by `factor` when `patience` tests in a row do not show that the base got better.

    Each test asks whether the base's KID against train images is lower than that of the base `lag` tests ago, by the
    three-sample test of Bounliphone et al. (ICLR 2016), as Bińkowski et al. (ICLR 2018) and the GEBM paper do. After a
    reduction only the last `patience` samples are remembered.

    Args:
        features: the extractor.
        every_n_base_updates: cadence.
        num_samples: real and generated samples of one test, at most as many as there are real ones.
        lag: how many tests back the earlier base lies.
        patience: failures in a row that lower the rates.
        threshold: a p-value above this is a failure.
        factor: what the rates are multiplied by.
    """

    def __init__(
        self,
        features: nn.Module,
        every_n_base_updates: int = 2000,
        num_samples: int = 2048,
        lag: int = 10,
        patience: int = 3,
        threshold: float = 0.1,
        factor: float = 0.8,
    ) -> None:
        super().__init__(every_n_base_updates)
        for key, value, low in (("num_samples", num_samples, 4), ("lag", lag, 1), ("patience", patience, 1)):
            check_number(f"callbacks.reduce_lr.{key}", value, low=low, integer=True)
        for key, share in (("threshold", threshold), ("factor", factor)):
            if not 0 < share < 1:
                raise UserError(f"callbacks.reduce_lr.{key} must be between 0 and 1, not {share}")
        self.features, self.num_samples = features, num_samples
        self.lag, self.patience, self.threshold, self.factor = lag, patience, threshold, factor
        self.failures = 0
        self.rows: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self.features.to(pl_module.device)
        self._size = data.dataset("train").count(self.num_samples)
        self._real = real_features(data, self.features, "train", pl_module.device, self.num_samples)

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        gebm, _ = module.evaluation_gebm()
        # New latents each time: the test asks for independent samples.
        stream = f"reduce_lr/{module.base_updates}"
        generated, *_ = sample_features(gebm, BaseSampler(), self.features, self._size, module.seed, stream)
        rows = broadcast(None if self._real is None else kid_rows(generated, self._real))
        assert rows is not None
        if len(self.rows) >= self.lag:
            difference, p = relative_kid_test(rows, self.rows[-self.lag])
            self.failures = self.failures + 1 if p > self.threshold else 0
            log(trainer, {"reduce_lr/kid_difference": difference, "reduce_lr/p_value": p}, module)
        self.rows = [*self.rows, rows][-self.lag :]
        if self.failures >= self.patience:
            self.failures, self.rows = 0, self.rows[-self.patience :]
            self._reduce(trainer)
        for name, optimizer in zip(("energy", "base"), trainer.optimizers, strict=True):
            log(trainer, {f"reduce_lr/lr_{name}": optimizer.param_groups[0]["lr"]}, module)

    def _reduce(self, trainer: pl.Trainer) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= self.factor
        for config in trainer.lr_scheduler_configs:
            # Closed-form schedules start anew from these at each step.
            config.scheduler.base_lrs = [lr * self.factor for lr in config.scheduler.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        return {"failures": self.failures, "rows": torch.stack(self.rows) if self.rows else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.failures, rows = state_dict["failures"], state_dict["rows"]
        self.rows = [] if rows is None else list(rows)
