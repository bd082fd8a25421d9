"""What scoring costs beside the extractor's own forward pass over the generated images."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gebm_lightning.data.batch import to_uint8
from gebm_lightning.metrics.features import Digits, extract
from gebm_lightning.metrics.inception import Inception
from gebm_lightning.metrics.scores import Scorer

from .timing import Row, interleave, ratio

SAMPLES, REAL = 50_000, 10_000


def rows(device: str) -> Iterator[Row]:
    """The table's part on scoring; with `GEBM_INCEPTION` the path of the weights, of Inception as well."""
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(4096, 1, 8, 8, generator=noise) * 2 - 1
    yield extraction("digits", Digits().to(device), images.split(128), device)[0]
    weights = os.environ.get("GEBM_INCEPTION", "")
    if not Path(weights).is_file():
        return
    inception = Inception(weights).to(device)
    images = torch.rand(32, 3, 32, 32, generator=noise) * 2 - 1
    row, seconds = extraction("inception", inception, images.split(32), device)
    yield row
    # All of 50,000 would take an hour on a core, most of it the forward pass; the rest is measured whole.
    scorer = Scorer("inception", torch.rand(REAL, 2048, generator=noise))
    generated = torch.rand(SAMPLES, 2048, generator=noise, dtype=torch.float64)
    scorer(generated[:2000])
    start = time.perf_counter()
    scorer(generated)
    after = time.perf_counter() - start
    forward = seconds / len(images) * SAMPLES
    yield Row(f"inception: scoring {SAMPLES:,} samples / forward pass over them", row.value + after / forward, 1.10)


def extraction(name: str, features: nn.Module, batches: tuple[torch.Tensor, ...], device: str) -> tuple[Row, float]:
    """Features of batches against the bare network's, and the latter's seconds."""
    network: Any = features.network if name == "inception" else features.features
    inputs = [to_uint8(x) if name == "inception" else x for x in batches]

    @torch.no_grad()
    def bare() -> None:
        for x in inputs:
            network(x.to(device))

    seconds = interleave({"ours": lambda: extract(features, batches, device), "bare": bare})
    row = Row(f"{name}: features / forward pass of the extractor", ratio(seconds["ours"], seconds["bare"]), 1.10)
    return row, min(seconds["bare"])
