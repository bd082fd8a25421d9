"""What sampling costs, counted where it is spent: evaluations of a potential with and without its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .kernel import PotentialFn


class Counted:
    """A potential that counts the rows it is asked for; all else, `prior` and `beta` among it, is the potential's own.

    Attributes:
        counts: `gradients`, rows evaluated with a gradient to come, and `evaluations`, rows evaluated without.
    """

    def __init__(self, potential: PotentialFn, counts: dict[str, int] | None = None) -> None:
        self.potential: Any = potential
        self.counts = {"gradients": 0, "evaluations": 0} if counts is None else counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.potential, name)

    def _count(self, z: Tensor) -> None:
        kind = "gradients" if torch.is_grad_enabled() and z.requires_grad else "evaluations"
        self.counts[kind] += len(z)

    def __call__(self, z: Tensor) -> Tensor:
        self._count(z)
        return self.potential(z)

    def energy(self, z: Tensor) -> Tensor:
        """E(B(z)), shape (n,)."""
        self._count(z)
        return self.potential.energy(z)

    def tempered(self, beta: float) -> Counted:
        """The same potential at another inverse temperature, with the same counts."""
        return Counted(self.potential.tempered(beta), self.counts)
