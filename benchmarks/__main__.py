"""`python -m benchmarks [GROUP …] [--device cuda] [--threads N] [--save]`: the table, beside that of the stored run."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import torch

from . import device, growth, sampling, scoring, startup, training
from .timing import Row

GROUPS = {
    "device": device,
    "sampling": sampling,
    "training": training,
    "scoring": scoring,
    "startup": startup,
    "growth": growth,
}
STORED = Path(__file__).parent / "results.json"
SLOWER = 1.10
"""A ratio that is worse than the stored one by this factor is called slower."""


def machine(device: str, threads: int) -> str:
    """The kind of machine that figures belong to."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    kind = next((f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f in flags), "")
    return f"{platform.machine()} {kind}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"


def slower(row: Row, before: float | None) -> bool:
    """Whether a row is clearly worse than it was."""
    if before is None:
        return False
    return before > row.value * SLOWER if row.more else row.value > before * SLOWER


def main() -> None:
    """Print the table, and keep it if asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; all if none")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help=f"store what was measured in {STORED.name}")
    arguments = parser.parse_args()
    if unknown := [g for g in arguments.groups if g not in GROUPS]:
        parser.error(f"there is no group {unknown[0]}; there are {', '.join(GROUPS)}")
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    kind = machine(arguments.device, arguments.threads)
    stored = json.loads(STORED.read_text()) if STORED.is_file() else {}
    before, now = stored.get(kind, {}), {}
    print(f"{kind}\n\n| | measured | limit | stored |\n|---|---|---|---|")
    for name in arguments.groups or GROUPS:
        for row in GROUPS[name].rows(arguments.device):
            now[row.name] = round(row.value, 4)
            limit = "" if row.limit is None else f"{'≥' if row.more else '≤'} {row.limit:g}"
            verdict = "" if row.met is not False else " **missed**"
            was = before.get(row.name)
            told = "" if was is None else f"{was:.2f}{' **slower**' if slower(row, was) else ''}"
            unit = "" if row.unit == "×" else f" {row.unit}"
            print(f"| {row.name} | {row.value:.2f}{unit} | {limit}{verdict} | {told} |", flush=True)
    if arguments.save:
        STORED.write_text(json.dumps(stored | {kind: before | now}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
