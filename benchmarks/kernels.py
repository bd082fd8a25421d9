"""What a step of each kernel costs against one of ULA, on the sngan pair at 32×32: `python benchmarks/kernels.py`.

Interleaved on one machine, 16 chains, the fastest of several rounds; only the ratios mean something.
"""

from __future__ import annotations

import time

import torch

from gebm_lightning import build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import HMC, IMH, KLA, MALA, RWM, ULA, sample_chain

STEPS, ROUNDS, CHAINS = 5, 5, 16
KERNELS = {
    "ULA": ULA(1e-3),
    "KLA": KLA(1e-3, 1.0),
    "MALA": MALA(1e-3),
    "HMC, 1 leapfrog step": HMC(1e-2, 1),
    "RWM": RWM(1e-2),
    "IMH": IMH(),
}


def main() -> None:
    """Print a table of ratios."""
    torch.set_num_threads(1)
    gebm = build(compose(["model=sngan", "data=cifar10"]))
    potential, z0 = gebm.potential(), gebm.prior.sample(CHAINS, BlockNoise(0))
    best = dict.fromkeys(KERNELS, float("inf"))
    for _ in range(ROUNDS):
        for name, kernel in KERNELS.items():
            start = time.perf_counter()
            chain = sample_chain(kernel, potential, z0, STEPS, generator=BlockNoise(1))
            cost = (time.perf_counter() - start) / (chain.info["gradients"] + chain.info["evaluations"]).item()
            best[name] = min(best[name], cost)
    print("| kernel | an evaluation's time, that of ULA = 1 |\n|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {seconds / best['ULA']:.2f} |")


if __name__ == "__main__":
    main()
