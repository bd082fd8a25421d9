"""What grows with the number of samples and with the length of chains: peak memory, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .timing import Row

SCORE = """
import resource, torch
from gebm_lightning import build, compose
from gebm_lightning.config import instantiate
from gebm_lightning.metrics.compare import compare, real_scorers
from gebm_lightning.metrics.features import Digits
from gebm_lightning.samplers import ULA, LatentSampler
torch.set_num_threads(1)
cfg = compose([])
gebm = build(cfg).eval()
features = Digits()
scorers = real_scorers(instantiate(cfg.data), features, ["test"], 0, kid_subsets=10)
compare(gebm, {{"run": LatentSampler(ULA(1e-2), num_steps={steps})}}, features, scorers, {samples}, 0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(samples: int, steps: int) -> float:
    """Peak memory of a process that samples and scores, in KiB."""
    line = [sys.executable, "-c", SCORE.format(samples=samples, steps=steps)]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def rows(device: str) -> Iterator[Row]:
    """The table's part on memory."""
    few = peak(5000, 2)
    yield Row("memory, 50,000 samples / 5,000 (digits' extractor)", peak(50_000, 2) / few, 1.10)
    yield Row("memory, 40 steps / 2 (5,000 samples)", peak(5000, 40) / few, 1.10)
