"""What the device can do, and how near the floors of sampling come to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from gebm_lightning.noise import BlockNoise

from .sampling import CHAINS, PAIRS, floor, plain
from .timing import Row, interleave, ratio

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products in it."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def product(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A large matrix product, and its operations."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * n**3


def rows(device: str) -> Iterator[Row]:
    """The table's part on the device: a matrix product's rate, and the rates of floors over it, in the same precision."""
    # Of a GPU convolutions take TF32 by default, and products do not: in the same precision means both.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    products = {name: product(device, dtype) for name, dtype in PRECISIONS.items()}
    seconds = interleave({name: work for name, (work, _) in products.items()})
    count = products["float32"][1]
    yield Row("a large matrix product in float32", count / min(seconds["float32"]) / 1e9, more=True, unit="Gflop/s")
    faster = ratio(seconds["float32"], seconds["bfloat16"])
    yield Row("a large matrix product: float32 / bfloat16", faster, more=True)
    for name in PAIRS:
        full, half = plain(name, device), plain(name, device).to(memory_format=torch.channels_last)
        z = full.prior.sample(CHAINS, BlockNoise(0)).to(device)
        floors = {"float32": floor(full, z), "bfloat16": floor(half, z, half=True)}
        needed = operations(floors["float32"])
        works = floors | {f"product in {p}": work for p, (work, _) in products.items()}
        seconds = interleave(works)
        for precision in PRECISIONS:
            share = needed / count * ratio(seconds[f"product in {precision}"], seconds[precision])
            yield Row(f"{name}: rate of the floor / of a matrix product in {precision}", share, more=True)
