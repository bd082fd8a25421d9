"""How many chains run side by side."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..gebm import Potential
from ..noise import BLOCK, BlockNoise
from .gradients import sampling_mode, value_and_grad

ON_CPU = 512
"""More do not make a processor faster."""
AT_MOST = 16_384
SHARE = 0.5
"""Of the memory that is free: what an allocator and the libraries take besides is not known beforehand."""


def chains_that_fit(potential: Potential) -> int:
    """How many chains the free memory of the model's GPU holds, by the peak of 64; a multiple of that."""
    gebm = potential.gebm
    device = gebm.log_partition.device
    if device.type != "cuda":
        return ON_CPU
    noise = BlockNoise(0, stream="memory")
    z, y = gebm.prior.sample(BLOCK, noise), gebm.sample_labels(BLOCK, noise)
    with sampling_mode(gebm):
        block = peak(device, lambda: value_and_grad(potential.given(y), z))
    return BLOCK * max(1, min(AT_MOST // BLOCK, int(SHARE * free(device) / max(block, 1))))


def peak(device: torch.device, work: Callable[[], object]) -> int:
    """Bytes that a work takes at most, of what it took once the libraries were loaded."""
    work()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def free(device: torch.device) -> int:
    """Bytes that can be had, from the device or from what torch keeps of it."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
