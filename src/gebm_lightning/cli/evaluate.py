"""`gebm-evaluate`: compares samplers on one model, a run's or one trained elsewhere, against the data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, check_number
from .command import pick_device, run_command
from .schema import EvaluateSchema


def main() -> None:
    """Entry of `evaluate.py` and `gebm-evaluate`."""
    run_command("evaluate", _task)


def _check(cfg: DictConfig) -> dict[str, int]:
    from ..metrics.scores import check_settings

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
    if cfg.equal_cost is not None:
        check_number("equal_cost", cfg.equal_cost, above=0)
    if not cfg.splits:
        raise UserError("splits: name at least one of train, val, test")
    return check_settings("scores", cfg.scores)


def _task(cfg: DictConfig) -> None:
    from ..callbacks.evaluation import protocol
    from ..metrics.compare import HeldOut, check_per_class, compare, real_scorers
    from ..metrics.report import describe, print_table, versions
    from .source import open_source, part, refiner

    settings = _check(cfg)
    device = pick_device(cfg.device)
    source = open_source(cfg, device)
    out = Path(cfg.out) if cfg.out is not None else source.folder / "evaluation.json"
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file")
    seed = cfg.seed if cfg.seed is not None else 0 if source.run is None else source.run.seed
    names = [name for name in cfg.compare if name != "base"]
    refiners = {name: refiner(cfg.methods[name], source) for name in names}
    refiners |= _equilibria(refiners)
    features, data = (part(source.run, cfg, key) for key in ("features", "data"))
    if cfg.per_class:
        check_per_class(source.gebm, {split: data.dataset(split).y for split in cfg.splits})
    scorers = real_scorers(data, features, cfg.splits, seed, device, cfg.max_real, **settings)
    described = protocol(features, scorers, data, cfg.num_samples, seed, source.base, refiners)
    provenance = source.provenance | {"device": str(device), "versions": versions()}
    shared = {k: v for k, v in described.items() if k != "methods"} | {"equal_cost": cfg.equal_cost}
    common = [shared, source.provenance, _weights(source.gebm), cfg.per_class, settings, provenance["versions"]]
    keys = {name: _key(common, name, describe(refiners.get(name))) for name in ["base", *refiners]}
    done = {
        row["method"]: row for row in _rows(out) if row.get("key") == keys.get(row["method"]) and "error" not in row
    }
    if done:
        print(f"{len(done)} of {len(keys)} rows are in {out} already")
    rows: list[dict[str, Any]] = []
    with _bar(len(keys)) as advance:

        def keep(row: dict[str, Any]) -> None:
            rows.append(row | {"key": keys[row["method"]]})
            _write(out, rows, {"protocol": described, "complete": len(rows) == len(keys), **provenance}, cfg.equal_cost)
            advance(row)

        compare(
            source.gebm,
            refiners,
            features,
            scorers,
            cfg.num_samples,
            seed,
            on_row=keep,
            per_class=cfg.per_class,
            held_out=HeldOut.of(data, device) if any(hasattr(r, "fit") for r in refiners.values()) else None,
            equal_cost=cfg.equal_cost,
            done=done,
            tolerant=names,
        )
    failed = [row["error"] for row in rows if "error" in row]
    if names and len(failed) == len(names):
        raise UserError(failed[0])
    print_table(rows, f"{cfg.num_samples} samples each")
    print(out)


def _equilibria(refiners: dict[str, Any]) -> dict[str, Any]:
    """Importance resampling at every β of a method that has none there yet: what its chains would be at equilibrium."""
    from ..samplers import SIR

    inner = {name: getattr(r, "refiner", r) for name, r in refiners.items()}
    have = {r.beta for r in inner.values() if type(r) is SIR}
    wanted = sorted({r.beta for r in inner.values() if hasattr(r, "beta")} - have)
    return {f"equilibrium at beta {beta:g}": SIR(beta=beta) for beta in wanted}


def _weights(gebm: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(gebm.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _key(common: list[Any], name: str, described: Any) -> str:
    return hashlib.sha256(json.dumps([common, name, described], sort_keys=True, default=str).encode()).hexdigest()[:16]


def _rows(out: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or not of this program: made anew
    return rows


def _write(out: Path, rows: list[dict[str, Any]], rest: dict[str, Any], equal_cost: float | None) -> None:
    from ..metrics.report import write_json
    from ..metrics.table import write_table

    at = {row["beta"]: row for row in rows if row["method"].startswith("equilibrium") or row["method"] == "sir"}
    for row in rows:
        if row.get("beta") in at and row["scores"]:
            scores = at[row["beta"]]["scores"]
            row["equilibrium"] = {split: s["relative_fid"] for split, s in scores.items()}
    write_json(out, {"rows": rows, **rest})
    write_table(out, rows, equal_cost)


def _bar(total: int) -> Any:
    """A context in which a function is called with each row: a progress bar, or lines where there is no terminal."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def context() -> Any:
        console = Console()
        if not console.is_terminal:
            yield lambda row: print(f"{row['method']} {'failed' if 'error' in row else 'done'}", flush=True)
            return
        with Progress(console=console) as progress:
            task = progress.add_task("methods", total=total)
            yield lambda row: progress.update(task, advance=1, description=row["method"])

    return context()


if __name__ == "__main__":
    main()
