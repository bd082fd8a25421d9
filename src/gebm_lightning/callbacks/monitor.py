"""Curves: the players' losses and gradient norms, the critic's spectral norms, and the bounds on train and held-out data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import pytorch_lightning as pl
import torch

from ..data.batch import Batch
from ..errors import check_number
from ..gebm import GEBM, call_energy, log_mean_exp
from ..lightning.module import GEBMModule
from ..noise import BlockNoise
from ..objectives.penalties import spectral_norms
from ..samplers.gradients import sampling_mode
from .cadence import BaseUpdateCallback, common_cadence, log


class Monitor(BaseUpdateCallback):
    """Logs the last step's numbers, and now and then KALE, Donsker–Varadhan, c and log Z on fixed samples in eval mode.

    The last step's `grad_norm/<player>` is that before clipping; `spectral_norm/<layer>` of the critic comes with the bounds.

    Args:
        every_n_base_updates: cadence of the last step's numbers.
        bounds_every: cadence of the bounds and spectral norms.
        num_samples: real images of each split, and base samples, behind the bounds.
    """

    everywhere: ClassVar[bool] = False

    def __init__(self, every_n_base_updates: int = 10, bounds_every: int = 100, num_samples: int = 1000) -> None:
        super().__init__(common_cadence(every_n_base_updates, bounds_every))
        check_number("callbacks.monitor.num_samples", num_samples, low=1, integer=True)
        self.logs_every = every_n_base_updates
        self.bounds_every, self.num_samples = bounds_every, num_samples

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        metrics: dict[str, float] = {}
        if module.base_updates % self.logs_every == 0:
            metrics = {k: float(v) for k, v in module.logs.items()}
            for player, optimizer in zip(("energy", "base"), trainer.optimizers, strict=True):
                metrics[f"lr/{player}"] = optimizer.param_groups[0]["lr"]
        if module.base_updates % self.bounds_every == 0:
            data = trainer.datamodule  # type: ignore[attr-defined]
            batches = {split: data.batches(split, stop=self.num_samples) for split in ("train", "val")}
            for split, told in bounds(module.gebm, batches, self.num_samples).items():
                metrics |= {f"{split}/eval_{k}": v for k, v in told.items()}
            with sampling_mode(module.critic), torch.no_grad():
                metrics |= {f"spectral_norm/{k}": float(v) for k, v in spectral_norms(module.critic).items()}
        if metrics:
            log(trainer, metrics, module)


@torch.no_grad()
def bounds(
    gebm: GEBM, splits: Mapping[str, Iterable[Batch]], num_samples: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """KALE, Donsker–Varadhan, c and log Z of a model in eval mode, from real batches of each split and the same `num_samples`
    base samples."""
    noise = BlockNoise(seed, stream="bounds")
    device = gebm.log_partition.device
    told = {}
    with sampling_mode(gebm):
        y = gebm.sample_labels(num_samples, noise)
        base = call_energy(gebm.energy, gebm.sample_base(num_samples, noise, y), y)
        c, log_z = gebm.log_partition, log_mean_exp(-base)
        for split, batches in splits.items():
            parts = []
            for batch in batches:
                labels = None if gebm.num_classes is None or batch.y is None else batch.y.to(device)
                parts.append(call_energy(gebm.energy, batch.x.to(gebm.log_partition), labels))
            real = torch.cat(parts).mean()
            values = {
                "kale": -(real + c) - torch.exp(log_z - c) + 1,
                "donsker_varadhan": -real - log_z,
                "c": c,
                "log_z": log_z,
            }
            told[split] = {k: float(v) for k, v in values.items()}
    return told
