"""The scale of energies whose critic gives no log-ratio: what a held-out logistic regression makes of it."""

from __future__ import annotations

import warnings
from typing import Any

import pytorch_lightning as pl
import torch

from .. import distributed
from ..errors import UserError, check_number
from ..gebm import call_base
from ..lightning.module import GEBMModule
from ..metrics.compare import HeldOut
from ..noise import BlockNoise
from ..objectives.base import ScaledEnergy
from ..objectives.mmd import WitnessEnergy
from ..samplers.gradients import sampling_mode
from ..transports.calibration import LogisticCalibration, calibrate, logits
from .cadence import BaseUpdateCallback, log


class Calibration(BaseUpdateCallback):
    """Fits s of E = −s·v, and a witness's reference samples, before what else happens at the same update and at the end.

    Other energies are left alone. A critic that cannot be calibrated, for it does not rank held-out real above base samples or
    tells all of them apart, keeps its last s; a warning says so, and `calibrated` in `summary.json` is 0.

    Args:
        every_n_base_updates: cadence while training; None for the end only.
        num_samples: held-out real samples, and as many of the base.
    """

    def __init__(self, every_n_base_updates: int | None = 500, num_samples: int = 2000) -> None:
        super().__init__(every_n_base_updates)
        check_number("callbacks.calibration.num_samples", num_samples, low=2, integer=True)
        self.num_samples = num_samples

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        energy = module.gebm.energy
        if not isinstance(energy, ScaledEnergy):
            return
        with distributed.alone():
            self._calibrate(trainer, module, energy)
        distributed.same_everywhere(energy)
        log(trainer, {"calibration/scale": float(energy.scale), "calibration/done": float(energy.calibrated)}, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # The one epoch's end, where the last checkpoint is written: on_train_end would come too late for it.
        if not pl_module.interrupted:
            self.on_base_update(trainer, pl_module)

    @torch.no_grad()
    def _calibrate(self, trainer: pl.Trainer, module: GEBMModule, energy: ScaledEnergy) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        gebm, _ = module.evaluation_gebm()
        held_out, noise = (
            HeldOut.of(data, module.device, self.num_samples),
            BlockNoise(module.seed, stream="calibration"),
        )
        y = None if gebm.num_classes is None else held_out.y
        with sampling_mode(gebm):
            if isinstance(energy, WitnessEnergy):
                m = energy.num_reference
                real = torch.cat([b.x for b in data.batches("train", stop=m)]).to(gebm.log_partition)
                energy.refer(real, call_base(gebm.base, gebm.prior.sample(m, noise.substream("reference"))))
        before = energy.scale.clone()
        energy.scale.fill_(1.0)
        try:
            found = calibrate(*logits(gebm, held_out.x, noise, y))
        except UserError as error:
            warnings.warn(
                f"the energy after {module.base_updates} base updates stays uncalibrated: {error}", stacklevel=1
            )
            energy.scale.copy_(before)
            energy.calibrated.zero_()
            return
        assert isinstance(found, LogisticCalibration)
        energy.scale.fill_(found.slope.item())
        energy.calibrated.fill_(1.0)
