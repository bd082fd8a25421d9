"""What `sample` and `evaluate` work on: a run's model, or networks trained elsewhere, and the data beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from ..config import build_parts, instantiate, load, load_config
from ..errors import UserError, first_line


class Source(NamedTuple):
    """A model and where it came from."""

    gebm: Any
    run: DictConfig | None
    """The run's config; None for networks trained elsewhere."""
    folder: Path
    """Where results go unless the command line says otherwise."""
    base: str
    """Whether the base is "ema", "raw", or "external"."""
    provenance: dict[str, Any]


def open_source(cfg: DictConfig, device: Any) -> Source:
    """The model of `ckpt=RUN`, or of `model=external` and the like, on a device.

    Raises:
        UserError: neither or both are given, or the model cannot be had.
    """
    if cfg.ckpt is not None:
        # Some data choose a model for training; here only the command line can.
        if any(o.startswith("model") for o in HydraConfig.get().overrides.task):
            raise UserError("ckpt= and model= name two models: give one of them")
        return _of_run(cfg, device)
    if not OmegaConf.is_dict(cfg.model):
        raise UserError("ckpt=RUN is missing: name a run's folder, or networks trained elsewhere by model=external")
    import torch

    from ..gebm import estimate_log_partition
    from ..networks import external
    from ..noise import BlockNoise

    with open_dict(cfg):
        cfg.seed = cfg.seed or 0
    try:
        gebm, _, _ = build_parts(cfg)
    except InterpolationResolutionError as error:
        raise UserError(
            f"the model takes a key from data that is not there ({first_line(error)}): name the data, data=…"
        ) from error
    gebm.to(device).eval()
    external.check(gebm)
    with torch.no_grad():
        gebm.log_partition.copy_(estimate_log_partition(gebm, BlockNoise(cfg.seed, stream="load")))
    return Source(gebm, None, Path("."), "external", {"model": OmegaConf.to_container(cfg.model, resolve=True)})


def _of_run(cfg: DictConfig, device: Any) -> Source:
    from ..export import WEIGHTS, is_exported, read_weights
    from ..lightning.checkpoint import find_checkpoint, read_checkpoint

    folder = Path(cfg.ckpt)
    folder = folder.parent.parent if folder.suffix == ".ckpt" else folder
    run = load_config(cfg.ckpt)
    gebm = load(cfg.ckpt, cfg.ema, tuple(cfg.trust)).to(device)
    if is_exported(folder):
        told = read_weights(folder / WEIGHTS)[1]
        provenance = {"checkpoint": str(folder / WEIGHTS), "base_updates": int(told["base_updates"])}
        return Source(gebm, run, folder, told["base"], provenance)
    checkpoint = find_checkpoint(cfg.ckpt)
    state = read_checkpoint(checkpoint)
    averaged = cfg.ema and any(k.startswith("ema.") for k in state["state_dict"])
    provenance = {"checkpoint": str(checkpoint), "base_updates": state["gebm_lightning"]["base_updates"]}
    return Source(gebm, run, folder, "ema" if averaged else "raw", provenance)


def part(run: DictConfig | None, cfg: DictConfig, key: str) -> Any:
    """The run's extractor or data with the command line's changes, or another one whole; nothing is downloaded unasked.

    Raises:
        UserError: there is none, or a key is not one of it.
    """
    given = cfg[key] or {}
    if "_target_" in given:
        return instantiate(given)
    if run is None:
        raise UserError(f"{key}= is missing: networks trained elsewhere have none of their own")
    node: Any = run[key]
    with open_dict(run):
        for name, value in {**({"download": False} if "download" in node else {}), **given}.items():
            if name not in node:
                raise UserError(f"+{key}.{name}: the run's {key} has no such key, but {', '.join(map(str, node))}")
            node[name] = value
            if name in node.get("source", {}):
                # In a run's config the source has its own copy, no longer a reference.
                node.source[name] = value
    return instantiate(node, trusted=False, trust=tuple(cfg.trust))


def refiner(node: Any, source: Source, trust: tuple[str, ...] = ()) -> Any:
    """The refiner of a config node; null stands for the run's own sampler, which may be one of `trust`'s modules.

    Raises:
        UserError: there is no run.
    """
    if node is not None:
        return instantiate(node)
    if source.run is None:
        raise UserError("networks trained elsewhere have no sampler of their own: name one, such as sampler=mala")
    return instantiate(source.run.sampler, trusted=False, trust=trust)
