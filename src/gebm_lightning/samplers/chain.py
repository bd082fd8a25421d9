"""The driver of all kernels: it owns the loop, warm-up, thinning, step-size schedule and diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..noise import Generator
from .gradients import sampling_mode
from .kernel import Info, PotentialFn
from .schedules import Schedule


class Chain(NamedTuple):
    """n chains run side by side."""

    z: Tensor
    """(n, d) last states."""
    trace: Tensor | None
    """(kept, n, d) states after warm-up, every `thin` steps; None unless `thin` is given."""
    info: dict[str, Tensor]
    """Means over chains at each step: `acceptance` (steps,), `potential` (steps,)."""


def sample_chain(
    kernel: Any,
    potential: PotentialFn,
    z0: Tensor,
    num_steps: int,
    *,
    generator: Generator,
    thin: int | None = None,
    warmup: int = 0,
    schedule: Schedule | None = None,
    on_step: Callable[[int, Any, Info], None] | None = None,
) -> Chain:
    """Run `warmup + num_steps` steps of `kernel` on `potential` from z0.

    Args:
        kernel: any kernel of this package, or anything with its `init` and `step`.
        potential: callable (n, d) -> (n,): `gebm.potential(beta)` or any function.
        z0: (n, d) first states.
        num_steps: steps after the warm-up.
        generator: where all noise comes from.
        thin: keep every `thin`-th state after the warm-up in the trace.
        warmup: steps whose states are not kept.
        schedule: factor on the kernel's `step_size`, by step (warm-up included).
        on_step: called with (step, state, info) after each step, steps counted from 1.

    Raises:
        UserError: a chain left the finite numbers, as it does when its step size is too large.
    """
    if z0.dim() != 2:
        raise ValueError(f"chains start at z0 of shape (n, d), not {tuple(z0.shape)}")
    if thin is not None and thin < 1:
        raise ValueError(f"thin must be at least 1, not {thin}")
    kept: list[Tensor] = []
    acceptance: list[Tensor] = []
    mean_potential: list[Tensor] = []
    with sampling_mode(potential), torch.no_grad():
        state = kernel.init(z0.detach(), potential, generator)
        for step in range(1, warmup + num_steps + 1):
            scaled = kernel if schedule is None else replace(kernel, step_size=kernel.step_size * schedule(step - 1))
            state, info = scaled.step(state, potential, generator)
            acceptance.append(info.accept_prob.mean())
            mean_potential.append(info.potential.mean())
            if thin is not None and step > warmup and (step - warmup) % thin == 0:
                kept.append(state.z.clone())
            if on_step is not None:
                on_step(step, state, info)
    if not torch.isfinite(state.z).all():
        size = getattr(kernel, "step_size", None)
        raise UserError(
            f"a {type(kernel).__name__} chain left the finite numbers within {warmup + num_steps} steps: its step size "
            f"{size} is too large for this potential; lower sampler.kernel.step_size or sampler.beta"
        )
    info_all = {
        "acceptance": torch.stack(acceptance) if acceptance else z0.new_empty(0),
        "potential": torch.stack(mean_potential) if mean_potential else z0.new_empty(0),
    }
    trace = None if thin is None else torch.stack(kept) if kept else z0.new_empty((0, *z0.shape))
    return Chain(state.z, trace, info_all)
