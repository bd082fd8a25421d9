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
    run_command("train", _task, _resumed)


def _resumed(arguments: list[str]) -> list[str]:
    # A resumed run writes into its own folder, which Hydra has to know before it makes a new one.
    for argument in arguments:
        match = re.fullmatch(r"resume=(['\"]?)(.+)\1", argument)
        if match and match[2] != "null":
            _check_resumable(Path(match[2]))
            return [*arguments, f"hydra.run.dir='{match[2]}'"]
    return arguments


def _check_resumable(folder: Path) -> None:
    from ..config import load_config
    from ..lightning.checkpoint import find_checkpoint

    load_config(folder)
    find_checkpoint(folder)


def _task(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    if cfg.resume is not None:
        cfg = _resume_config(Path(cfg.resume), list(hydra_cfg.overrides.task))
    with open_dict(cfg):
        cfg.run_dir = str(run_dir)
    try:
        interrupted = train(cfg, run_dir)
    finally:
        if run_dir.is_dir() and not any(run_dir.iterdir()):
            run_dir.rmdir()
    if interrupted:
        print(f"interrupted; go on with: resume={run_dir}", file=sys.stderr)
        sys.exit(130)
    print(run_dir)


def _resume_config(folder: Path, overrides: list[str]) -> DictConfig:
    from ..config import load_config

    cfg = load_config(folder)
    for override in overrides:
        key, _, value = override.partition("=")
        if key.startswith(("trainer.", "callbacks.", "logger.")) or key == "debug":
            OmegaConf.update(cfg, key, OmegaConf.create({"v": value} if value != "null" else {"v": None}).v)
            if value != "null":
                OmegaConf.update(cfg, key, OmegaConf.from_dotlist([f"v={value}"]).v)
        elif key != "resume":
            raise UserError(
                f"{override}: a resumed run keeps its config; only trainer, callbacks and logger keys may change"
            )
    with open_dict(cfg):
        cfg.resume = str(folder)
    return cfg


def train(cfg: DictConfig, run_dir: Path) -> bool:
    """Train as `cfg` says, in `run_dir`; True if the run was interrupted and can be resumed.

    Raises:
        UserError: the config asks for what cannot be done; then nothing is written.
    """
    import logging
    import warnings

    import pytorch_lightning as pl

    from ..config import build_parts, instantiate
    from ..lightning import GEBMModule
    from ..lightning.checkpoint import find_checkpoint, read_checkpoint, restore

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*TensorBoard.*", ".*isinstance.treespec, LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    gebm, critic, objective = build_parts(cfg)
    data = instantiate(cfg.data)
    data.setup()
    callbacks = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    module = GEBMModule(
        gebm, critic, objective, instantiate(cfg.optim), instantiate(cfg.energy_schedule), cfg.train_mode, cfg.seed
    )
    module.configure_optimizers()  # once for nothing, so that bad settings are found before anything is written
    checkpoint = None
    if cfg.resume is not None:
        checkpoint = find_checkpoint(run_dir)
        restore(gebm, read_checkpoint(checkpoint), ema=False)
    loggers = [instantiate(node) for node in cfg.logger.values() if OmegaConf.is_config(node)]
    trainer = instantiate(cfg.trainer, default_root_dir=str(run_dir), logger=loggers, callbacks=callbacks)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        saved = run_dir / "config.yaml"
        if cfg.resume is None:
            saved.write_text(OmegaConf.to_yaml(cfg, resolve=True))
        for logger in loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    finally:
        _finish(loggers)
    return module.interrupted


def _finish(loggers: list[Any]) -> None:
    for logger in loggers:
        logger.finalize("finished")
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


if __name__ == "__main__":
    main()
