"""The file of an evaluation: which of its rows still hold, and how new ones are put beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest_of(x: Any) -> str:
    """SHA-256 of a tensor's numbers."""
    return hashlib.sha256(x.cpu().numpy().tobytes()).hexdigest()


def behaviour(gebm: Any) -> list[str]:
    """What the networks make of a few latents, in three digits: it changes with their code, which no weights tell."""
    import torch

    from ..noise import BlockNoise
    from ..samplers.gradients import sampling_mode

    noise = BlockNoise(0, stream="behaviour")
    with sampling_mode(gebm), torch.no_grad():
        y = gebm.sample_labels(16, noise)
        x = gebm.sample_base(16, noise, y)
        e = gebm.energy(x) if y is None else gebm.energy(x, y)
    return [f"{float(v):.3g}" for v in (x.abs().mean(), x.std(), e.mean(), e.std())]


def key_of(*parts: Any) -> str:
    """A short name of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Those of the file; none if there is none."""
    try:
        rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or not of this program: made anew
    return rows


def write_rows(
    out: Path,
    rows: list[dict[str, Any]],
    equilibrium_of: dict[str, str],
    rest: dict[str, Any],
    equal_cost: float | None,
) -> None:
    """Write json, table and figure; beside each method stands what its `equilibrium_of` scored."""
    from ..metrics.report import write_json
    from ..metrics.table import write_table

    by_name = {row["method"]: row for row in rows if row["scores"]}
    for row in rows:
        settled = by_name.get(equilibrium_of.get(row["method"], ""))
        if settled is not None and row["scores"]:
            row["equilibrium"] = {split: s["relative_fid"] for split, s in settled["scores"].items()}
    write_json(out, {"rows": rows, **rest})
    write_table(out, rows, equal_cost)
