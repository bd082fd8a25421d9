"""The top-level keys of each command's config, with their types, and what the configs' resolvers mean."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf


@dataclass
class TrainSchema:
    """Top level of `train`."""

    name: str = MISSING
    seed: int = MISSING
    # Not in train.yaml, which would rule over an objective that is for one player.
    train_mode: str = "both"
    base_samples: int = MISSING
    init: str | None = None
    resume: str | None = None
    run_dir: str | None = None
    sweep_objective: str = MISSING
    debug: bool = False
    trust: list[str] = field(default_factory=list)
    model: Any = MISSING
    objective: Any = MISSING
    energy_schedule: Any = MISSING
    optim: Any = MISSING
    data: Any = MISSING
    features: Any = MISSING
    sampler: Any = MISSING
    callbacks: Any = MISSING
    logger: Any = MISSING
    trainer: Any = MISSING


@dataclass
class SampleSchema:
    """Top level of `sample`."""

    ckpt: str | None = None
    num_samples: int = MISSING
    seed: int = MISSING
    labels: list[int] | None = None
    ema: bool = True
    out: str | None = None
    device: str = "auto"
    debug: bool = False
    trust: list[str] = field(default_factory=list)
    sampler: Any = None
    model: Any = None
    objective: Any = MISSING
    data: Any = field(default_factory=dict)
    features: Any = field(default_factory=dict)


@dataclass
class EvaluateSchema:
    """Top level of `evaluate`."""

    ckpt: str | None = None
    compare: list[str] = field(default_factory=list)
    methods: Any = MISSING
    num_samples: int = MISSING
    splits: list[str] = field(default_factory=list)
    max_real: int = MISSING
    per_class: bool = False
    equal_cost: float | None = None
    scores: Any = MISSING
    seed: int | None = None
    ema: bool = True
    out: str | None = None
    device: str = "auto"
    debug: bool = False
    trust: list[str] = field(default_factory=list)
    model: Any = None
    objective: Any = MISSING
    features: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)


@dataclass
class ParticlesSchema:
    """Top level of `particles`."""

    num_steps: int = MISSING
    num_particles: int = MISSING
    source: Any = MISSING
    target: Any = MISSING
    benchmark: str | None = None
    seed: int = MISSING
    animation: str | None = None
    frames: int = MISSING
    fps: int = MISSING
    out: str | None = None
    device: str = "auto"
    debug: bool = False
    particles: Any = MISSING
    data: Any = None
    model: Any = None
    features: Any = None


@dataclass
class ExportSchema:
    """Top level of `export`."""

    ckpt: str | None = None
    out: str | None = None
    ema: bool = True
    program: bool = True
    hub: str | None = None
    debug: bool = False
    trust: list[str] = field(default_factory=list)


@dataclass
class ReportSchema:
    """Top level of `report`."""

    run: str | None = None
    out: str | None = None
    debug: bool = False


@dataclass
class DashboardSchema:
    """Top level of `dashboard`."""

    entity: str | None = None
    project: str = MISSING
    view: str = MISSING
    debug: bool = False


def _job_hash(overrides: str) -> str:
    return hashlib.sha256(str(overrides).encode()).hexdigest()[:12]


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


# Columns of each table that `data.Table` reads: networks are built before any file is opened.
TABLE_COLUMNS = {
    "wine": 13,
    "breast_cancer": 30,
    "diabetes": 10,
    "iris": 4,
    "redwine": 11,
    "whitewine": 11,
    "parkinsons": 15,
    "hepmass": 21,
    "miniboone": 43,
    "power": 6,
    "gas": 8,
    "bsds300": 63,
}


def _table_columns(table: str) -> int:
    # Of a table that does not exist the source itself tells.
    return TABLE_COLUMNS.get(str(table), 1)


def register() -> None:
    """Make the schemas and resolvers known to Hydra; harmless when repeated."""
    store = ConfigStore.instance()
    store.store("train_schema", TrainSchema)
    store.store("sample_schema", SampleSchema)
    store.store("evaluate_schema", EvaluateSchema)
    store.store("particles_schema", ParticlesSchema)
    store.store("export_schema", ExportSchema)
    store.store("report_schema", ReportSchema)
    store.store("dashboard_schema", DashboardSchema)
    OmegaConf.register_new_resolver("job_hash", _job_hash, replace=True)
    OmegaConf.register_new_resolver("first", _first, replace=True)
    OmegaConf.register_new_resolver("prod", lambda numbers: math.prod(numbers), replace=True)
    OmegaConf.register_new_resolver("joint_dim", lambda latent, shape: int(latent) + math.prod(shape), replace=True)
    OmegaConf.register_new_resolver("table_columns", _table_columns, replace=True)


# At import, because a launcher's processes know no more of this program than what they unpickle.
register()
