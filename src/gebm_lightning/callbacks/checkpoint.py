"""Checkpoints by base update and by wall time, and before a run has to end early, always between two updates."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ..distributed import all_max, rank
from ..errors import UserError, check_number
from ..lightning.checkpoint import keep_as, write_checkpoint
from ..lightning.module import GEBMModule
from .cadence import BaseUpdateCallback, common_cadence
from .guard import check_parameters

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
TIME_LIMIT = 1000
"""What `GEBMModule.interrupted` is when the time limit ended a run; else the signal's number."""


class Checkpoint(BaseUpdateCallback):
    """Writes `checkpoints/last.ckpt`, atomically, and only with finite parameters; the one before stays as `previous.ckpt`.

    SIGINT, SIGTERM, SIGUSR1, SIGUSR2, to any process of a run, and the time limit end it after a checkpoint, at the end of
    the update and of what callbacks do after it.

    Args:
        every_n_base_updates: cadence.
        every_minutes: cadence by the clock, besides.
        keep_every: also keep `update-N.ckpt` at multiples of this.
        best_metric: also keep as `best.ckpt` the state with the lowest value of this metric of the evaluation while
            training, such as "train/fid_digits/short_run".
        stop_after_minutes: the time limit of this run, or of this part of it if it was resumed.
    """

    def __init__(
        self,
        every_n_base_updates: int | None = 500,
        every_minutes: float | None = 10,
        keep_every: int | None = None,
        best_metric: str | None = None,
        stop_after_minutes: float | None = None,
    ) -> None:
        super().__init__(common_cadence(every_n_base_updates, keep_every))
        for key, value in (("every_minutes", every_minutes), ("stop_after_minutes", stop_after_minutes)):
            if value is not None:
                check_number(f"callbacks.checkpoint.{key}", value, above=0)
        self.last_every = every_n_base_updates
        self.every_minutes, self.keep_every = every_minutes, keep_every
        self.best_metric, self.best = best_metric, float("inf")
        self.stop_after_minutes = stop_after_minutes
        self._started = self._saved_at = time.monotonic()
        self._signal = 0
        self._over = False
        self._judged, self._saved_state = 0, (-1, 1.0)
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        last = max(getattr(c, "max_base_updates", 0) for c in trainer.callbacks)  # type: ignore[attr-defined]
        self._over = pl_module.base_updates >= last
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._over:
            raise SystemExit(128 + number)
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        super().on_train_batch_end(trainer, pl_module)
        self._keep_best(trainer, pl_module)
        now = time.monotonic()
        if self.stop_after_minutes is not None and now - self._started > 60 * self.stop_after_minutes:
            self._signal = self._signal or TIME_LIMIT
        late = self.every_minutes is not None and now - self._saved_at > 60 * self.every_minutes
        # Every process must do the same: what one was told, all were.
        stop, save = all_max([self._signal, int(late)])
        if stop or save:
            self._save(trainer, pl_module)
        if stop:
            pl_module.interrupted = stop
            trainer.should_stop = True

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        if self.keep_every is not None and module.base_updates % self.keep_every == 0:
            check_parameters(module)
            write_checkpoint(trainer, self._folder(trainer) / f"update-{module.base_updates}.ckpt")
        if self.last_every is not None and module.base_updates % self.last_every == 0:
            self._save(trainer, module)

    def _keep_best(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        if self.best_metric is None or module.evaluated_at <= self._judged:
            return
        self._judged = module.evaluated_at
        if self.best_metric not in module.evaluated:
            raise UserError(
                f"callbacks.checkpoint.best_metric={self.best_metric} is not evaluated while training; "
                f"there are {', '.join(module.evaluated)}"
            )
        if module.evaluated[self.best_metric] < self.best:
            self.best = module.evaluated[self.best_metric]
            check_parameters(module)
            write_checkpoint(trainer, self._folder(trainer) / "best.ckpt")

    def _folder(self, trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    def _save(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        self._saved_at = time.monotonic()
        # After the last update was saved, an energy's scale may be found anew, or the best weights be taken back.
        state = (module.steps, sum(float(v.double().sum()) for v in module.gebm.state_dict().values()))
        if state == self._saved_state:
            return
        check_parameters(module)
        last = self._folder(trainer) / "last.ckpt"
        write_checkpoint(trainer, last, before=lambda: keep_as(last, "previous.ckpt"))
        if rank() == 0:
            for logger in trainer.loggers:
                logger.save()
        self._saved_state = state

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Training is over, and what comes at its end may take long.
        if not pl_module.interrupted:
            self._save(trainer, pl_module)
            self._over = True
            # A signal that came while that was written.
            pl_module.interrupted = all_max([self._signal])[0]

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
