"""`gebm-evaluate`: compares samplers on one model, a run's or one trained elsewhere, against the data."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, check_number
from .command import pick_device, run_command
from .rows import behaviour, digest_of, key_of, read_rows, write_rows
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
    from ..metrics.checks import equilibria, wrong_way
    from ..metrics.compare import HeldOut, check_per_class, compare, real_scorers
    from ..metrics.report import describe, digest, print_table, versions
    from .source import open_source, part, refiner

    settings = _check(cfg)
    device = pick_device(cfg.device)
    source = open_source(cfg, device)
    out = Path(cfg.out) if cfg.out is not None else source.folder / "evaluation.json"
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file")
    seed = cfg.seed if cfg.seed is not None else 0 if source.run is None else source.run.seed
    names = [name for name in cfg.compare if name != "base"]
    refiners = {name: refiner(cfg.methods[name], source, tuple(cfg.trust)) for name in names}
    added, equilibrium_of = equilibria(refiners)
    refiners |= added
    features, data = (part(source.run, cfg, key) for key in ("features", "data"))
    if cfg.per_class:
        check_per_class(source.gebm, {split: data.dataset(split).y for split in cfg.splits})
    scorers = real_scorers(data, features, cfg.splits, seed, device, cfg.max_real, **settings)
    described = protocol(features, scorers, data, cfg.num_samples, seed, source.base, refiners)
    provenance = source.provenance | {"device": str(device), "versions": versions()}
    held_out = functools.cache(lambda: HeldOut.of(data, device))
    warning = wrong_way(source.gebm, held_out, seed)
    shared = {k: v for k, v in described.items() if k != "methods"} | {"equal_cost": cfg.equal_cost}
    contents = [digest_of(scorer.real) for scorer in scorers.values()] + [behaviour(source.gebm)]
    common = key_of(
        shared, source.provenance, digest(source.gebm), contents, cfg.per_class, settings, provenance["versions"]
    )
    keys = {name: f"{common}-{key_of(describe(refiners.get(name)))}" for name in ["base", *refiners]}
    there = [row for row in read_rows(out) if str(row.get("key")).startswith(f"{common}-") and "error" not in row]
    done = {row["method"]: row for row in there if row["key"] == keys.get(row["method"])}
    others = [row for row in there if row["method"] not in keys]
    if not there and out.is_file():
        out.replace(out.with_name(f"{out.stem}.previous{out.suffix}"))
    if done:
        print(f"{len(done)} of {len(keys)} rows are in {out} already")
    rows: list[dict[str, Any]] = []
    with _bar(len(keys)) as advance:

        def keep(row: dict[str, Any]) -> None:
            if warning is not None and row["method"] != "base":
                row["warning"] = warning
            rows.append(row | {"key": keys[row["method"]]})
            # What an earlier call has found stays in the file, also if this one ends before it comes to it.
            ahead = [done[name] for name in list(keys)[len(rows) :] if name in done]
            rest = {"protocol": described, "complete": len(rows) == len(keys), **provenance}
            write_rows(out, [*rows, *ahead, *others], equilibrium_of, rest, cfg.equal_cost)
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
            held_out=held_out,
            equal_cost=cfg.equal_cost,
            done=done,
            tolerant=list(refiners),
        )
    failed = [row["error"] for row in rows if "error" in row and row["method"] in names]
    if names and len(failed) == len(names):
        raise UserError(failed[0])
    print_table(rows, f"{cfg.num_samples} samples each")
    print(out)


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
