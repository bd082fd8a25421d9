"""`gebm-train`: one training run, in a folder of its own, whose path is printed last."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..errors import UserError
from .command import run_command


def main() -> None:
    """Entry of `train.py` and `gebm-train`."""
    run_command("train", _task, _with_run_dir)


def _with_run_dir(arguments: list[str]) -> list[str]:
    if {"-m", "--multirun"} & set(arguments) and any(a.startswith("run_dir=") for a in arguments):
        raise UserError("run_dir: each job of a sweep has its own folder, sweeps/NAME/…; choose name=NAME")
    # A resumed run writes into its own folder, which Hydra has to know before it makes a new one.
    for argument in arguments:
        match = re.fullmatch(r"resume=(['\"]?)(.+)\1", argument)
        if match and match[2] != "null":
            _check_resumable(Path(match[2]))
            return [*arguments, f"hydra.run.dir='{match[2]}'"]
    return arguments


def _check_resumable(folder: Path) -> None:
    from ..config import load_config
    from ..lightning.checkpoint import read_checkpoint

    if folder.suffix == ".ckpt":
        raise UserError(f"resume={folder}: give the run's folder, not a checkpoint in it")
    load_config(folder)
    read_checkpoint(folder, to_resume=True)


def _task(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from .fit import fit

    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    if cfg.resume is not None:
        cfg = _resume_config(run_dir, list(hydra_cfg.overrides.task))
    with open_dict(cfg):
        cfg.run_dir = str(run_dir)
    try:
        interrupted = fit(cfg, run_dir)
    finally:
        if run_dir.is_dir() and not any(run_dir.iterdir()):
            run_dir.rmdir()
    if interrupted:
        print(f"interrupted; go on with: resume={run_dir}", file=sys.stderr)
        sys.exit(130)
    print(run_dir)


def _resume_config(folder: Path, overrides: list[str]) -> DictConfig:
    """The run's own config, with those overrides that may change, and its loggers pointed at where the run is now."""
    from ..config import load_config

    cfg = load_config(folder)
    before: Any = cfg.trainer.max_base_updates
    with open_dict(cfg):
        for override in overrides:
            key, _, value = override.partition("=")
            if key.startswith(("trainer.", "callbacks.", "logger.")) or key == "debug":
                OmegaConf.update(cfg, key, OmegaConf.from_dotlist([f"value={value}"]).value)
            elif key != "resume":
                raise UserError(
                    f"{override}: a resumed run keeps its config; only trainer, callbacks and logger keys may change"
                )
        for node in cfg.logger.values():
            if OmegaConf.is_config(node) and "save_dir" in node:
                node.save_dir = str(folder)
        cfg.resume = str(folder)
    if cfg.trainer.max_base_updates != before and any(cfg.optim.get(f"{p}_scheduler") for p in ("energy", "base")):
        print(f"note: the learning-rate schedules stay those of a run of {before} base updates", file=sys.stderr)
    return cfg


if __name__ == "__main__":
    main()
