"""Base, short runs and equilibrium side by side: the same latents, the same extractor, the same real images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import broadcast, gather_objects, gather_rows, rank, shard
from ..errors import UserError
from ..gebm import GEBM, call_base
from ..noise import BlockNoise
from ..samplers import BaseSampler, LatentSampler, Refiner, sample_chain
from ..samplers.refiner import chunks
from .features import extract
from .inception import Inception
from .reference import MAX_REAL, real_features
from .scores import Scorer, inception_score

Row = dict[str, Any]


def real_scorers(
    data: Any,
    features: nn.Module,
    splits: Iterable[str],
    seed: int,
    device: Any = "cpu",
    max_real: int = MAX_REAL,
    **settings: Any,
) -> dict[str, Scorer]:
    """A scorer with `settings` for each real split of a data module; none but on rank 0, though all must call this."""
    features.to(device)
    scorers = {}
    for split in splits:
        real = real_features(data, features, split, device, max_real)
        if real is not None:
            labels = data.labels(split, len(real))
            scorers[split] = Scorer(str(features.name), real, seed, labels=labels, **settings)
    return scorers


def sample_features(
    gebm: GEBM, refiner: Refiner, features: nn.Module, n: int, seed: int, stream: str = "evaluation"
) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """(n, f) features of n samples, their labels (n,), and numbers about the sampling; processes share the work."""
    labels = gebm.sample_labels(n, BlockNoise(seed, stream="labels" if stream == "evaluation" else f"{stream}/labels"))
    start, stop = shard(n)
    device, generated, info = gebm.log_partition.device, torch.empty(0, dtype=torch.float64), {}
    if stop > start:
        mine = None if labels is None else labels[start:stop]
        began = time.perf_counter()
        samples = refiner.refine(gebm, stop - start, BlockNoise(seed, stream=stream).shifted(start), mine)
        info = {k: v for k, v in samples.info.items() if not isinstance(v, Tensor)}
        info["seconds"] = time.perf_counter() - began
        generated = extract(features, samples.x.split(128), device)
    parts = [(part, count) for part, count in gather_objects((info, stop - start)) if count]
    info = {
        k: sum(part[k] * count for part, count in parts) / n if isinstance(v, float) else v
        for k, v in parts[0][0].items()
    }
    return gather_rows(generated), None if labels is None else labels.cpu(), info


def compare(
    gebm: GEBM,
    refiners: Mapping[str, Refiner],
    features: nn.Module,
    scorers: Mapping[str, Scorer],
    num_samples: int,
    seed: int,
    on_row: Callable[[Row], None] | None = None,
    per_class: bool = False,
) -> list[Row]:
    """One row for each refiner, the base first: its scores against each split and the FID relative to the base's.

    All start from the same generator: where a refiner begins with latents, they are the base's own. An extractor whose
    weights have a classifier of ImageNet gives the Inception Score besides; `per_class` adds the scores within each class.
    Several processes share the sampling; rank 0 scores, and all have the rows.

    Raises:
        UserError: `per_class` for an unconditional model or data without labels.
    """
    if per_class:
        check_per_class(gebm, {split: scorer.labels for split, scorer in scorers.items()})
    rows: list[Row] = []
    base_fid: dict[str, float] = {}
    for name, refiner in {"base": BaseSampler(), **refiners}.items():
        generated, labels, info = sample_features(gebm, refiner, features, num_samples, seed)
        row: Row = {"method": name, **info, "scores": {}}
        if rank() == 0:
            _score(row, generated, labels, features, scorers, base_fid, seed, per_class)
        rows.append(broadcast(row))
        if on_row is not None and rank() == 0:
            on_row(row)
    return rows


def _score(
    row: Row,
    generated: Tensor,
    labels: Tensor | None,
    features: nn.Module,
    scorers: Mapping[str, Scorer],
    base_fid: dict[str, float],
    seed: int,
    per_class: bool,
) -> None:
    class_scores = getattr(features, "class_scores", None)
    if labels is not None and class_scores is not None:
        row["class_accuracy"] = (class_scores(generated).argmax(1) == labels).double().mean().item()
    logits = features.logits(generated) if isinstance(features, Inception) else None
    if logits is not None:
        row["inception_score"], row["inception_score_std"] = inception_score(logits, seed)
    if per_class and labels is not None:
        row["classes"] = {split: scorer.by_class(generated, labels) for split, scorer in scorers.items()}
    for split, scorer in scorers.items():
        scores = scorer(generated)
        fid = scores[f"fid_{scorer.name}"]
        base_fid.setdefault(split, fid)
        row["scores"][split] = scores | {"relative_fid": fid / base_fid[split]}


def check_per_class(gebm: GEBM, labels: Mapping[str, Tensor | None]) -> None:
    """Raise if there are no classes to score, given the real splits' labels."""
    if gebm.num_classes is None:
        raise UserError(
            "per_class=true scores within classes: this model is unconditional, it has no model.num_classes"
        )
    for split, given in labels.items():
        if given is None:
            raise UserError(f"per_class=true scores within classes: the {split} data have no labels")


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
    device = gebm.log_partition.device
    labels = gebm.sample_labels(num_samples, BlockNoise(seed, stream="labels"))
    collected: dict[int, list[Tensor]] = {step: [torch.empty(0, dtype=torch.float64)] for step in wanted}
    first, last = shard(num_samples)
    evaluation = BlockNoise(seed, stream="evaluation").shifted(first)
    for rows, noise in chunks(last - first, evaluation, sampler.chunk) if last > first else ():
        z0 = gebm.prior.sample(rows.stop - rows.start, noise)
        y = None if labels is None else labels[first:last][rows]

        def collect(step: int, state: Any, info: Any, y: Tensor | None = y) -> None:
            if step in collected:
                collected[step].append(extract(features, [call_base(gebm.base, state.z, y)], device))

        with torch.no_grad():
            sample_chain(
                sampler.kernel,
                gebm.potential(sampler.beta, y),
                z0,
                wanted[-1],
                generator=noise,
                schedule=sampler.schedule,
                on_step=collect,
            )
    generated_base, *_ = sample_features(gebm, BaseSampler(), features, num_samples, seed)
    at = {s: gather_rows(torch.cat([p for p in parts if len(p)] or parts)) for s, parts in collected.items() if s > 0}
    curve: dict[str, list[float]] = {"step": [float(s) for s in wanted]}
    for split, scorer in scorers.items():
        reference = scorer.fid(generated_base)
        curve[split] = [1.0 if s == 0 else scorer.fid(at[s]) / reference for s in wanted]
    return curve
