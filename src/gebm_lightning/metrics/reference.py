"""Features of the real set, extracted once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..distributed import broadcast, gather_rows, rank, shard
from .features import extract
from .kept import write
from .report import describe

MAX_REAL = 50_000


def real_features(
    data: Any, features: nn.Module, split: str, device: torch.device | str = "cpu", max_real: int = MAX_REAL
) -> Tensor | None:
    """(m, f) features of the first `max_real` samples of a split of a data module, in float64; None but on rank 0.

    Where the extractor is `costly` they are kept as float32 in `$GEBM_CACHE` (else `~/.cache/gebm_lightning`), under a key
    made of the source's settings, the split, its size and a sample of its bytes, the shape, and the extractor's weights.
    Several processes share the work.
    """
    path = kept_at(data, features, split, max_real)
    kept = _read(path) if path is not None and rank() == 0 else None
    if broadcast(kept is not None):
        return kept
    start, stop = shard(data.dataset(split).count(max_real))
    batches = (batch.x for batch in data.batches(split, size=64, start=start, stop=stop))
    values = gather_rows(extract(features, batches, device, stop - start))
    if rank() != 0:
        return None
    if path is not None:
        values = values.float().double()
        write(path, lambda stream: np.save(stream, values.float().numpy(), allow_pickle=False))
    return values


def _read(path: Path) -> Tensor | None:
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False)).double()
    except (OSError, ValueError, EOFError):
        return None  # absent or damaged: it is made anew


def kept_at(data: Any, features: nn.Module, split: str, max_real: int = MAX_REAL) -> Path | None:
    """Where features of a real split are kept; None where their extractor is not costly."""
    if not getattr(features, "costly", False):
        return None
    root = Path(os.environ.get("GEBM_CACHE", "~/.cache/gebm_lightning")).expanduser()
    dataset = data.dataset(split)
    n = dataset.count(max_real)
    probe = dataset.__getitems__(data.order(split, 0, 64).tolist()).x
    # How the files came here does not matter.
    source = {k: v for k, v in describe(data.source).items() if k not in ("download", "cache")}
    text = f"{source}|{split}|{n} of {dataset.extent()}|{data.shape}|{features.name}|{features.digest}|in the order of a permutation"
    key = hashlib.sha256(text.encode() + probe.numpy().tobytes()).hexdigest()[:24]
    return root / "features" / f"{data.source.name}-{split}-{features.name}-{key}.npy"
