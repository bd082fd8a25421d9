"""A progress bar that counts base updates."""

from __future__ import annotations

from typing import Any, ClassVar

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..distributed import rank
from ..lightning.module import GEBMModule
from .cadence import BaseUpdateCallback


class Progress(BaseUpdateCallback):
    """Base updates done of all, time left, and the bound on the last batch; plain lines where there is no terminal."""

    everywhere: ClassVar[bool] = False

    def __init__(self, every_n_base_updates: int = 10, lines: int = 10) -> None:
        super().__init__(every_n_base_updates)
        self.lines = lines
        self._bar: Bar | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._total = max(getattr(c, "max_base_updates", 0) for c in trainer.callbacks)  # type: ignore[attr-defined]
        console = Console()
        if console.is_terminal and rank() == 0:
            columns = (
                TextColumn("base updates"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[bound]}"),
            )
            self._bar = Bar(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=pl_module.base_updates, bound="")

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        bound = module.logs.get("train/donsker_varadhan")
        if self._bar is not None:
            text = "" if bound is None else f"DV {float(bound):.3f}"
            self._bar.update(self._task, completed=module.base_updates, bound=text)
        elif module.base_updates % max(self._total // self.lines, 1) < (self.every or 1):
            text = "" if bound is None else f", Donsker-Varadhan {float(bound):.3f}"
            print(f"base update {module.base_updates} of {self._total}{text}", flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=pl_module.base_updates)
            self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.stop()
