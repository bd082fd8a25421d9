"""What the particle flows share: the loop, its noise and its schedules, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..divergences.estimate import check_samples
from ..errors import UserError, check_number
from ..noise import Generator, randn
from ..samplers.gradients import value_and_grad
from ..samplers.schedules import Schedule


class Flow(NamedTuple):
    """n particles moved, in the dtype in which they came, and what was measured before each step and after the last."""

    particles: Tensor
    """(n, d) where they are in the end."""
    losses: Tensor
    """(num_steps + 1,) float64: [0] is before any move."""
    gradient_norms: Tensor
    """(num_steps + 1,) float64: Frobenius norm of ∇f at the particles themselves, (n, d), not divided by n."""
    trace: Tensor | None
    """(kept, n, d) the particles at iterations 0, keep_every, 2·keep_every …; None unless `keep_every` is given."""


class Field(NamedTuple):
    """The loss of the particles where they are, and the function f down which it falls."""

    loss: Tensor
    """()"""
    gradient: Tensor
    """(n, d) ∇f at the particles: n times the gradient of the loss in them."""
    potential: Callable[[Tensor], Tensor]
    """f itself: (k, d) → (k,)."""


OnStep = Callable[[int, Tensor, float, float], None]
"""(iteration from 0, particles (n, d), loss, gradient norm)"""


def check_flow(flow: Any) -> None:
    """Raise a UserError unless a flow's kernel, step size, noise and schedules are such."""
    check_number("particles.step_size", flow.step_size, above=0)
    check_number("particles.noise", flow.noise, low=0)
    if not callable(flow.kernel):
        raise UserError(f"particles.kernel is a kernel, a _target_ with its settings, not {flow.kernel!r}")
    for key in ("schedule", "noise_schedule"):
        if getattr(flow, key) is not None and not callable(getattr(flow, key)):
            raise UserError(
                f"particles.{key} is a schedule, a _target_ with its settings, or null, not {getattr(flow, key)!r}"
            )


class ParticleFlow:
    """Y ← Y − γ_t ∇f_t(Y + β_t U), U ~ N(0, I) anew at each step: noise enters the point at which ∇f is taken, only.

    Its settings are the fields of the dataclass that inherits it.
    """

    step_size: float
    noise: float
    schedule: Schedule | None
    noise_schedule: Schedule | None

    def _field(self, target: Tensor) -> Callable[[Tensor], Field]:
        """From particles (n, d) to their field, for a target (m, d); both in float64."""
        raise NotImplementedError

    def run(
        self,
        particles: Tensor,
        target: Tensor,
        num_steps: int,
        generator: Generator | None = None,
        *,
        keep_every: int | None = None,
        on_step: OnStep | None = None,
    ) -> Flow:
        """Move particles (n, d) towards the target (m, d) in `num_steps` steps.

        Args:
            generator: where the noise comes from; needed if there is some.
            keep_every: keep every so-manieth state in the trace, the first included.
            on_step: called with (iteration, particles, loss, gradient norm) before each step and after the last.

        Raises:
            UserError: samples that cannot be compared or are not finite, a value that makes no sense, noise without a
                generator, a step size so large that the particles are lost, or a dual that is not solved.
        """
        check_number("num_steps", num_steps, low=0, integer=True)
        if keep_every is not None:
            check_number("keep_every", keep_every, low=1, integer=True)
        if self.noise > 0 and generator is None:
            raise UserError("a flow with noise needs a generator")
        check_samples(particles, target)
        for name, points in (("particles", particles), ("target", target)):
            if not torch.isfinite(points).all():
                raise UserError(f"the {name} hold NaN or infinity")
        losses, norms, kept = [], [], []
        with torch.inference_mode(False), torch.no_grad():
            field, at = self._field(target.clone().double()), particles.clone().double()
            for step in range(num_steps + 1):
                now = field(at)
                losses.append(now.loss)
                norms.append(now.gradient.norm())
                if not (torch.isfinite(losses[-1]) and torch.isfinite(norms[-1])):
                    raise UserError(
                        f"the particles left the finite numbers at step {step}: lower the step size {self.step_size}"
                    )
                if keep_every is not None and step % keep_every == 0:
                    kept.append(at.to(particles.dtype))
                if on_step is not None:
                    on_step(step, at.to(particles.dtype), float(losses[-1]), float(norms[-1]))
                if step == num_steps:
                    break
                gradient = now.gradient
                spread = self.noise * (1.0 if self.noise_schedule is None else self.noise_schedule(step))
                if spread > 0 and generator is not None:
                    shift = randn(tuple(at.shape), generator, at.device, at.dtype)
                    gradient = value_and_grad(now.potential, at + spread * shift)[1]
                at = at - self.step_size * (1.0 if self.schedule is None else self.schedule(step)) * gradient
                if not torch.isfinite(at).all():
                    raise UserError(
                        f"the particles left the finite numbers at step {step}: lower the step size {self.step_size}"
                    )
        trace = torch.stack(kept) if keep_every is not None else None
        return Flow(at.to(particles.dtype), torch.stack(losses), torch.stack(norms), trace)
