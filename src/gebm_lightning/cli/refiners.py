"""Samplers of the other commands: those of the command line, or the one that a run was trained with."""

from __future__ import annotations

from typing import Any

from ..config import instantiate, load_config


def given_or_run(node: Any, ckpt: str) -> Any:
    """The refiner of a config node; null stands for the run's own sampler."""
    if node is not None:
        return instantiate(node)
    return instantiate(load_config(ckpt).sampler, trusted=False)
