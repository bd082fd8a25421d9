"""What grows with samples, chains, steps, batch and image: peak memory, in processes of their own, and time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

from gebm_lightning import build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import sample_chain

from .device import operations
from .sampling import KERNELS, floor, plain, steps
from .timing import Row, interleave, ratio
from .training import against_bare

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

    def chains(n: int, num_steps: int) -> Callable[[], object]:
        z = gebm.prior.sample(n, noise).to(device)
        return lambda: sample_chain(KERNELS["KLA"], potential, z, num_steps, generator=noise)

    pairs = {size: plain("dcgan", device, [f"data.size={size}"]) for size in (32, 64)}
    z64 = {size: pair.prior.sample(64, noise).to(device) for size, pair in pairs.items()}
    works: dict[str, Callable[[], object]] = {
        "few": chains(64, 40),
        "many": chains(512, 40),
        "long": chains(64, 320),
        **{f"size {size}": steps(KERNELS["KLA"], pair.potential(), z64[size]) for size, pair in pairs.items()},
    }
    seconds = interleave(works)
    yield Row("time, 512 chains / 8 × 64", ratio(seconds["many"], seconds["few"]) / 8, 1.10)
    yield Row("time, 320 steps / 8 × 40", ratio(seconds["long"], seconds["few"]) / 8, 1.10)
    more = operations(floor(pairs[64], z64[64])) / operations(floor(pairs[32], z64[32]))
    yield Row("time for an operation, 64×64 / 32×32", ratio(seconds["size 64"], seconds["size 32"]) / more)
    if device == "cpu":
        large, small = (against_bare([f"data.batch_size={n}", "energy_schedule.num=1"], 10) for n in (512, 64))
        value = ratio(large["ours"], large["bare"]) / ratio(small["ours"], small["bare"])
        yield Row("training / bare loop, batch 512 / batch 64", value, 1.10)


def rows(device: str) -> Iterator[Row]:
    """The table's part on growth."""
    yield from times(device)
    few = peak(5000, 2)
    yield Row("memory, 50,000 samples / 5,000 (digits' extractor)", peak(50_000, 2) / few, 1.10)
    yield Row("memory, 40 steps / 2 (5,000 samples)", peak(5000, 40) / few, 1.10)
