"""`gebm-train`: one training run, in a folder of its own, whose path is printed last."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..errors import UserError
from .command import run_command
from .launch import launch, launched, process_rank
from .resume import choose_run_dir, resumed_config
from .sweep_report import report_sweeps


def main() -> None:
    """Entry of `train.py` and `gebm-train`."""
    try:
        run_command("train", _task, choose_run_dir)
    finally:
        report_sweeps()


def _task(cfg: DictConfig) -> Any:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from .sweep import take_up

    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    sweep = hydra_cfg.mode is RunMode.MULTIRUN
    if cfg.resume is not None:
        cfg = resumed_config(run_dir, list(hydra_cfg.overrides.task))
    with open_dict(cfg):
        cfg.run_dir = str(run_dir)
        for node in cfg.logger.values() if sweep else []:
            if OmegaConf.is_dict(node) and "group" in node and node.group is None:
                node.group = Path(hydra_cfg.sweep.dir).name
    if sweep:
        end_with_parent()
        done = take_up(cfg, run_dir)
        if done is not None:
            return done["objective"]
    try:
        result = run(cfg, run_dir)
    finally:
        if run_dir.is_dir() and not any(run_dir.iterdir()):
            run_dir.rmdir()
    if result["interrupted"]:
        end_early(result["interrupted"], run_dir)
    if process_rank() != 0:
        return None
    print(run_dir)
    if sweep and result["objective"] is None and cfg.callbacks.get("evaluation") is not None:
        raise UserError(
            f"sweep_objective={cfg.sweep_objective} is none of the scores in {run_dir / 'summary.json'}: it is "
            "<base|short_run|equilibrium>/<split>/<score>"
        )
    return result["objective"]


def run(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """One run, in this process or in one for each device."""
    devices = count_devices(cfg.trainer.devices)
    if devices == 1 or launched():
        return work(cfg, str(run_dir))
    if cfg.trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={cfg.trainer.num_nodes}: runs on several machines are started by torchrun or SLURM, on each of them"
        )
    from ..lightning.trainer import check_devices

    check_devices({k: v for k, v in OmegaConf.to_container(cfg.trainer).items() if k in ("devices", "accelerator")})  # type: ignore[union-attr]
    result: dict[str, Any] = launch(work, devices, cfg, str(run_dir))
    return result


def work(cfg: DictConfig, run_dir: str) -> dict[str, Any]:
    """What every process of a run does."""
    from .fit import fit

    return fit(cfg, Path(run_dir))


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one, a sweep's, has died."""
    if sys.platform == "linux" and multiprocessing.current_process().name != "MainProcess":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def count_devices(devices: Any) -> int:
    """Processes on one machine for `trainer.devices`; whatever is none is left to `make_trainer` to refuse."""
    if OmegaConf.is_list(devices):
        return max(len(devices), 1)
    return int(devices) if str(devices).isdigit() and int(devices) > 0 else 1


def end_early(reason: int, run_dir: Path) -> None:
    """Leave after an interruption, with a status that tells a scheduler so: 128 + the signal's number, or 75 for the time limit."""
    from ..callbacks.checkpoint import TIME_LIMIT
    from .requeue import requeue

    if process_rank() == 0:
        resumable = (run_dir / "checkpoints").is_dir()
        print(
            f"interrupted; {f'go on with: resume={run_dir}' if resumable else 'nothing was saved yet'}", file=sys.stderr
        )
    if reason != signal.SIGINT:
        requeue(reason)
    sys.exit(75 if reason == TIME_LIMIT else 128 + reason)


if __name__ == "__main__":
    main()
