"""Independence Metropolis–Hastings (Hastings 1970; Tierney 1994)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..errors import UserError
from ..noise import Generator
from ..priors import Prior
from .gradients import value_of
from .kernel import Info, PotentialFn, metropolis


class IMHState(NamedTuple):
    z: Tensor
    potential: Tensor
    log_proposal: Tensor


@dataclass(frozen=True)
class IMH:
    """z' ~ q whatever z is, accepted with probability min(1, e^{U(z) − U(z') + log q(z) − log q(z')}); exact, no gradient.

    With q the prior η of U_β this is min(1, e^{β(E(B(z)) − E(B(z')))}).

    Args:
        prior: the proposal q; None for the prior of the potential.
    """

    prior: Prior | None = None
    exact: ClassVar[bool] = True

    def init(self, z: Tensor, potential: PotentialFn, generator: Generator) -> IMHState:
        return self._at(z, potential)

    def step(self, state: IMHState, potential: PotentialFn, generator: Generator) -> tuple[IMHState, Info]:
        proposal = self._at(self._proposal(potential).sample(len(state.z), generator).to(state.z), potential)
        log_ratio = state.potential - proposal.potential + state.log_proposal - proposal.log_proposal
        state, probability, accepted = metropolis(state, proposal, log_ratio, generator)
        return state, Info(probability, accepted, state.potential)

    def _at(self, z: Tensor, potential: PotentialFn) -> IMHState:
        return IMHState(z, value_of(potential, z), value_of(self._proposal(potential).log_prob, z))

    def _proposal(self, potential: PotentialFn) -> Prior:
        prior = self.prior if self.prior is not None else getattr(potential, "prior", None)
        if prior is None:
            raise UserError("IMH on a plain function needs a proposal: IMH(prior)")
        return prior
