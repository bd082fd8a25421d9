"""Latent sampling beside training: the same latents at successive steps, and a grid of base beside GEBM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from ..distributed import rank
from ..errors import UserError, check_number
from ..gebm import GEBM, call_base
from ..lightning.module import GEBMModule
from ..noise import BlockNoise
from ..samplers import BaseSampler, LatentSampler, Refiner, sample_chain, sampling_mode
from .cadence import BaseUpdateCallback, log_image
from .images import save, side_by_side, strip


class LatentSampling(BaseUpdateCallback):
    """Writes `images/grid.png` and `images/strip.png` (at the end), or with the update in their names (while training).

    Args:
        sampler: what draws the grid; chains have a strip besides.
        every_n_base_updates: cadence while training; None for the end only.
        num_samples: samples in the grid.
        strip_steps: steps shown in the strip, early to late.
        strip_rows: chains shown in the strip.
    """

    everywhere: ClassVar[bool] = False

    def __init__(
        self,
        sampler: Refiner,
        every_n_base_updates: int | None = 500,
        num_samples: int = 64,
        strip_steps: Sequence[int] = (0, 5, 10, 20, 30, 50, 100),
        strip_rows: int = 8,
    ) -> None:
        super().__init__(every_n_base_updates)
        check_number("callbacks.sampling.num_samples", num_samples, low=1, integer=True)
        if not strip_steps or min(strip_steps) < 0:
            raise UserError(
                f"callbacks.sampling.strip_steps must be step numbers of at least 0, not {list(strip_steps)}"
            )
        self.sampler, self.num_samples, self.strip_steps, self.strip_rows = (
            sampler,
            num_samples,
            strip_steps,
            strip_rows,
        )

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        self._write(trainer, module, f"-{module.base_updates:07d}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not pl_module.interrupted and rank() == 0:
            self._write(trainer, pl_module, "")

    def _write(self, trainer: pl.Trainer, module: GEBMModule, suffix: str) -> None:
        gebm, _ = module.evaluation_gebm()
        points = 2000 if len(trainer.datamodule.shape) == 1 else self.num_samples  # type: ignore[attr-defined]
        noise = (module.seed, 0, "pictures")
        y = ordered_labels(gebm, points)
        pictures = {
            "base": BaseSampler().refine(gebm, points, BlockNoise(*noise), y).x,
            "GEBM": self.sampler.refine(gebm, points, BlockNoise(*noise), y).x,
        }
        figures = {"grid": side_by_side(pictures, y)}
        if isinstance(self.sampler, LatentSampler):
            chains = max(self.strip_rows, points if points == 2000 else 0)
            states = chain_states(gebm, self.sampler, chains, module.seed, self.strip_steps)
            figures["strip"] = strip(states, self.strip_steps, self.strip_rows, ordered_labels(gebm, chains))
        for name, figure in figures.items():
            path = Path(trainer.default_root_dir) / "images" / f"{name}{suffix}.png"
            save(figure, path)
            log_image(trainer, name, path, figure, module.base_updates)


def ordered_labels(gebm: GEBM, n: int) -> Tensor | None:
    """Labels 0, 1, … in turn, for pictures; None for an unconditional model."""
    if gebm.num_classes is None:
        return None
    return torch.arange(n, device=gebm.log_partition.device) % gebm.num_classes


def chain_states(gebm: Any, sampler: LatentSampler, n: int, seed: int, steps: Sequence[int]) -> list[Tensor]:
    """Base outputs (n, *shape) of n chains after each of `steps`."""
    noise = BlockNoise(seed, stream="pictures")
    z0 = gebm.prior.sample(n, noise)
    y = ordered_labels(gebm, n)
    latents = {0: z0}

    def keep(step: int, state: Any, info: Any) -> None:
        if step in steps:
            latents[step] = state.z

    sample_chain(
        sampler.kernel,
        sampler.potential(gebm, y),
        z0,
        max(steps),
        generator=noise,
        schedule=sampler.schedule,
        on_step=keep,
    )
    with sampling_mode(gebm), torch.no_grad():
        return [call_base(gebm.base, latents[step], y) for step in steps]
