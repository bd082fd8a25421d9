"""What grows with samples, chains, steps, batch and image: peak memory, in processes of their own, and time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

from gebm_lightning import build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import KLA, sample_chain

from .bare import Bare
from .device import operations
from .sampling import floor, plain
from .timing import Row, interleave, ratio

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


def times(device: str) -> Iterator[Row]:
    """Time over what it should be in proportion to: chains, steps, images of a batch, operations of a larger image."""
    gebm = build(compose([])).eval().to(device)
    potential, noise = gebm.potential(), BlockNoise(0)

    def chains(n: int, steps: int) -> Callable[[], object]:
        z = gebm.prior.sample(n, noise).to(device)
        return lambda: sample_chain(KLA(1e-3, 1.0), potential, z, steps, generator=noise)

    pairs = {size: plain("dcgan", device, [f"data.size={size}"]) for size in (32, 64)}
    floors = {size: floor(pair, pair.prior.sample(64, noise).to(device)) for size, pair in pairs.items()}
    cfg = compose(["energy_schedule.num=1"])
    images = torch.zeros(1000, *cfg.data.shape, dtype=torch.uint8)
    loops = {n: Bare(compose(["energy_schedule.num=1", f"data.batch_size={n}"]), images) for n in (64, 512)}
    works: dict[str, Callable[[], object]] = {
        "few": chains(64, 40),
        "many": chains(512, 40),
        "long": chains(64, 320),
        **{f"batch {n}": loop.update for n, loop in loops.items() if device == "cpu"},
        **{f"size {size}": work for size, work in floors.items()},
    }
    seconds = interleave(works)
    yield Row("time, 512 chains / 8 × 64", ratio(seconds["many"], seconds["few"]) / 8, 1.10)
    yield Row("time, 320 steps / 8 × 40", ratio(seconds["long"], seconds["few"]) / 8, 1.10)
    if device == "cpu":
        yield Row("time, batch 512 / 8 × 64", ratio(seconds["batch 512"], seconds["batch 64"]) / 8, 1.10)
    more = operations(floors[64]) / operations(floors[32])
    yield Row("time for an operation, 64×64 / 32×32", ratio(seconds["size 64"], seconds["size 32"]) / more)


def rows(device: str) -> Iterator[Row]:
    """The table's part on growth."""
    yield from times(device)
    few = peak(5000, 2)
    yield Row("memory, 50,000 samples / 5,000 (digits' extractor)", peak(50_000, 2) / few, 1.10)
    yield Row("memory, 40 steps / 2 (5,000 samples)", peak(5000, 40) / few, 1.10)
