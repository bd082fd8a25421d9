"""What the processes of these tests run: it has to be importable by name in each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gebm_lightning import compose
from gebm_lightning.callbacks import EMA
from gebm_lightning.config import build_parts, instantiate
from gebm_lightning.lightning import GEBMModule, make_trainer

BASE = ["model.width=4", "model.latent_dim=6", "trainer.max_base_updates=20", "energy_schedule.num=2"]


def play(overrides: list[str], devices: int, out: str, dtype: str = "64-true") -> dict[str, Any]:
    """Train, and save parameters, buffers and losses of this process."""
    import pytorch_lightning as pl

    class Losses(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.seen.append({k: float(v) for k, v in pl_module.logs.items()})

    cfg = compose([*BASE, *overrides])
    torch.manual_seed(0)
    module = GEBMModule(*build_parts(cfg), instantiate(cfg.optim), instantiate(cfg.energy_schedule), "both", cfg.seed)
    losses = Losses()
    trainer = make_trainer(
        cfg.trainer.max_base_updates,
        accelerator="cpu",
        devices=devices,
        precision=dtype,
        logger=False,
        callbacks=[EMA(0.9), losses],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    trainer.fit(module, datamodule=instantiate(cfg.data))
    torch.save(
        {"state": module.state_dict(), "losses": losses.seen}, Path(out) / f"{trainer.global_rank}-of-{devices}.pt"
    )
    return {"rank": trainer.global_rank}


def ranks() -> dict[str, Any]:
    """Meet the others without a trainer."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    result = {"rank": dist.get_rank(), "world": dist.get_world_size()}
    dist.destroy_process_group()
    return result
