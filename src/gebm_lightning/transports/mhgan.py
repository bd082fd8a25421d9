"""Metropolis–Hastings GAN (Turner et al., ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM, call_base, call_energy
from ..noise import Generator, rand
from ..samplers.gradients import sampling_mode
from ..samplers.kernel import choose, metropolis
from ..samplers.refiner import Samples
from .space import check_choice, check_finite, latent, merge, starts


class State(NamedTuple):
    z: Tensor
    logit: Tensor


@dataclass(frozen=True)
class MHGAN:
    """Independence proposals x' = B(z'), z' ~ η, accepted with min(1, (1/D − 1)/(1/D' − 1)) = min(1, e^{d' − d}), d = −β·E.

    The chain's law is the model's, dQ_{B,E}/dQ ∝ e^d, as soon as the start is forgotten (eq. 5). With start="real" it begins
    at the score of a real sample, which the chain has left once it has accepted anything; one that never has begins
    again at a base sample, with as many proposals.

    Args:
        num_proposals: K, proposals of each chain; one sample is its last state.
        start: "base", the latents that `BaseSampler` would give, or "real", which needs `fit` on held-out data.
        beta: inverse temperature of the energy.
        chunk: chains run side by side; memory, not results, depends on it.
        real_energies: (m,) energies of held-out real samples, set by `fit`.
        real_labels: (m,) their labels.
    """

    num_proposals: int = 640
    start: str = "base"
    beta: float = 1.0
    chunk: int = 512
    real_energies: Tensor | None = field(default=None, repr=False, compare=False)
    real_labels: Tensor | None = field(default=None, repr=False, compare=False)

    uses_gradients: ClassVar[bool] = False

    @property
    def needs_data(self) -> bool:
        """Whether `fit` has something to learn."""
        return self.start == "real"

    def __post_init__(self) -> None:
        check_choice("sampler.start", self.start, ("base", "real"))
        check_number("sampler.num_proposals", self.num_proposals, low=1, integer=True)
        check_number("sampler.beta", self.beta)
        check_number("sampler.chunk", self.chunk, low=1, integer=True)

    def fit(self, gebm: GEBM, real: Tensor, generator: Generator, y: Tensor | None = None) -> MHGAN:
        """The same with the scores of real samples (m, *shape) to start at; with start="base" nothing is learned."""
        if self.start == "base":
            return self
        parts = []
        with sampling_mode(gebm), torch.no_grad():
            for first in range(0, len(real), self.chunk):
                rows = slice(first, first + self.chunk)
                labels = None if y is None else y[rows].to(gebm.log_partition.device)
                parts.append(call_energy(gebm.energy, real[rows].to(gebm.log_partition), labels))
        energies = torch.cat(parts)
        check_finite("the energy of real samples", "MHGAN cannot start there", energies[:, None])
        return replace(self, real_energies=energies, real_labels=None if y is None else y.to(energies.device))

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        """n samples; `info` tells the `acceptance` and the shares of chains that `moved` and that `restarted`.

        Raises:
            UserError: start="real" without held-out data, or without any of a label, or an energy that is not finite.
        """
        if self.start == "real" and self.real_energies is None:
            raise UserError("MHGAN with sampler.start=real needs held-out real data first: fit it, or use start=base")
        with sampling_mode(gebm), torch.no_grad():
            parts = [
                self._chains(gebm, z, noise, labels) for noise, z, labels in starts(gebm, n, generator, self.chunk, y)
            ]
        return merge(parts, beta=self.beta, gradients=0.0)

    def _chains(self, gebm: GEBM, z: Tensor, noise: Generator, y: Tensor | None) -> Samples:
        def logit(z: Tensor, rows: Tensor) -> Tensor:
            return latent(gebm, self.beta, z, None if y is None else y[rows]).logit(z[rows])

        def run(state: State, rows: Tensor) -> tuple[State, Tensor]:
            """The states after K proposals and how many were accepted (n,); only `rows` (n,) are evaluated and count."""
            moves = torch.zeros(len(rows), device=rows.device)
            for _ in range(self.num_proposals):
                # Every row draws, whether it counts or not: its stream must not depend on the others'.
                proposal = State(gebm.prior.sample(len(rows), noise), state.logit.clone())
                proposal.logit[rows] = logit(proposal.z, rows)
                state, _, accepted = metropolis(state, proposal, proposal.logit - state.logit, noise)
                moves += accepted & rows
            return state, moves

        everyone = torch.ones(len(z), dtype=torch.bool, device=z.device)
        real = self.start == "real"
        state, moves = run(State(z, self._real_logits(noise, y, z) if real else logit(z, everyone)), everyone)
        again = (moves == 0) & real
        if again.any():
            base = State(z, state.logit.clone())
            base.logit[again] = logit(z, again)
            last, more = run(base, again)
            state, moves = choose(again, last, state), moves + more
        x = call_base(gebm.base, state.z, y)
        check_finite("MHGAN", f"lower sampler.beta={self.beta}, or mend the energy", state.logit[:, None], x)
        share = again.float().mean().item()
        info = {
            "acceptance": moves.mean().item() / (self.num_proposals * (1 + share)),
            "moved": (moves > 0).float().mean().item(),
            "restarted": share,
            "evaluations": self.num_proposals * (1 + share) + (share if real else 1),
        }
        return Samples(x, state.z, info)

    def _real_logits(self, noise: Generator, y: Tensor | None, z: Tensor) -> Tensor:
        """(n,) logits of real samples picked at random, of the same labels where there are labels."""
        assert self.real_energies is not None
        logits = -self.beta * self.real_energies.to(z)
        u = rand((len(z),), noise, z.device, torch.float64)
        if y is None:
            return logits[(u * len(logits)).long()]
        if self.real_labels is None:
            raise UserError("MHGAN with labels needs to be fitted with the labels of its real samples")
        picked = torch.empty_like(z[:, 0])
        for label in y.unique():
            mine, pool = y == label, logits[self.real_labels.to(y) == label]
            if not len(pool):
                raise UserError(f"MHGAN has no real sample of label {int(label)} to start at: fit it on more data")
            picked[mine] = pool[(u[mine] * len(pool)).long()]
        return picked
