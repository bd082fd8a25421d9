"""Bases that are their support: a segment and a flower, with a handful of parameters and no freedom in how mass lies on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError, check_number


class LineBase(nn.Module):
    """B(z) = m + ℓ z d/‖d‖: latents (n, 1), uniform on [−1, 1], to points (n, k) of a segment of half-length ℓ.

    The length is given, for it cannot be learned to the end: once a base is longer than the data the energy can take the rest
    away, and only its steepness there pulls the ends in.

    Args:
        offset: where the middle m begins.
        direction: where d begins, of any length.
        half_length: ℓ, not learned.

    Raises:
        UserError: points of different spaces, no direction, or no length.
    """

    def __init__(self, offset: Sequence[float], direction: Sequence[float], half_length: float = 1.0) -> None:
        super().__init__()
        check_number("model.base.half_length", half_length, above=0)
        if len(offset) != len(direction) or not any(direction):
            raise UserError(
                f"model.base.direction is a direction in the space of model.base.offset, not {direction} beside {offset}"
            )
        self.offset, self.direction = (nn.Parameter(torch.tensor([float(v) for v in p])) for p in (offset, direction))
        self.half_length = float(half_length)

    def support(self) -> dict[str, Tensor]:
        """What the support is: the middle and the unit direction."""
        return {"offset": self.offset, "direction": nn.functional.normalize(self.direction, dim=0)}

    def forward(self, z: Tensor) -> Tensor:
        offset, direction = self.support().values()
        return offset + self.half_length * z * direction


class FlowerBase(nn.Module):
    """B(z) = ‖Σ_k θ_k u^k‖² u with u = z/‖z‖ and elementwise powers k = 1, 2, …: latents (n, d), N(0, I), to a surface in R^d.

    Args:
        coefficients: where θ begins; (1,) and zeros is the unit sphere.
    """

    def __init__(self, coefficients: Sequence[float] = (1.0, 0.0, 0.0, 0.0)) -> None:
        super().__init__()
        if not len(coefficients):
            raise UserError("model.base.coefficients needs at least one number")
        self.coefficients = nn.Parameter(torch.tensor([float(v) for v in coefficients]))

    def support(self) -> dict[str, Tensor]:
        """What the support is: θ."""
        return {"coefficients": self.coefficients}

    def forward(self, z: Tensor) -> Tensor:
        u = nn.functional.normalize(z, dim=1)
        powers = torch.stack([u**k for k in range(1, len(self.coefficients) + 1)], 2)
        return (powers @ self.coefficients).square().sum(1, keepdim=True) * u
