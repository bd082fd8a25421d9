"""How the score of a chain's states changes with the number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import gather_rows, shard
from ..gebm import GEBM, call_base
from ..noise import BlockNoise
from ..samplers import BaseSampler, LatentSampler, sample_chain
from ..samplers.refiner import chunks
from .compare import sample_features
from .features import extract
from .scores import Scorer


def sampling_curve(
    gebm: GEBM,
    sampler: LatentSampler,
    features: nn.Module,
    scorers: Mapping[str, Scorer],
    num_samples: int,
    seed: int,
    steps: Iterable[int],
) -> dict[str, list[float]]:
    """Relative FID of the chain's states after each of `steps` (counted from its first), by split; step 0 is the base."""
    wanted = sorted({0, *steps})
    sampler = sampler.tuned(gebm, BlockNoise(seed, stream="evaluation"))
    device = gebm.log_partition.device
    labels = gebm.sample_labels(num_samples, BlockNoise(seed, stream="labels"))
    collected: dict[int, list[Tensor]] = {step: [torch.empty(0, dtype=torch.float64)] for step in wanted}
    first, last = shard(num_samples)
    evaluation = BlockNoise(seed, stream="evaluation").shifted(first)
    potential = sampler.potential(gebm)
    for rows, noise in chunks(last - first, evaluation, sampler.chains(potential)) if last > first else ():
        z0 = gebm.prior.sample(rows.stop - rows.start, noise)
        y = None if labels is None else labels[first:last][rows]

        def collect(step: int, state: Any, info: Any, y: Tensor | None = y) -> None:
            if step in collected:
                collected[step].append(extract(features, call_base(gebm.base, state.z, y).split(128), device))

        with torch.no_grad():
            sample_chain(
                sampler.kernel,
                potential.given(y),
                z0,
                wanted[-1],
                generator=noise,
                schedule=sampler.schedule,
                beta_schedule=sampler.beta_schedule,
                on_step=collect,
            )
    generated_base, *_ = sample_features(gebm, BaseSampler(), features, num_samples, seed)
    at = {s: gather_rows(torch.cat([p for p in parts if len(p)] or parts)) for s, parts in collected.items() if s > 0}
    curve: dict[str, list[float]] = {"step": [float(s) for s in wanted]}
    for split, scorer in scorers.items():
        reference = scorer.fid(generated_base)
        curve[split] = [1.0 if s == 0 else scorer.fid(at[s]) / reference for s in wanted]
    return curve
