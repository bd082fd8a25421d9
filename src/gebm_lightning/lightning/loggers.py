"""A CSV logger that writes `metrics.csv` straight into a run's folder and keeps its rows when the run resumes."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import Any

from lightning_fabric.loggers import CSVLogger
from pytorch_lightning.loggers.logger import Logger


class RunCSVLogger(Logger, CSVLogger):
    """Rows by base update in `save_dir/metrics.csv`.

    Lightning's own would delete the earlier rows on resuming, and write the hyper-parameters that `config.yaml` has.
    """

    def __init__(self, save_dir: str) -> None:
        CSVLogger.__init__(self, save_dir, name="", version="")
        self.keep_until: float = math.inf
        """Rows of later steps are dropped when a run resumes: it will write them again."""

    @property
    def save_dir(self) -> str:
        return str(self.root_dir)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            path = Path(self.log_dir) / "metrics.csv"
            rows: list[dict[str, Any]] = []
            if path.is_file():
                with path.open(newline="") as file:
                    rows = [row for row in csv.DictReader(file) if float(row["step"]) <= self.keep_until]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
                writer = super().experiment
            writer.metrics = rows
        return super().experiment

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's `config.yaml` has them."""
