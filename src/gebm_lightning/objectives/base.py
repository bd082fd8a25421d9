"""The contract of an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
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
        needs_real: whether `base_loss` wants critic outputs on real samples.
        calibrates: whether the critic gives no log-ratio, so that its energy E = −s·v needs a scale s from held-out data.
    """

    penalties: dict[str, Any] = field(default_factory=dict, kw_only=True)

    learns_log_partition: ClassVar[bool] = False
    needs_real: ClassVar[bool] = False
    needs_global_batch: ClassVar[frozenset[str]] = frozenset()

    @property
    def calibrates(self) -> bool:
        return False

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        """The energy player's loss, a scalar, and what to log, from critic outputs on real and base samples."""
        raise NotImplementedError

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        """The base player's loss, a scalar, and what to log."""
        raise NotImplementedError

    def scale(self, critic: Callable[[Tensor], Tensor], x_real: Tensor) -> Tensor | None:
        """A factor on the energy player's loss that needs the critic itself, a scalar; None for none."""
        return None

    def to_energy(self, v: Tensor) -> Tensor:
        """Critic output to energy, pointwise: log dP/dQ = −energy + constant at the optimum."""
        raise NotImplementedError

    def make_energy(self, critic: nn.Module, reference: Tensor | None = None) -> nn.Module:
        """`to_energy ∘ critic` as a module (n, *shape) -> (n,); the critic itself where it is an energy already.

        Args:
            critic: the network whose outputs the losses see.
            reference: (m, *shape) real samples that a witness is made with; only MMD has one.
        """
        return ScaledEnergy(critic, self) if self.calibrates else CriticEnergy(critic, self)


class CriticEnergy(nn.Module):
    """An energy made of a critic of another convention."""

    def __init__(self, critic: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.critic, self.objective = critic, objective

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.objective.to_energy(self.critic(x) if y is None else self.critic(x, y))


class ScaledEnergy(CriticEnergy):
    """E = s·to_energy(v) with s, a buffer, from a calibration on held-out data; until there was one, s = 1 and `calibrated` is 0."""

    scale: Tensor
    calibrated: Tensor

    def __init__(self, critic: nn.Module, objective: Objective) -> None:
        super().__init__(critic, objective)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("calibrated", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * super().forward(x, y)
