"""What every estimator of a divergence returns, and what each asks of its two samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from ..errors import UserError


class Estimate(NamedTuple):
    """A divergence of P and Q from samples of each, and the function that tells them apart.

    Args:
        value: (), the divergence.
        witness: points (m, d) → (m,), high where P has more mass than Q, low where it has less; differentiable.
        info: diagnostics of the estimator, by name.
    """

    value: Tensor
    witness: Callable[[Tensor], Tensor]
    # Read-only, since all estimates that leave it out share it.
    info: Mapping[str, Any] = MappingProxyType({})


def check_samples(x: Tensor, y: Tensor, least: int = 1) -> None:
    """Raise a UserError unless x (n, d) and y (m, d) can be compared: n, m ≥ least, one d, floating dtype and device."""
    for name, sample in (("x", x), ("y", y)):
        if sample.dim() != 2:
            raise UserError(
                f"{name} must be points (n, d), not of shape {tuple(sample.shape)}: use flatten(1) or [:, None]"
            )
        if not sample.is_floating_point():
            raise UserError(f"{name} must be of a floating-point dtype, not {sample.dtype}")
        if sample.shape[0] < least:
            raise UserError(f"{name} must hold at least {least} points for this estimator, not {sample.shape[0]}")
    if x.shape[1] != y.shape[1]:
        raise UserError(f"x and y must have one dimension, not {x.shape[1]} and {y.shape[1]}")
    if x.dtype != y.dtype:
        raise UserError(f"x and y must have one dtype, not {x.dtype} and {y.dtype}")
    if x.device != y.device:
        raise UserError(f"x and y must be on one device, not {x.device} and {y.device}")
