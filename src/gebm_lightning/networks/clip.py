"""Clipping of an energy from below, as in the GEBM paper's image runs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..gebm import call_energy


class Clipped(nn.Module):
    """relu(E(x) − low) + low, shape (n,): E where it is above `low`, and `low` with no gradient below.

    Args:
        energy: the network.
        low: the floor, −10 in the paper's runs; None for none.
    """

    def __init__(self, energy: nn.Module, low: float | None = None) -> None:
        super().__init__()
        self.energy, self.low = energy, low

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        value = call_energy(self.energy, x, y)
        return value if self.low is None else F.relu(value - self.low) + self.low
