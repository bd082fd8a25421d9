"""Scores of base, short run and equilibrium: a few while training, all at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from ..data.datamodule import SPLITS
from ..distributed import rank
from ..errors import UserError, check_number
from ..gebm import GEBM
from ..lightning.module import GEBMModule
from ..metrics.compare import HeldOut, check_per_class, compare, real_scorers
from ..metrics.curve import sampling_curve
from ..metrics.features import extract
from ..metrics.likelihood import has_density, negative_log_likelihoods
from ..metrics.reference import MAX_REAL
from ..metrics.report import describe, print_table, versions, write_json
from ..metrics.scores import Scorer, check_settings
from ..metrics.table import long_form
from ..noise import BlockNoise
from ..objectives.base import ScaledEnergy
from ..panels import TABLE
from ..samplers import SIR, Fitted, LatentSampler, Refiner
from .cadence import BaseUpdateCallback, log, log_image, log_table
from .images import curve_figure, save
from .monitor import bounds


class Evaluation(BaseUpdateCallback):
    """At the end: a table, `summary.json` and `images/relative_fid.png`. While training: FID of base, short run, equilibrium.

    Args:
        features: the extractor behind all scores.
        sampler: the short run.
        equilibrium: the model's own law at β = 1.
        splits: real splits scored against, the held-out one last.
        num_samples: samples of each method at the end.
        curve_steps: sampling steps of the relative-FID curve; empty for none.
        every_n_base_updates: cadence while training; None for the end only.
        num_samples_in_training: samples of each method while training.
        max_real: at most this many real samples of a split are scored against.
        per_class: at the end also score within each class, into `summary.json`.
        scores: settings of the `Scorer`: kid_subsets, kid_subset_size, prc_samples.
    """

    def __init__(
        self,
        features: nn.Module,
        sampler: Refiner,
        equilibrium: SIR,
        splits: Sequence[str] = ("train", "test"),
        num_samples: int = 10_000,
        curve_steps: Sequence[int] = (),
        every_n_base_updates: int | None = None,
        num_samples_in_training: int = 1000,
        max_real: int = MAX_REAL,
        per_class: bool = False,
        scores: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(every_n_base_updates)
        check_number("callbacks.evaluation.num_samples", num_samples, low=4, integer=True)
        check_number("callbacks.evaluation.num_samples_in_training", num_samples_in_training, low=4, integer=True)
        if not splits or not set(splits) <= set(SPLITS):
            raise UserError(f"callbacks.evaluation.splits must be some of {', '.join(SPLITS)}, not {list(splits)}")
        check_number("callbacks.evaluation.max_real", max_real, low=4, integer=True)
        self.max_real, self.per_class = max_real, per_class
        self.scores = check_settings("callbacks.evaluation.scores", scores or {})
        self.features, self.splits, self.num_samples = features, splits, num_samples
        self.methods: dict[str, Refiner] = {"short run": sampler, "equilibrium": equilibrium}
        if not isinstance(curve_steps, Sequence) or isinstance(curve_steps, str):
            raise UserError(f"callbacks.evaluation.curve_steps is a list of steps, not {curve_steps}")
        for step in curve_steps:
            check_number("each of callbacks.evaluation.curve_steps", step, low=1, integer=True)
        self.curve_steps, self.num_samples_in_training = curve_steps, num_samples_in_training
        self._scorers: dict[str, Scorer] = {}
        self._held_out: HeldOut | None = None

    def check(self, data: Any, gebm: GEBM) -> None:
        """Raise before training if the extractor does not take the data, or there are no classes to score."""
        for split in self.splits:
            for batch in data.batches(split, stop=2):
                extract(self.features, [batch.x])
        if self.per_class:
            check_per_class(gebm, {split: data.dataset(split).y for split in self.splits})

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._started = time.perf_counter()
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._scorers = real_scorers(
            data, self.features, self.splits, pl_module.seed, pl_module.device, self.max_real, **self.scores
        )
        fitted = any(isinstance(method, Fitted) for method in self.methods.values())
        self._held_out = HeldOut.of(data, pl_module.device) if fitted else None

    def on_base_update(self, trainer: pl.Trainer, module: GEBMModule) -> None:
        gebm, _ = module.evaluation_gebm()
        n = self.num_samples_in_training
        rows = compare(gebm, self.methods, self.features, self._scorers, n, module.seed, held_out=self._held_out)
        metrics = {}
        for row in rows:
            for split, scores in row["scores"].items():
                for key in (f"fid_{self.features.name}", "relative_fid"):
                    metrics[f"{split}/{key}/{row['method'].replace(' ', '_')}"] = scores[key]
        module.evaluated, module.evaluated_at = metrics, module.base_updates
        log(trainer, metrics, module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.interrupted:
            return
        training_seconds = time.perf_counter() - self._started
        gebm, base = pl_module.evaluation_gebm()
        rows = compare(
            gebm,
            self.methods,
            self.features,
            self._scorers,
            self.num_samples,
            pl_module.seed,
            per_class=self.per_class,
            held_out=self._held_out,
        )
        curve: dict[str, list[float]] = {}
        folder = Path(trainer.default_root_dir)
        sampler = self.methods["short run"]
        if self.curve_steps and isinstance(sampler, LatentSampler):
            n = min(self.num_samples, 5000)
            curve = sampling_curve(gebm, sampler, self.features, self._scorers, n, pl_module.seed, self.curve_steps)
        if rank() != 0:
            return
        if curve:
            settled = {split: scores["relative_fid"] for split, scores in rows[-1]["scores"].items()}
            figure, path = curve_figure(curve, settled, str(self.features.name)), folder / "images" / "relative_fid.png"
            save(figure, path)
            log_image(trainer, "relative_fid", path, figure, pl_module.base_updates)
        data = trainer.datamodule  # type: ignore[attr-defined]
        summary = {
            "rows": rows,
            "curve": curve,
            "bounds": bounds(gebm, {split: data.batches(split, stop=1000) for split in ("train", "val")}, 1000),
            "protocol": protocol(
                self.features, self._scorers, data, self.num_samples, pl_module.seed, base, self.methods
            ),
            **calibration(gebm),
            **likelihood(gebm, data, self.splits, pl_module.seed),
            "base_updates": pl_module.base_updates,
            "seconds": {
                "training": training_seconds,
                "evaluation": time.perf_counter() - self._started - training_seconds,
            },
            "device": str(pl_module.device),
            "versions": versions(),
        }
        write_json(folder / "summary.json", summary)
        log_table(trainer, TABLE, *long_form(rows, summary["protocol"]), pl_module.base_updates)
        self.on_final(trainer, pl_module, rows)

    def on_final(self, trainer: pl.Trainer, module: GEBMModule, rows: list[dict[str, Any]]) -> None:
        """Show and log the final rows."""
        metrics: dict[str, float] = {}
        for row in rows:
            for split, scores in row["scores"].items():
                metrics |= {f"final/{split}/{key}/{row['method'].replace(' ', '_')}": v for key, v in scores.items()}
        log(trainer, metrics, module)
        print_table(rows, f"{self.num_samples} samples each, after {module.base_updates} base updates")


def calibration(gebm: GEBM) -> dict[str, Any]:
    """How an energy without a log-ratio came by its scale; nothing for others."""
    energy = gebm.energy
    if not isinstance(energy, ScaledEnergy):
        return {}
    return {"calibration": {"scale": float(energy.scale), "calibrated": bool(energy.calibrated)}}


def likelihood(gebm: GEBM, data: Any, splits: Sequence[str], seed: int) -> dict[str, Any]:
    """Negative log-likelihoods where the base has a density and the model no labels; nothing for others."""
    if not has_density(gebm) or gebm.num_classes is not None:
        return {}
    return {"likelihood": negative_log_likelihoods(gebm, data, splits, BlockNoise(seed, stream="likelihood"))}


def protocol(
    features: nn.Module,
    scorers: dict[str, Scorer],
    data: Any,
    num_samples: int,
    seed: int,
    base: str,
    methods: Mapping[str, Any],
) -> dict[str, Any]:
    """All that a reader must know to compare the scores with others."""
    return {
        "extractor": features.name,
        "extractor_weights_sha256": features.digest,
        "extractor_input": features.resize,
        "data": data.source.name,
        "source": describe(data.source),
        "shape": list(data.shape),
        "labels": "none"
        if not any(s.labels is not None for s in scorers.values())
        else "as frequent as in the train split",
        "seed": seed,
        "base": base,
        "methods": {name: describe(method) for name, method in methods.items()},
        "splits": {split: scorer.protocol(num_samples) for split, scorer in scorers.items()},
    }
