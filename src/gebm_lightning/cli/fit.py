"""One training run, from a composed config to a finished folder; all that can be wrong is found before anything is written."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from ..config import build_parts, instantiate
from ..distributed import leave
from ..errors import UserError, check_number, check_shape, first_line
from ..gebm import GEBM
from ..lightning import GEBMModule
from ..lightning.checkpoint import find_checkpoint, has_checkpoint, put_damaged_aside, read_checkpoint, restore
from ..metrics.report import write_json
from ..noise import BlockNoise
from ..samplers import sampling_mode
from .environment import hide_environment
from .launch import SIGNALS, process_rank
from .lock import held, is_held
from .resume import put_aside


def fit(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """`train`, with signals that end it at any time: until training has begun at once, then as `Checkpoint` says."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, _leave) for number in SIGNALS}
    try:
        return train(cfg, run_dir)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def train(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Train as `cfg` says, in `run_dir`; the signal that interrupted it, or 0, and what `finished.json` holds otherwise.

    Of several processes only the first writes. A config that says `resume` was read from a file, and so is not trusted to
    name other code than this package's and that of `trust`.

    Raises:
        UserError: the config asks for what cannot be done; then nothing is written.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*TensorBoard.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*in eval mode at the start.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    resumed = cfg.resume is not None
    trusted, trust = not resumed, tuple(cfg.get("trust") or ())
    hide_environment(cfg)
    first = process_rank() == 0
    begun = first and not resumed and (run_dir / "config.yaml").exists()
    if begun and not is_held(run_dir) and not has_checkpoint(run_dir):
        put_aside(run_dir, "its run ended before its first checkpoint")
    if first and not resumed and (run_dir / "config.yaml").exists():
        raise UserError(f"{run_dir} holds a run already: go on with resume={run_dir}, or choose another name or folder")
    check_number("seed", cfg.seed, low=0, integer=True)
    if cfg.seed >= 2**32:
        raise UserError(f"seed must be below 2^32, not {cfg.seed}")
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    check_shape("data.shape", OmegaConf.select(cfg, "data.shape"))
    gebm, critic, objective = build_parts(cfg, trusted, trust)
    data = instantiate(cfg.data, trusted, trust)
    callbacks = [instantiate(node, trusted, trust) for node in cfg.callbacks.values() if node is not None]
    optim, schedule = instantiate(cfg.optim, trusted, trust), instantiate(cfg.energy_schedule, trusted, trust)
    copies = cfg.get("base_samples", 1)
    module = GEBMModule(gebm, critic, objective, optim, schedule, cfg.train_mode, cfg.seed, copies)
    checkpoint = None
    if resumed:
        checkpoint = find_checkpoint(run_dir)
        restore(gebm, read_checkpoint(checkpoint), ema=False)
    elif cfg.init is not None:
        restore(gebm, read_checkpoint(cfg.init), ema=cfg.train_mode == "energy", energy_is_new=True)
    elif (
        cfg.train_mode == "energy"
        and not cfg.model.base.get("weights")
        and any(p.requires_grad for p in gebm.base.parameters())
    ):
        warnings.warn(
            "train_mode=energy leaves this base as it was made: init=RUN begins from a trained one", stacklevel=1
        )
    _dry_run(module, data, callbacks)
    loggers = [instantiate(node, trusted, trust) for node in _logger_nodes(cfg)]
    for logger in loggers:
        if resumed and hasattr(logger, "keep_until"):
            logger.keep_until = read_checkpoint(run_dir)["gebm_lightning"]["base_updates"]
    trainer = instantiate(
        cfg.trainer, trusted, trust, default_root_dir=str(run_dir), logger=loggers, callbacks=callbacks
    )
    fresh = first and (not run_dir.exists() or not any(run_dir.iterdir()))
    finished = False
    lock = ExitStack()
    try:
        if first:
            run_dir.mkdir(parents=True, exist_ok=True)
            lock.enter_context(held(run_dir))
            _start_loggers(loggers, cfg)
            temporary = run_dir / "config.tmp"
            temporary.write_text(OmegaConf.to_yaml(cfg, resolve=True))
            os.replace(temporary, run_dir / "config.yaml")
            if checkpoint is not None:
                put_damaged_aside(checkpoint)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        finished = True
    except (KeyboardInterrupt, SystemExit) as stop:
        if not has_checkpoint(run_dir):
            raise
        code = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 0
        module.interrupted = module.interrupted or (code - 128 if code > 128 else signal.SIGINT)
    finally:
        try:
            if first:
                _finish(loggers, run_dir, finished and not module.interrupted)
        finally:
            lock.close()
            if fresh and not finished and not has_checkpoint(run_dir):
                shutil.rmtree(run_dir, ignore_errors=True)
    result: dict[str, Any] = {"interrupted": int(module.interrupted), "base_updates": module.base_updates}
    if first and not module.interrupted:
        result["objective"] = objective_value(run_dir, cfg.sweep_objective)
        write_json(run_dir / "finished.json", result)
    leave()
    return result


def objective_value(run_dir: Path, key: str) -> float | None:
    """The number that `sweep_objective`, "<method>/<split>/<score>", names in a run's summary; None if it has none such."""
    path = run_dir / "summary.json"
    if not path.is_file():
        return None
    rows = {row["method"].replace(" ", "_"): row["scores"] for row in json.loads(path.read_text())["rows"]}
    method, split, score = [*key.split("/", 2), "", ""][:3]
    value = rows.get(method, {}).get(split, {}).get(score)
    return None if value is None else float(value)


def _dry_run(module: GEBMModule, data: Any, callbacks: list[Any]) -> None:
    """Everything that training will do first, once for nothing."""
    gebm: GEBM = module.gebm
    module.configure_optimizers()
    data.setup()
    try:
        with sampling_mode(gebm), torch.no_grad():
            y = gebm.sample_labels(2, BlockNoise(0))
            x = gebm.sample_base(2, BlockNoise(0), y)
            gebm.potential(y=y).energy(gebm.prior.sample(2, BlockNoise(0)))
        loader = data.train_dataloader()
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"the parts of the config do not fit together: {first_line(error)}") from error
    if module.train_mode != "energy" and not any(True for _ in gebm.base.parameters()):
        raise UserError(f"{type(gebm.base).__name__} has no parameters to train: take train_mode=energy")
    if module.objective.needs_base_density:
        try:
            gebm.base_log_prob(x)
        except TypeError as error:
            raise UserError(
                f"{type(module.objective).__name__} asks for log densities: {first_line(error)}; take model=flow_realnvp"
            ) from error
    if tuple(x.shape[1:]) != data.shape:
        raise UserError(f"the base makes data of shape {tuple(x.shape[1:])}, but data.shape is {data.shape}")
    del loader
    if gebm.num_classes is not None:
        labels = data.dataset("train").y
        if labels is None:
            raise UserError(f"model.num_classes={gebm.num_classes} needs data with labels: these have none")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= gebm.num_classes:
            raise UserError(
                f"model.num_classes={gebm.num_classes} has the classes 0 to {gebm.num_classes - 1}: "
                f"the data have labels from {low} to {high}"
            )
        gebm.count_labels(labels)
    for callback in callbacks:
        if hasattr(callback, "check"):
            try:
                callback.check(data, gebm)
            except (RuntimeError, ValueError, IndexError) as error:
                raise UserError(f"{type(callback).__name__} cannot serve these data: {first_line(error)}") from error


