"""Base, short runs and equilibrium side by side: the same latents, the same extractor, the same real images."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..distributed import broadcast, gather_objects, gather_rows, rank, shard
from ..errors import UserError
from ..gebm import GEBM
from ..noise import BlockNoise
from ..samplers import BaseSampler, Fitted, Refiner
from .features import extract
from .inception import Inception
from .kept import Kept
from .mixing import chain_mixing
from .reference import MAX_REAL, kept_at, real_features
from .scores import Scorer, inception_score

Row = dict[str, Any]
GRADIENT = 2.0
"""What an evaluation with its gradient costs, in evaluations without: a forward pass, and one back to the latents alone."""

TOLERANCE = 0.2
"""By which share a sampler's cost may miss the one that it is compared at."""


class HeldOut(NamedTuple):
    """Real data (m, *shape) of the validation split and their labels (m,), for refiners that learn something from them."""

    x: Tensor
    y: Tensor | None

    @classmethod
    def of(cls, data: Any, device: Any, limit: int = 2000) -> HeldOut:
        """The first `limit` of a data module's validation split."""
        batches = list(data.batches("val", stop=limit))
        if not batches:
            raise UserError("the data have no validation split, which this sampler learns from")
        y = None if batches[0].y is None else torch.cat([b.y for b in batches]).to(device)
        return cls(torch.cat([b.x for b in batches]).to(device), y)


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
            modes = getattr(data.source, "modes", None) if features.name == "identity" else None
            kept = Kept(kept_at(data, features, split, max_real))
            scorers[split] = Scorer(str(features.name), real, seed, labels=labels, modes=modes, kept=kept, **settings)
    return scorers


def sample_features(
    gebm: GEBM,
    refiner: Refiner,
    features: nn.Module,
    n: int,
    seed: int,
    stream: str = "evaluation",
    on_chains: Callable[[Tensor], dict[str, Any]] | None = None,
) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """(n, f) features of n samples, their labels (n,), and numbers about the sampling; processes share the work.

    `on_chains` gets the states (steps, 64, d) of the first chains, where there are such; what it finds joins the numbers.
    """
    labels = gebm.sample_labels(n, BlockNoise(seed, stream="labels" if stream == "evaluation" else f"{stream}/labels"))
    start, stop = shard(n)
    device, generated, info = gebm.log_partition.device, torch.empty(0, dtype=torch.float64), {}
    if stop > start:
        mine = None if labels is None else labels[start:stop]
        began = time.perf_counter()
        samples = refiner.refine(gebm, stop - start, BlockNoise(seed, stream=stream).shifted(start), mine)
        info = {k: v for k, v in samples.info.items() if not isinstance(v, Tensor)}
        info["seconds"] = time.perf_counter() - began
        if on_chains is not None and "watched" in samples.info:
            info |= on_chains(samples.info["watched"])
        if not torch.isfinite(samples.x).all():
            raise UserError(
                f"{type(refiner).__name__} drew samples that are NaN or infinite: lower its step size or beta"
            )
        generated = extract(features, samples.x.split(128), device, len(samples.x))
    parts = [(part, count) for part, count in gather_objects((info, stop - start)) if count]
    # What only the first chains tell, only the first process has.
    told = {k: [(part[k], count) for part, count in parts if k in part] for k in parts[0][0]}
    info = {
        k: sum(value * count for value, count in values) / sum(count for _, count in values)
        if isinstance(values[0][0], float)
        else values[0][0]
        for k, values in told.items()
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
    held_out: HeldOut | Callable[[], HeldOut] | None = None,
    equal_cost: float | None = None,
    done: Mapping[str, Row] | None = None,
    tolerant: Collection[str] = (),
) -> list[Row]:
    """One row for each refiner, the base first: its scores against each split and the FID relative to the base's.

    All start from the same generator: where a refiner begins with latents, they are the base's own. An extractor whose
    weights have a classifier of ImageNet gives the Inception Score besides; `per_class` adds the scores within each class.
    Several processes share the sampling; rank 0 scores, and all have the rows.

    Args:
        gebm: the model.
        refiners: by the name of their row.
        features: the extractor.
        scorers: by split.
        num_samples: of each.
        seed: of the samples.
        on_row: called with each row, on rank 0.
        per_class: also score within classes.
        held_out: what refiners with a `fit` learn from, or a function that gets it when it is first needed.
        equal_cost: also score each refiner whose length can be chosen at this cost in gradients a sample, into `equal_cost`.
        done: rows by name that are there already.
        tolerant: names of refiners whose errors become the row's `error`, instead of ending the comparison.

    Raises:
        UserError: `per_class` for an unconditional model or data without labels.
    """
    if per_class:
        check_per_class(gebm, {split: scorer.labels for split, scorer in scorers.items()})
    rows: list[Row] = []
    base_fid: dict[str, float] = {}

    def mixing(trace: Tensor) -> dict[str, float]:
        return chain_mixing(gebm, trace, features, next((s.modes for s in scorers.values()), None))

    for name, refiner in {"base": BaseSampler(), **refiners}.items():
        if done is not None and name in done:
            row = done[name]
            for split, scores in row["scores"].items():
                base_fid.setdefault(split, scores[next(k for k in scores if k.startswith("fid_"))])
        else:
            try:
                refiner = _fitted(refiner, gebm, held_out, seed)
                generated, labels, info = sample_features(gebm, refiner, features, num_samples, seed, on_chains=mixing)
                row = {"method": name, **info, "scores": {}}
                if rank() == 0:
                    _score(row, generated, labels, features, scorers, base_fid, seed, per_class)
                short = None if equal_cost is None else at_cost(refiner, info, equal_cost)
            except UserError as error:
                if name not in tolerant:
                    raise
                row, short = {"method": name, "scores": {}, "error": str(error)}, None
            if short is not None:
                try:
                    generated, _, info = sample_features(gebm, short, features, num_samples, seed)
                    row["equal_cost_gradients"] = cost_of(info)
                    # One sweep of a short chain can cost more than was wished for: then there is nothing to compare.
                    if abs(cost_of(info) - cast(float, equal_cost)) <= TOLERANCE * cast(float, equal_cost):
                        row["equal_cost"] = {s: scorer.fid(generated) / base_fid[s] for s, scorer in scorers.items()}
                except UserError as error:
                    row["equal_cost_error"] = str(error)
        rows.append(broadcast(row))
        if on_row is not None and rank() == 0:
            on_row(row)
    return rows


