"""What the methods of a comparison are held against: the equilibrium of each, and real data that the energy must prefer."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from ..errors import UserError
from ..noise import BlockNoise
from ..samplers import SIR
from ..transports import Calibrated
from ..transports.calibration import WRONG_WAY, logits

Law = tuple[float, str]


def law(refiner: Any) -> Law | None:
    """What a refiner's chains would arrive at: β, and how the energy is calibrated ("" for not); None where it has no β."""
    calibrated = isinstance(refiner, Calibrated)
    inner = refiner.refiner if calibrated else refiner
    return (inner.beta, refiner.method if calibrated else "") if hasattr(inner, "beta") else None


def equilibria(refiners: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Importance resampling for each law among the refiners that none of them resamples yet, by the name of its row; and the
    row that each refiner is to be held against."""
    laws = {name: found for name, refiner in refiners.items() if (found := law(refiner)) is not None}
    rows: dict[Law, str] = {}
    for name, found in laws.items():
        if type(getattr(refiners[name], "refiner", refiners[name])) is SIR:
            rows.setdefault(found, name)
    added: dict[str, Any] = {}
    for beta, method in sorted(set(laws.values()) - set(rows)):
        name = f"equilibrium at beta {beta:g}" + (f", {method} calibration" if method else "")
        added[name] = Calibrated(SIR(beta=beta), method) if method else SIR(beta=beta)
        rows[beta, method] = name
    return added, {name: rows[found] for name, found in laws.items()} | {name: name for name in added}


def wrong_way(gebm: Any, held_out: Any, seed: int) -> str | None:
    """What to say of an energy that is no lower on held-out real data than on base samples, beyond chance; else None."""
    try:
        x, y = held_out()
        if gebm.num_classes is not None and y is None:
            return None
        y = y if gebm.num_classes is not None else None
        d_real, d_base = logits(gebm, x.to(gebm.log_partition), BlockNoise(seed, stream="held out"), y)
    except UserError:
        return None  # no held-out data, or an energy whose own rows will say what is wrong
    d = torch.cat([d_real, d_base]).double().cpu()
    if not torch.isfinite(d).all():
        return None
    m = len(d_real)
    area = float(roc_auc_score([1] * m + [0] * m, d.numpy()))
    # Three standard errors of the area where both laws are one.
    return None if area > 0.5 - 3 * ((2 * m + 1) / (12 * m * m)) ** 0.5 else f"{WRONG_WAY} (AUC {area:.2f})"
