"""The contract of an objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

Logs = dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """What the energy player and the base player minimise, given raw critic outputs of shape (n,).

    Attributes:
        penalties: callables `(critic, x_real, x_base, generator) -> scalar`, already weighted, added to the
            energy's loss; None for none.
        learns_log_partition: whether `energy_loss` has a gradient for c; where not, log Z is a Monte-Carlo estimate.
        needs_global_batch: which parts are no means over samples: "energy", "log_partition", "base".
    """

    penalties: dict[str, Any] = field(default_factory=dict)

    learns_log_partition: ClassVar[bool] = False
    needs_global_batch: ClassVar[frozenset[str]] = frozenset()

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        """The energy player's loss, a scalar, and what to log, from critic outputs on real and base samples."""
        raise NotImplementedError

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        """The base player's loss, a scalar, and what to log."""
        raise NotImplementedError

    def to_energy(self, v: Tensor) -> Tensor:
        """Critic output to energy, pointwise: log dP/dQ = −energy + constant at the optimum."""
        raise NotImplementedError

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        """`to_energy ∘ critic` as a module (n, *shape) -> (n,); the critic itself where it is an energy already."""
        return CriticEnergy(critic, self)


class CriticEnergy(nn.Module):
    """An energy made of a critic of another convention."""

    def __init__(self, critic: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.critic, self.objective = critic, objective

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.objective.to_energy(self.critic(x) if y is None else self.critic(x, y))
