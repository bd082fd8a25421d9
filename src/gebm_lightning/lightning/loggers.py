"""`metrics.csv` straight in a run's folder, with its rows kept when the run resumes; and wandb, with what it is not told."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_fabric.loggers import CSVLogger
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger

from ..errors import UserError
from ..metrics_csv import read_rows


class RunCSVLogger(Logger, CSVLogger):
    """Rows by base update in `save_dir/metrics.csv`.

    Lightning's own would delete the earlier rows on resuming, and write the hyper-parameters that `config.yaml` has.

    Args:
        save_dir: the run's folder.
        hide: dotted keys of the config that reports and exports do not tell; not used here.
    """

    def __init__(self, save_dir: str, hide: Sequence[str] = ()) -> None:
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
            rows: list[Any] = []
            if path.is_file():
                rows = [row for _, row in read_rows(path, growing=True) if float(row["step"]) <= self.keep_until]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
                writer = super().experiment
            writer.metrics = rows
            # Lightning has deleted the file by now, and would write it at the next flush, which a killed run never reaches.
            writer.save()
        return super().experiment

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's `config.yaml` has them."""


class RunWandbLogger(WandbLogger):
    """Lightning's logger of a wandb run, which keeps parts of the config to itself and hands over checkpoints when asked.

    Args:
        artifacts: whether the checkpoints of a finished run become an artifact.
        hide: dotted keys of the config that wandb is not told, with what is under them.
        offline: whether wandb writes to the run's folder only.
        tags: of the run.
        settings: Lightning's own, and those of `wandb.init`.

    Raises:
        UserError: the tags are no list of texts.
    """

    def __init__(
        self,
        artifacts: bool = False,
        hide: Sequence[str] = (),
        offline: bool = False,
        tags: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        tags = [] if tags is None else tags
        if isinstance(tags, str) or not isinstance(tags, Sequence) or not all(isinstance(tag, str) for tag in tags):
            raise UserError(f"logger.tags must be a list such as [a,b], not {tags!r}")
        super().__init__(offline=offline, tags=list(tags), **settings)
        self.artifacts, self.hide = artifacts, tuple(hide)

    @property
    def experiment(self) -> Any:
        with _arguments_without(self.hide):
            return super().experiment

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config, but for what is hidden."""
        shown = copy.deepcopy(params)
        for key in self.hide:
            *above, last = key.split(".")
            node = shown
            for part in above:
                node = node.get(part, {}) if isinstance(node, dict) else {}
            if isinstance(node, dict):
                node.pop(last, None)
        super().log_hyperparams(shown, *args, **kwargs)

    def log_checkpoints(self, folder: Path) -> None:
        """If `artifacts`, the folder's `last.ckpt` and `best.ckpt`, those that are there, as one artifact `model-ID`."""
        paths = [path for name in ("last.ckpt", "best.ckpt") if (path := folder / name).is_file()]
        if not self.artifacts or not paths:
            return
        import wandb

        artifact = wandb.Artifact(f"model-{self.version}", type="model")
        for path in paths:
            artifact.add_file(str(path), path.name)
        self.experiment.log_artifact(artifact)


@contextmanager
def _arguments_without(hide: Sequence[str]) -> Iterator[None]:
    """The command line without overrides of what is hidden: wandb sends it beside the config."""
    before = sys.argv
    sys.argv = [argument for argument in before if not _tells(argument, hide)]
    try:
        yield
    finally:
        sys.argv = before


def _tells(argument: str, hide: Sequence[str]) -> bool:
    key, _, value = argument.lstrip("+~").partition("=")
    return any(
        key == hidden or key.startswith(f"{hidden}.") or (hidden.startswith(f"{key}.") and value.startswith("{"))
        for hidden in hide
    )
