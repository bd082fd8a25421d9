"""The states of all generators that a user's own code may draw from, as plain data."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from ..distributed import gather_objects, rank


def collect() -> list[dict[str, Any]]:
    """The states in every process, in the order of ranks."""
    return gather_objects(get_states())


def restore(states: list[dict[str, Any]]) -> None:
    """Back to what `collect` saw in this process; one that was not there keeps what it has."""
    if rank() < len(states):
        set_states(states[rank()])


def get_states() -> dict[str, Any]:
    """Of torch, its GPUs, numpy and Python, in this process."""
    state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, gauss = state
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
    }


def set_states(states: dict[str, Any]) -> None:
    """Back to what `get_states` saw; GPUs that are not here are passed over."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
