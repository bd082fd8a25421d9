"""Processes that train together, without `DistributedDataParallel`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import nn


class PlayersStrategy(DDPStrategy):
    """One process for each device; the module itself sums the gradients of the player whose turn it is.

    DDP would reduce both players' gradients at every backward, and refuses second derivatives through what it wraps.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Rank 0 may score for long while the others wait.
        super().__init__(timeout=timedelta(hours=2), **kwargs)

    def _setup_model(self, model: nn.Module) -> Any:
        return model

    def _register_ddp_hooks(self) -> None:
        """There is nothing to hook."""
