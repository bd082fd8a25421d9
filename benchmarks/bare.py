"""The game in plain PyTorch: as tight as it can be written, and as textbooks write it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from gebm_lightning import build
from gebm_lightning.networks.activations import LeakyReLU

LinearLR, Adam = torch.optim.lr_scheduler.LinearLR, torch.optim.Adam


class Bare:
    """KALE with a gradient penalty, c, Adam, linear schedules and the base's average: the arithmetic of the default run.

    As textbooks have it, the base's samples carry a graph into the energy's step, normalised weights are computed at each
    pass, zeros are sent back as second derivatives of leaky ReLUs, and in the base's step the critic's weights get gradients
    and the real batch goes through the critic again.
    """

    def __init__(self, cfg: Any, images: Tensor, textbook: bool = False) -> None:
        gebm = build(cfg)
        self.base, self.energy, self.c = gebm.base.train(), gebm.energy.train(), gebm.log_partition
        for module in self.energy.modules() if textbook else ():
            if isinstance(module, LeakyReLU):
                module.__class__ = torch.nn.LeakyReLU  # type: ignore[assignment]
        self.images, self.n, self.d, self.textbook = images, cfg.data.batch_size, cfg.model.latent_dim, textbook
        self.weight, self.critic_steps = cfg.objective.penalties.gradient.weight, cfg.energy_schedule.num
        c_group = {"params": [self.c], "lr": cfg.optim.log_partition_lr}
        energy, base = ({"lr": o.lr, "betas": tuple(o.betas)} for o in (cfg.optim.energy, cfg.optim.base))
        self.energy_optimizer = Adam([{"params": list(self.energy.parameters())}, c_group], **energy)
        self.base_optimizer = Adam(self.base.parameters(), **base)
        updates = cfg.trainer.max_base_updates
        self.schedules = [LinearLR(o, 1.0, 0.02, updates) for o in (self.energy_optimizer, self.base_optimizer)]
        self.ema = [p.detach().clone() for p in self.base.parameters()]
        self.order, self.at = torch.randperm(len(images)), 0

    def update(self) -> None:
        """One base update and the energy updates before it."""
        for _ in range(self.critic_steps):
            x = self._batch()
            with nullcontext() if self.textbook else parametrize.cached():
                self._energy_step(x)
        self._base_step(x)
        for schedule in self.schedules:
            schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, list(self.base.parameters()), 0.01)

    def _batch(self) -> Tensor:
        if self.at + self.n > len(self.images):
            self.order, self.at = torch.randperm(len(self.images)), 0
        rows = self.order[self.at : self.at + self.n]
        self.at += self.n
        return self.images[rows].float() / 127.5 - 1

    def _latents(self) -> Tensor:
        return torch.randn(self.n, self.d)

    def _energy_step(self, x: Tensor) -> None:
        with torch.set_grad_enabled(self.textbook):
            fake = self.base(self._latents())
        e_real, e_base = self.energy(x), self.energy(fake.detach())
        c = self.c.detach()
        loss = e_real.mean() + c + torch.exp(-e_base - c).mean() - 1
        alpha = torch.rand(self.n, 1, 1, 1)
        between = (alpha * x + (1 - alpha) * fake.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(self.energy(between).sum(), between, create_graph=True)
        loss = loss + self.weight * gradient.flatten(1).square().sum(1).mean()
        self.energy_optimizer.zero_grad()
        loss.backward()
        self.c.grad = torch.exp(c - torch.logsumexp(-e_base.detach(), 0) + math.log(self.n)) - 1
        self.energy_optimizer.step()

    def _base_step(self, x: Tensor) -> None:
        self.energy.requires_grad_(self.textbook)
        e_base = self.energy(self.base(self._latents()))
        loss = -torch.logsumexp(-e_base, 0) + math.log(self.n)
        if self.textbook:
            loss = loss - self.energy(x).mean()
        self.base_optimizer.zero_grad()
        loss.backward()
        self.base_optimizer.step()
        self.energy.requires_grad_(True)
