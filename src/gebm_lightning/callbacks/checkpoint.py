"""Checkpoints by base update and by wall time, and at Ctrl-C or SIGTERM, always between two updates."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ..lightning.checkpoint import write_checkpoint
from ..lightning.module import GEBMModule
from .cadence import BaseUpdateCallback, common_cadence
from .guard import check_parameters


class Checkpoint(BaseUpdateCallback):
    """Writes `checkpoints/last.ckpt`, atomically, and only with finite parameters.

    Args:
        every_n_base_updates: cadence.
        every_minutes: cadence by the clock, besides.
        keep_every: also keep `checkpoints/update-N.ckpt` at multiples of this.
    """

    def __init__(
        self, every_n_base_updates: int | None = 500, every_minutes: float | None = 10, keep_every: int | None = None
    ) -> None:
        super().__init__(common_cadence(every_n_base_updates, keep_every))
        self.last_every = every_n_base_updates
        self.every_minutes, self.keep_every = every_minutes, keep_every
        self._saved_at = time.monotonic()
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        super().on_train_batch_end(trainer, pl_module)
        late = self.every_minutes is not None and time.monotonic() - self._saved_at > 60 * self.every_minutes
        if self._signal is not None or late:
            self._save(trainer, pl_module)
        if self._signal is not None:
            pl_module.interrupted = True
            trainer.should_stop = True

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        if self.keep_every is not None and module.base_updates % self.keep_every == 0:
            check_parameters(module)
            write_checkpoint(trainer, self._folder(trainer) / f"update-{module.base_updates}.ckpt")
        if self.last_every is not None and module.base_updates % self.last_every == 0:
            self._save(trainer, module)

    def _folder(self, trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    def _save(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        check_parameters(module)
        write_checkpoint(trainer, self._folder(trainer) / "last.ckpt")
        for logger in trainer.loggers:
            logger.save()
        self._saved_at = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not pl_module.interrupted:
            self._save(trainer, pl_module)
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
