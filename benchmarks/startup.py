"""Seconds until a command shows its help, and until the first update of the default run is done."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from statistics import median

from .timing import Row, interleave

FIRST = [
    "trainer.accelerator=cpu",
    "trainer.max_base_updates=1",
    "callbacks.evaluation=null",
    "callbacks.sampling=null",
]


def rows(device: str) -> Iterator[Row]:
    """The table's part on start-up."""
    with tempfile.TemporaryDirectory() as folder:

        def command(*arguments: str) -> None:
            line = [sys.executable, "-m", "gebm_lightning.cli.train", *arguments]
            subprocess.run(line, cwd=folder, check=True, capture_output=True)

        works = {"help": lambda: command("--help"), "first update": lambda: command(*FIRST)}
        seconds = interleave(works, warmup=1)
    yield Row("train.py --help", median(seconds["help"]), 2.0, unit="s")
    yield Row("a whole run of one update", median(seconds["first update"]), 10.0, unit="s")
