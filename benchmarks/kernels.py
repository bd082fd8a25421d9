"""What a step of each kernel costs against one of ULA, on the sngan pair at 32×32: `python benchmarks/kernels.py [cuda]`.

Interleaved on one machine, 16 chains (512 on a GPU), the fastest of several rounds; only the ratios mean something.
"""

from __future__ import annotations

import sys
import time

import torch

from gebm_lightning import build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import HMC, IMH, KLA, MALA, RWM, ULA, sample_chain

STEPS, ROUNDS = 5, 5
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
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    gebm = build(compose(["model=sngan", "data=cifar10"])).to(device)
    potential, z0 = gebm.potential(), gebm.prior.sample(16 if device.type == "cpu" else 512, BlockNoise(0)).to(device)
    best = dict.fromkeys(KERNELS, float("inf"))
    for _ in range(ROUNDS):
        for name, kernel in KERNELS.items():
            start = time.perf_counter()
            chain = sample_chain(kernel, potential, z0, STEPS, generator=BlockNoise(1))
            if device.type == "cuda":
                torch.cuda.synchronize()
            cost = (time.perf_counter() - start) / (chain.info["gradients"] + chain.info["evaluations"]).item()
            best[name] = min(best[name], cost)
    print("| kernel | an evaluation's time, that of ULA = 1 |\n|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {seconds / best['ULA']:.2f} |")


if __name__ == "__main__":
    main()
