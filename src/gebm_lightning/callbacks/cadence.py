"""A callback whose clock is the number of base updates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
from matplotlib.figure import Figure

from ..distributed import rank
from ..errors import check_number
from ..lightning.module import GEBMModule


class BaseUpdateCallback(pl.Callback):
    """Calls `on_base_update` after every `every_n_base_updates`-th base update; None for never.

    Of several processes only the first calls it, unless `everywhere`: then all do, at the same updates.
    """

    everywhere: ClassVar[bool] = True

    def __init__(self, every_n_base_updates: int | None) -> None:
        if every_n_base_updates is not None:
            check_number(f"every_n_base_updates of {type(self).__name__}", every_n_base_updates, low=1, integer=True)
        self.every = every_n_base_updates
        self._seen = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._seen = pl_module.base_updates

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.base_updates != self._seen:
            self._seen = pl_module.base_updates
            due = self.every is not None and self._seen % self.every == 0
            if due and (self.everywhere or rank() == 0):
                self.on_base_update(trainer, pl_module)

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        """What is due."""
        raise NotImplementedError


def common_cadence(*cadences: int | None) -> int | None:
    """The cadence at which every one of several is met: their greatest common divisor; None if all are None."""
    given = [c for c in cadences if c is not None]
    for cadence in given:
        check_number("every cadence in callbacks", cadence, low=1, integer=True)
    return math.gcd(*given) if given else None


def log(trainer: pl.Trainer, metrics: dict[str, Any], module: GEBMModule) -> None:
    """Send numbers to every logger, by base update."""
    for logger in trainer.loggers if rank() == 0 else []:
        logger.log_metrics({k: float(v) for k, v in metrics.items()}, step=module.base_updates)


def log_table(trainer: pl.Trainer, name: str, columns: list[str], lines: list[list[Any]], step: int) -> None:
    """Hand a table, by columns and lines, to those loggers that show tables."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(name, columns, lines, step=step)


def log_image(trainer: pl.Trainer, name: str, path: Path, figure: Figure, step: int) -> None:
    """Hand a picture to those loggers that show pictures."""
    from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"images/{name}", [str(path)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(f"images/{name}", figure, step)
