"""The contract of an objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..gebm import GEBM, call_base
from ..noise import Generator

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

    def __post_init__(self) -> None:
        if not isinstance(self.penalties, Mapping):
            raise UserError(
                f"objective.penalties holds penalties by name, or null for one of them: it cannot be {self.penalties!r}"
            )
        for name, penalty in self.penalties.items():
            if penalty is not None and not callable(penalty):
                raise UserError(
                    f"objective.penalties.{name} is a penalty, a _target_ with its settings such as a weight, or null, not {penalty!r}"
                )

    @property
    def calibrates(self) -> bool:
        return False

    @property
    def by_likelihood(self) -> bool:
        """Whether the base descends on `likelihood_loss` instead of `base_loss`."""
        return False

    @property
    def needs_base_density(self) -> bool:
        """Whether only bases with a density will do."""
        return self.by_likelihood

    def energy_loss(self, e_real: Tensor, e_base: Tensor, log_partition: Tensor) -> tuple[Tensor, Logs]:
        """The energy player's loss, a scalar, and what to log, from critic outputs on real and base samples."""
        raise NotImplementedError

    def base_loss(self, e_base: Tensor, log_partition: Tensor, e_real: Tensor | None = None) -> tuple[Tensor, Logs]:
        """The base player's loss, a scalar, and what to log."""
        raise NotImplementedError

    def likelihood_loss(self, log_base: Tensor, e_base: Tensor) -> tuple[Tensor, Logs]:
        """The base player's loss from log q(x_real) (n,) and energies at base samples (n,)."""
        raise NotImplementedError

    def make_state(self, gebm: GEBM, generator: Generator) -> nn.Module | None:
        """What training keeps beside the model, such as persistent chains, as a module of buffers; None for nothing."""
        return None

    def negatives(
        self, gebm: GEBM, x_real: Tensor, generator: Generator, y: Tensor | None, state: nn.Module | None
    ) -> Tensor:
        """(n, *shape) samples that the energy is trained against; the base's own unless an objective says otherwise."""
        return call_base(gebm.base, gebm.prior.sample(len(x_real), generator), y)

    def perturb(self, x_real: Tensor, generator: Generator) -> Tensor:
        """Real samples as `energy_loss` sees them, (n, *shape): as they are unless an objective adds noise."""
        return x_real

    def direct_loss(
        self, gebm: GEBM, critic: Callable[[Tensor], Tensor], x_real: Tensor, generator: Generator
    ) -> tuple[Tensor, Logs] | None:
        """The energy player's loss, a mean over this process's batch, where critic outputs alone do not make it; else None."""
        return None

    def direct_base_loss(self, gebm: GEBM, x_real: Tensor, generator: Generator) -> tuple[Tensor, Logs] | None:
        """The base player's loss, a mean over this process's batch, where critic outputs do not make it; else None."""
        return None

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


def check_saturating(value: object) -> None:
    """Raise a UserError unless it is true or false: a word would be taken for true."""
    if not isinstance(value, bool):
        raise UserError(f"objective.saturating must be true or false, not {value!r}")


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
