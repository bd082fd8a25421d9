"""Generalized energy-based models: train, sample and score them."""

from typing import Any

from ._version import __version__

__all__ = ["GEBM", "Batch", "Potential", "UserError", "__version__", "build", "compose", "load"]

_LAZY = {
    "GEBM": "gebm",
    "Potential": "gebm",
    "Batch": "data.batch",
    "UserError": "errors",
    "compose": "config",
    "build": "config",
    "load": "config",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `train.py --help` need not wait for torch.
    if name not in _LAZY:
        raise AttributeError(f"module 'gebm_lightning' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"gebm_lightning.{_LAZY[name]}"), name)
