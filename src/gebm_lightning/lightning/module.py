"""The alternating game as a LightningModule: energy updates, then a base update, and the counters that rule all else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from .. import distributed
from .._version import __version__
from ..data.batch import Batch
from ..errors import UserError, check_number
from ..gebm import GEBM, estimate_log_partition
from ..noise import BlockNoise
from ..objectives import Objective
from ..objectives.penalties import AtLabels
from . import generators
from .losses import base_loss, energy_loss
from .optim import Optim, step_schedulers

FORMAT_VERSION = 1
TRAIN_MODES = ("both", "energy", "base")


class GEBMModule(pl.LightningModule):
    """Trains a GEBM: one `training_step` is one fresh batch and one energy update; a base update follows when due.

    Args:
        gebm: the model; its energy is the finished one, `objective.make_energy(critic)`.
        critic: the network that the objective's losses see.
        objective: what the players minimise.
        optim: optimisers of both.
        energy_schedule: base updates done -> energy updates before the next one.
        train_mode: "both", "energy" (the base stays as it is) or "base" (the energy stays).
        seed: all latents and penalty weights are functions of it and of the step.
        base_samples: samples of the base, or chains, for each real one, in the losses of both.

    Attributes:
        base_updates: the one counter; with train_mode="energy" it counts energy updates.
        steps: batches seen.
        logs: numbers of the last step, detached.
        ema: running average of the base, where a callback keeps one.
        interrupted: the number of the signal that asked the run to end early, or 0.
        evaluated: what the last evaluation while training found, and after how many base updates.
    """

    ema: nn.Module | None
    interrupted: int = 0

    def __init__(
        self,
        gebm: GEBM,
        critic: nn.Module,
        objective: Objective,
        optim: Optim,
        energy_schedule: Callable[[int], int],
        train_mode: str = "both",
        seed: int = 0,
        base_samples: int = 1,
    ) -> None:
        super().__init__()
        if train_mode not in TRAIN_MODES:
            raise UserError(f"train_mode must be one of {', '.join(TRAIN_MODES)}, not {train_mode}")
        self.automatic_optimization = False
        self.gebm = gebm
        # In a list, so that a critic inside gebm.energy does not appear twice in the state.
        self._critic = [critic]
        self.objective, self.optim, self.energy_schedule = objective, optim, energy_schedule
        check_number("base_samples", base_samples, low=1, integer=True)
        self.train_mode, self.seed, self.base_samples = train_mode, seed, base_samples
        self.steps = self.base_updates = self.energy_since_base = 0
        self.logs: dict[str, Tensor] = {}
        self.ema = None
        # Persistent chains and the like: part of the checkpoint, as the model is.
        self.objective_state = objective.make_state(gebm, BlockNoise(seed, stream="train/state"))
        self.evaluated, self.evaluated_at = dict[str, float](), 0

    @property
    def critic(self) -> nn.Module:
        """The network behind the energy."""
        return self._critic[0]

    def evaluation_gebm(self) -> tuple[GEBM, str]:
        """The model to sample and score, over the averaged base if there is one, and "ema" or "raw"."""
        if self.ema is None:
            return self.gebm, "raw"
        averaged = cast(nn.Module, self.ema.module)
        gebm = copy.copy(self.gebm)
        gebm._modules = self.gebm._modules | {"base": averaged}
        return gebm, "ema"

    def configure_optimizers(self) -> Any:
        return self.optim.configure(self.critic.parameters(), self.gebm.log_partition, self.gebm.base.parameters())

    def on_fit_start(self) -> None:
        # The player that stays as it is has its buffers stay as well, and is seen as it will be when sampled.
        self.gebm.base.train(self.train_mode != "energy")
        self.critic.train(self.train_mode != "base")
        distributed.synchronise(self.gebm, self.critic)
        distributed.same_everywhere(self)
        if self.steps == 0 and self.train_mode != "base":
            with distributed.alone():
                c = estimate_log_partition(self.gebm, BlockNoise(self.seed, stream="train/initial"))
            with torch.no_grad():
                self.gebm.log_partition.copy_(c)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        energy_optimizer, base_optimizer = cast(list[LightningOptimizer], self.optimizers())
        x, y = batch.x.to(self.gebm.log_partition.dtype), self._labels(batch)
        self.logs = {}
        if self.train_mode != "base":
            self._energy_update(x, y, energy_optimizer)
            self.energy_since_base += 1
        if self.train_mode == "base" or (
            self.train_mode == "both" and self.energy_since_base >= self.energy_schedule(self.base_updates)
        ):
            self._base_update(x, y, base_optimizer)
        self.steps += 1
        if self.train_mode == "energy" or "loss/base" in self.logs:
            self.base_updates += 1
            self.energy_since_base = 0
            step_schedulers(self.lr_schedulers() or [], self.trainer.optimizers, self.train_mode)

    def _labels(self, batch: Batch) -> Tensor | None:
        if self.gebm.num_classes is None:
            return None
        if batch.y is None:
            raise UserError(f"model.num_classes={self.gebm.num_classes} needs data with labels: these have none")
        return batch.y

    def _noise(self, player: str, n: int) -> BlockNoise:
        return BlockNoise(self.seed, stream=f"train/{self.steps}/{player}").shifted(distributed.rank() * n)

    def _energy_update(self, x_real: Tensor, y: Tensor | None, optimizer: LightningOptimizer) -> None:
        noise = self._noise("energy", x_real.shape[0])
        critic = self.critic if y is None else AtLabels(self.critic, y)
        with self.toggled_optimizer(optimizer):
            with torch.no_grad():
                x_base = self._negatives(x_real, y, noise).to(x_real)
            loss, logs = energy_loss(self.objective, self.gebm, critic, x_real, x_base, noise)
            self.logs |= logs
            self._descend("energy", loss, optimizer, self.critic.parameters())
            self.optim.clip_weights(self.critic.parameters())

    def _negatives(self, x_real: Tensor, y: Tensor | None, noise: BlockNoise) -> Tensor:
        if self.base_samples > 1:
            x_real = x_real.repeat_interleave(self.base_samples, 0)
            y = None if y is None else y.repeat_interleave(self.base_samples)
            noise = self._noise("negatives", len(x_real))
        return self.objective.negatives(self.gebm, x_real, noise, y, self.objective_state)

    def _base_update(self, x_real: Tensor, y: Tensor | None, optimizer: LightningOptimizer) -> None:
        n = x_real.shape[0]
        critic = self.critic if y is None else AtLabels(self.critic, y)
        with self.toggled_optimizer(optimizer):
            noise = self._noise("base", n)
            loss, logs = base_loss(self.objective, self.gebm, critic, x_real, y, noise, self.base_samples)
            self.logs |= logs
            self._descend("base", loss, optimizer, self.gebm.base.parameters())

    def _descend(
        self, player: str, loss: Tensor, optimizer: LightningOptimizer, parameters: Iterable[nn.Parameter]
    ) -> None:
        parameters = list(parameters)
        optimizer.zero_grad()
        self.manual_backward(loss)
        # c's gradient is a function of the gathered batch, the same on every process already.
        distributed.reduce_gradients(parameters)
        self.logs[f"grad_norm/{player}"] = self.optim.clip_gradients(player, parameters)
        optimizer.step()
        optimizer.zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gebm_lightning"] = {
            "format_version": FORMAT_VERSION,
            "version": __version__,
            "steps": self.steps,
            "base_updates": self.base_updates,
            "energy_since_base": self.energy_since_base,
            "generators": generators.collect(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["gebm_lightning"]
        self.steps, self.base_updates = state["steps"], state["base_updates"]
        self.energy_since_base = state["energy_since_base"]
        generators.restore(state.get("generators", []))
        if self.ema is None:
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: v for k, v in weights.items() if not k.startswith("ema.")}
