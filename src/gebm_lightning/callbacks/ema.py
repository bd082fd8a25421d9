"""An exponential moving average of the base, counted in base updates."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import UserError
from ..lightning.module import GEBMModule
from .cadence import BaseUpdateCallback


class EMA(BaseUpdateCallback):
    """Keeps `module.ema`: parameters averaged with `decay` at each base update, buffers (batch statistics) copied.

    Before update k the decay is min(decay, (1 + k)/(10 + k)), so that the first weights are soon forgotten. The energy is
    trained against the raw base; the average is for sampling and scoring. A base without parameters has none.
    """

    def __init__(self, decay: float = 0.99, every_n_base_updates: int = 1) -> None:
        super().__init__(every_n_base_updates)
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay must be in [0, 1), not {decay}")
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if pl_module.ema is None and any(True for _ in pl_module.gebm.base.parameters()):
            pl_module.ema = AveragedModel(pl_module.gebm.base, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
            pl_module.ema.requires_grad_(False)

    @torch.no_grad()
    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        ema: Any = module.ema
        if ema is None:
            return
        updates = module.base_updates // (self.every or 1)
        ema.multi_avg_fn = get_ema_multi_avg_fn(min(self.decay, (1 + updates) / (10 + updates)))
        ema.update_parameters(module.gebm.base)