def _fitted(refiner: Refiner, gebm: GEBM, held_out: HeldOut | Callable[[], HeldOut] | None, seed: int) -> Refiner:
    if held_out is None or not isinstance(refiner, Fitted) or not getattr(refiner, "needs_data", True):
        return refiner
    held_out = held_out if isinstance(held_out, HeldOut) else held_out()
    if gebm.num_classes is not None and held_out.y is None:
        raise UserError(
            f"{type(refiner).__name__} of a conditional model needs labels of the held-out data: they have none"
        )
    y = held_out.y if gebm.num_classes is not None else None
    return refiner.fit(gebm, held_out.x.to(gebm.log_partition.dtype), BlockNoise(seed, stream="held out"), y)


def cost_of(info: Mapping[str, Any]) -> float:
    """Gradients a sample, values and tuning included."""
    gradients: float = info.get("gradients", 0.0) + info.get("tuning_gradients", 0.0)
    return gradients + info.get("evaluations", 0.0) / GRADIENT


def at_cost(refiner: Any, info: Mapping[str, Any], wanted: float) -> Any | None:
    """The refiner with as many steps or proposals as cost `wanted` gradients a sample, if `info` is that of what it has.

    What does not depend on its length, tuning and warm-up, is paid first. None where nothing of the kind can be chosen, or
    where nothing would be left.
    """
    inner = getattr(refiner, "refiner", None)
    if inner is not None:
        short = at_cost(inner, info, wanted)
        return None if short is None else replace(refiner, refiner=short)
    length = next((key for key in ("num_steps", "num_proposals") if hasattr(refiner, key)), None)
    tuning = info.get("tuning_gradients", 0.0)
    if length is None or cost_of(info) <= tuning:
        return None
    warmup = getattr(refiner, "warmup", 0)
    step = (cost_of(info) - tuning) / (getattr(refiner, length) + warmup)
    steps = round((wanted - tuning) / step - warmup)
    return replace(refiner, **{length: steps}) if steps >= 1 else None


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
