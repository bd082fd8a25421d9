"""`gebm-evaluate`: scores a trained model again, from its checkpoint and the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..config import instantiate
from ..errors import UserError, check_number
from .command import pick_device, run_command
from .schema import EvaluateSchema


def main() -> None:
    """Entry of `evaluate.py` and `gebm-evaluate`."""
    run_command("evaluate", _task)


def _task(cfg: DictConfig) -> None:
    from ..callbacks.evaluation import protocol
    from ..config import load, load_config
    from ..lightning.checkpoint import find_checkpoint, read_checkpoint
    from ..metrics.compare import check_per_class, compare, real_scorers
    from ..metrics.report import print_table, versions, write_json
    from ..metrics.scores import check_settings
    from .refiners import given_or_run

    unknown = [name for name in cfg.compare if name not in ("base", *cfg.methods)]
    if unknown:
        raise UserError(f"compare: there is no method {unknown[0]}; there are base, {', '.join(map(str, cfg.methods))}")
    stray = sorted(set(map(str, cfg)) - {f.name for f in dataclasses.fields(EvaluateSchema)})
    if stray:
        raise UserError(f"{stray[0]}: evaluate has no such key; keys of the run are given as +data.… and +features.…")
    if not OmegaConf.is_dict(cfg.methods):
        raise UserError("methods: a sampler for each name is needed")
    if cfg.seed is not None:
        check_number("seed", cfg.seed, low=0, integer=True)
    check_number("num_samples", cfg.num_samples, low=4, integer=True)
    check_number("max_real", cfg.max_real, low=4, integer=True)
    settings = check_settings("scores", cfg.scores)
    if not cfg.splits:
        raise UserError("splits: name at least one of train, val, test")
    folder = Path(cfg.ckpt)
    folder = folder.parent.parent if folder.suffix == ".ckpt" else folder
    out = Path(cfg.out) if cfg.out is not None else folder / "evaluation.json"
    device = pick_device(cfg.device)
    run = load_config(cfg.ckpt)
    seed = run.seed if cfg.seed is None else cfg.seed
    refiners = {name: given_or_run(cfg.methods[name], cfg.ckpt) for name in cfg.compare if name != "base"}
    features, data = (_part(run, cfg, key) for key in ("features", "data"))
    gebm = load(cfg.ckpt, cfg.ema).to(device)
    averaged = cfg.ema and any(k.startswith("ema.") for k in read_checkpoint(cfg.ckpt)["state_dict"])
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file")
    if cfg.per_class:
        check_per_class(gebm, {split: data.dataset(split).y for split in cfg.splits})
    scorers = real_scorers(data, features, cfg.splits, seed, device, cfg.max_real, **settings)
    rows = compare(
        gebm,
        refiners,
        features,
        scorers,
        cfg.num_samples,
        seed,
        on_row=lambda row: print(f"{row['method']} done", flush=True),
        per_class=cfg.per_class,
    )
    described = protocol(features, scorers, data, cfg.num_samples, seed, "ema" if averaged else "raw", refiners)
    checkpoint = find_checkpoint(cfg.ckpt)
    done = read_checkpoint(checkpoint)["gebm_lightning"]["base_updates"]
    provenance = {"checkpoint": str(checkpoint), "base_updates": done, "device": str(device), "versions": versions()}
    write_json(out, {"rows": rows, "protocol": described, **provenance})
    print_table(rows, f"{cfg.num_samples} samples each")
    print(out)


def _part(run: DictConfig, cfg: DictConfig, key: str) -> Any:
    """The run's extractor or data with the command line's changes; another extractor whole; nothing is downloaded unasked."""
    given = cfg[key] or {}
    node: Any = run[key]
    with open_dict(run):
        if "_target_" in given:
            return instantiate(given)
        for name, value in {**({"download": False} if "download" in node else {}), **given}.items():
            if name not in node:
                raise UserError(f"+{key}.{name}: the run's {key} has no such key, but {', '.join(map(str, node))}")
            node[name] = value
            if name in node.get("source", {}):
                # In a run's config the source has its own copy, no longer a reference.
                node.source[name] = value
    return instantiate(node, trusted=False)


if __name__ == "__main__":
    main()
