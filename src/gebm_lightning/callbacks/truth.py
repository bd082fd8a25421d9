"""What a run on data of known truth recovered of it, into its `summary.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ..data.known import Known
from ..distributed import rank
from ..errors import UserError, check_number
from ..gebm import GEBM
from ..metrics.report import write_json
from ..metrics.truth import recovery
from ..noise import BlockNoise


class Truth(pl.Callback):
    """At the end: parameters of the base, slope and R² of the energy, errors of log Z, as `truth` in `summary.json` and printed.

    It stands after the evaluation, which writes that file.

    Args:
        num_samples: base samples behind the figures.
    """

    def __init__(self, num_samples: int = 20_000) -> None:
        check_number("callbacks.truth.num_samples", num_samples, low=20, integer=True)
        self.num_samples = num_samples

    def check(self, data: Any, gebm: GEBM) -> None:
        """Raise before training if the data have no known truth, or the base is no such support."""
        if not isinstance(data.source, Known):
            raise UserError(
                f"callbacks.truth needs data of known truth, such as data=line: {data.source.name} has none"
            )
        support: Any = getattr(gebm.base, "support", dict)()
        shapes = {name: value.shape for name, value in support.items()}
        if any(shapes.get(name) != value.shape for name, value in data.source.parameters.items()):
            raise UserError(
                f"callbacks.truth compares the base with {data.source.name}: take model={data.source.name}, "
                f"not a {type(gebm.base).__name__}"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.interrupted or rank() != 0:
            return
        gebm, _ = pl_module.evaluation_gebm()
        source = trainer.datamodule.source  # type: ignore[attr-defined]
        found = recovery(gebm, source, BlockNoise(pl_module.seed, stream="truth"), self.num_samples)
        path = Path(trainer.default_root_dir) / "summary.json"
        written = json.loads(path.read_text()) if path.is_file() else {"rows": []}
        write_json(path, written | {"truth": found})
        for name, parameter in found["parameters"].items():
            learned = ", ".join(f"{v:.3f}" for v in parameter["learned"])
            print(f"{name}: {learned} (true {', '.join(f'{v:g}' for v in parameter['true'])})")
        print("energy on the optimal one: slope {slope:.3f}, R² {r2:.3f}".format(**found["energy"]))
        z = found["log_partition"]
        errors = ", ".join(f"{method} {z[method]['error']:+.4f}" for method in ("learned", "monte_carlo", "ais"))
        print(f"log Z {z['quadrature']:.4f} by quadrature; errors: {errors}")
