"""`make_trainer`: Lightning's Trainer, ruled by the number of base updates."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from ..errors import UserError
from .networks import Networks
from .strategy import PlayersStrategy

PRECISIONS = ("32", "32-true", "64", "64-true", "bf16-mixed")
OURS = {
    "max_steps": "trainer.max_base_updates",
    "max_epochs": "trainer.max_base_updates",
    "gradient_clip_val": "optim.energy_clip_norm and optim.base_clip_norm",
    "accumulate_grad_batches": "data.batch_size",
}
FLAGS = ("enable_progress_bar", "enable_model_summary", "benchmark", "detect_anomaly", "deterministic")


class StopAtBaseUpdates(pl.Callback):
    """Ends training when the module has done `max_base_updates`."""

    def __init__(self, max_base_updates: int) -> None:
        self.max_base_updates = max_base_updates

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.base_updates >= self.max_base_updates:
            trainer.should_stop = True


def make_trainer(
    max_base_updates: int, channels_last: bool = False, compile: bool = False, **kwargs: Any
) -> pl.Trainer:
    """A Trainer that stops after `max_base_updates`; the other arguments are those of `Networks`, and Lightning's by name.

    Lightning counts optimiser steps, of which there are several a batch here, so its own limits and cadences are off:
    everything goes by the module's `base_updates`.

    Raises:
        UserError: an argument that Trainer does not have, one that has another home here, a precision or number of
            devices that cannot be served.
    """
    for key in kwargs:
        if key in OURS:
            raise UserError(f"trainer.{key} has no meaning for two alternating players: set {OURS[key]} instead")
        if key not in inspect.signature(pl.Trainer.__init__).parameters:
            raise UserError(f"trainer.{key} is not an argument of Lightning's Trainer")
        if key in FLAGS and not isinstance(kwargs[key], bool | None) and kwargs[key] != "warn":
            raise UserError(f"trainer.{key} must be true or false, not {kwargs[key]!r}")
    if max_base_updates < 1:
        raise UserError(f"trainer.max_base_updates must be at least 1, not {max_base_updates}")
    precision = str(kwargs.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision={precision} is not supported: one gradient scaler cannot serve two players; "
            f"choose one of {', '.join(PRECISIONS)}"
        )
    strategy = kwargs.pop("strategy", None)
    if strategy not in (None, "auto", "ddp"):
        raise UserError(
            f"trainer.strategy={strategy} is not made for two players that take turns: leave it at auto, which reduces the "
            "gradients of the player whose turn it is"
        )
    if check_devices(kwargs) > 1:
        kwargs["strategy"] = PlayersStrategy()
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        # Lightning would answer SIGUSR1 itself, before the update is done.
        kwargs["plugins"] = [*(kwargs.get("plugins") or []), SLURMEnvironment(auto_requeue=False)]
    # First, that what copies the networks has them as they are to be.
    networks = Networks(channels_last, compile)
    kwargs["callbacks"] = [networks, *(kwargs.get("callbacks") or []), StopAtBaseUpdates(max_base_updates)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        return pl.Trainer(
            max_epochs=-1, limit_val_batches=0, use_distributed_sampler=False, enable_checkpointing=False, **kwargs
        )


def check_devices(kwargs: dict[str, Any]) -> int:
    """How many processes will train, on all nodes."""
    devices, accelerator = kwargs.get("devices", 1), str(kwargs.get("accelerator", "auto"))
    gpus = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and gpus == 0:
        raise UserError(
            f"trainer.accelerator={accelerator}: this machine has no GPU that torch can use; take accelerator=cpu"
        )
    if devices == "auto":
        devices = kwargs["devices"] = 1
    indices = [int(i) for i in devices] if not isinstance(devices, (int, str)) else None
    if isinstance(devices, str) and not devices.isdigit():
        raise UserError(f"trainer.devices={devices} is not a number of devices")
    count = len(indices) if indices is not None else int(devices)
    if count < 1:
        raise UserError(f"trainer.devices={devices}: at least one device is needed")
    if indices is not None and max(indices) >= max(gpus, 1):
        raise UserError(f"trainer.devices={indices}: this machine has {gpus} GPUs, numbered from 0")
    if accelerator != "cpu" and gpus and count > gpus:
        raise UserError(f"trainer.devices={devices}: this machine has {gpus} GPUs")
    return count * int(kwargs.get("num_nodes", 1))