def _logger_nodes(cfg: DictConfig) -> list[Any]:
    """The loggers' configs: what else is in `logger` are settings that they share."""
    nodes = {key: node for key, node in cfg.logger.items() if OmegaConf.is_dict(node)}
    for key, node in nodes.items():
        if "_target_" not in node:
            raise UserError(f"logger.{key}={node} is no logger: it has no _target_")
    return list(nodes.values())


def _start_loggers(loggers: list[Any], cfg: DictConfig) -> None:
    for logger in loggers:
        try:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
        except Exception as error:
            if not type(error).__module__.startswith("wandb"):
                if type(error).__name__ != "ValidationError":
                    raise
                # Of pydantic, with which wandb checks its settings: which it is, and what it should be, are on lines of their own.
                told = [line.strip() for line in str(error).split("[type=")[0].splitlines()[1:]]
                raise UserError(f"wandb does not take a setting of logger.wandb, {': '.join(told)}") from error
            raise UserError(
                f"wandb cannot start: {first_line(error)}; log in with `wandb login`, or take logger.offline=true"
            ) from error


def _finish(loggers: list[Any], run_dir: Path, finished: bool) -> None:
    """Close the loggers, and wandb's run, of which an interrupted or failed one may go on later."""
    try:
        for logger in loggers:
            if finished and hasattr(logger, "log_checkpoints"):
                logger.log_checkpoints(run_dir / "checkpoints")
            logger.finalize("success" if finished else "failed")
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish(exit_code=int(not finished))
