"""The last bit of log Z: c finished by its own, unbiased gradient where the amortised one leaves it too low."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from .. import distributed
from ..errors import check_number
from ..gebm import GEBM, call_energy, log_mean_exp
from ..lightning.module import GEBMModule
from ..noise import BlockNoise, Generator
from ..samplers.gradients import sampling_mode
from ..samplers.refiner import chunks
from .cadence import log


class FinishLogPartition(pl.Callback):
    """When training is over, where c is off: c ← c − η_t (1 − exp(ĉ_t − c)) on fresh batches of M base samples.

    It is off by its bias, CV²(e^{−E})/M ≥ `threshold`, or by its delay behind a moving energy, |c − ĉ| ≥ `threshold` with ĉ of
    many samples. The root of the amortised gradient e^{c − ĉ} − 1 is at e^{−c} = E[e^{−ĉ}], below log Z by about CV²/M with M
    samples a batch; that of the raw one is log Z itself. It stands behind what may take back the best weights and before
    what saves, and leaves an averaged base alone: c belongs to the raw one.

    Args:
        threshold: bias or delay, in nats, from which on c is finished.
        num_steps: steps of the raw gradient, with η_t = 1/(10 + t).
        num_samples: base samples that CV² and the delay are estimated on.
    """

    def __init__(self, threshold: float = 0.01, num_steps: int = 1000, num_samples: int = 10_000) -> None:
        check_number("callbacks.log_partition.threshold", threshold, low=0)
        check_number("callbacks.log_partition.num_steps", num_steps, low=1, integer=True)
        check_number("callbacks.log_partition.num_samples", num_samples, low=2, integer=True)
        self.threshold, self.num_steps, self.num_samples = threshold, num_steps, num_samples

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # The one epoch's end, where the last checkpoint is written: on_train_end would come too late for it.
        if pl_module.interrupted or not pl_module.objective.learns_log_partition:
            return
        module: GEBMModule = pl_module
        batch = distributed.world_size() * trainer.datamodule.batch_size * module.base_samples  # type: ignore[attr-defined]
        before = module.gebm.log_partition.item()
        noise = BlockNoise(module.seed, stream="log_partition")
        with distributed.alone():
            log_z, variance = moments(module.gebm, noise.substream("moments"), self.num_samples)
            bias, c = variance / batch, before
            if max(bias, abs(before - log_z)) >= self.threshold:
                c = finish(module.gebm, noise.substream("steps"), batch, self.num_steps, start=log_z)
        with torch.no_grad():
            module.gebm.log_partition.fill_(distributed.broadcast(c))
        metrics = {"bias": bias, "before": before, "after": module.gebm.log_partition.item()}
        log(trainer, {f"log_partition/{key}": value for key, value in metrics.items()}, module)


def moments(gebm: GEBM, generator: Generator, num_samples: int) -> tuple[float, float]:
    """log Z, and CV²(e^{−E}) = Var_Q[e^{−E}] / E_Q[e^{−E}]², from base samples."""
    log_weights = -_energies(gebm, generator, num_samples)
    log_z = log_mean_exp(log_weights)
    return log_z.item(), torch.expm1(log_mean_exp(2 * log_weights) - 2 * log_z).item()


def finish(gebm: GEBM, generator: Generator, batch: int, num_steps: int, start: float | None = None) -> float:
    """c after `num_steps` steps of the raw gradient 1 − exp(ĉ − c), on `batch` fresh base samples each, from `start` or its value."""
    # From a Monte-Carlo log Z, since the steps together go down by a few nats only.
    c = gebm.log_partition.item() if start is None else start
    for t in range(num_steps):
        noise = generator.shifted(t * batch) if isinstance(generator, BlockNoise) else generator
        c_hat = log_mean_exp(-_energies(gebm, noise, batch)).item()
        gradient = -torch.expm1(torch.tensor(c_hat - c, dtype=torch.float64)).item()
        # Unbounded below while c lags: a first move of e^{ĉ − c} would not be undone by steps that become smaller.
        c += min(-gradient / (10 + t), 1.0)
    return c


@torch.no_grad()
def _energies(gebm: GEBM, generator: Generator, n: int) -> torch.Tensor:
    energies = []
    with sampling_mode(gebm):
        for rows, noise in chunks(n, generator, 4096):
            y = gebm.sample_labels(rows.stop - rows.start, noise)
            x = gebm.sample_base(rows.stop - rows.start, noise, y)
            energies.append(call_energy(gebm.energy, x, y).double())
    return torch.cat(energies)
