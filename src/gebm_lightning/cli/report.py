"""`gebm-report`: a run or a sweep as one HTML file."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from omegaconf import DictConfig

from ..errors import UserError
from .command import run_command
from .export import name_run


def main() -> None:
    """Entry of `report.py` and `gebm-report`."""
    run_command("report", _task, functools.partial(name_run, key="run"))


def _task(cfg: DictConfig) -> None:
    if cfg.run is None:
        raise UserError("a folder is missing: gebm-report RUN, or the folder of a sweep")
    folder = Path(cfg.run)
    out = folder / "report.html" if cfg.out is None else Path(cfg.out)
    _check_out(out)
    text = report(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    print(out)


def _check_out(out: Path) -> None:
    from .page import GENERATOR

    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file")
    if out.is_file() and GENERATOR.encode() not in out.read_bytes()[:1000]:
        raise UserError(f"out={out} is there already, and no report of this program: name another file")


def report(folder: Path) -> str:
    """The page of a run, or of a sweep with a section for each job.

    Raises:
        UserError: there is neither, or a file of it is damaged.
    """
    from .page import page, run_parts, sweep_parts
    from .record import read_run
    from .sweep_report import cells, collect, figure, job_folders, keys_of, over_seeds

    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give a run's, which training printed last, or a sweep's")
    jobs = job_folders(folder)
    if (folder / "config.yaml").is_file() or not jobs:
        return page(f"Run {folder.name}", run_parts(read_run(folder)))
    records = {job.name: read_run(job) for job in jobs}
    rows = collect(folder)
    averaged = over_seeds(rows, keys_of(rows))
    tables = [cells(part, keys_of(part)) for part in (rows, averaged) if part]
    return page(f"Sweep {folder.name}", sweep_parts(records, tables, figure(rows, keys_of(rows))))


if __name__ == "__main__":
    main()
