"""The driver of all kernels: it owns the loop, warm-up, thinning, schedules and what is told of every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..gebm import GEBM
from ..noise import Generator
from .cost import Counted
from .gradients import sampling_mode
from .kernel import Info, PotentialFn, restart
from .schedules import Schedule


class Chain(NamedTuple):
    """n chains run side by side."""

    z: Tensor
    """(n, d) last states."""
    trace: Tensor | None
    """(kept, n, d) states after warm-up, every `thin` steps; None unless `thin` is given."""
    info: dict[str, Tensor]
    """Means over chains at each step, (steps,): `acceptance`, `potential`, `jump` (squared distance moved), and
    `swap_prob` (steps, T − 1) of tempering; `gradients` and `evaluations`, how often a chain evaluated the potential with and
    without its gradient."""


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
    beta_schedule: Schedule | None = None,
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
        beta_schedule: factor on the potential's β, by step; the potential must have a `tempered`.
        on_step: called with (step, state, info) after each step, steps counted from 1.

    Raises:
        UserError: the potential has no value where a chain starts, a chain left the finite numbers, as it does when its
            step size is too large, or a schedule does not fit the kernel or the potential.
    """
    owner = getattr(potential, "__self__", None)
    if isinstance(owner, GEBM):
        # The method alone does not tell of the prior's support, nor which networks are to be in eval mode.
        potential = owner.potential()
    if z0.dim() != 2:
        raise ValueError(f"chains start at z0 of shape (n, d), not {tuple(z0.shape)}")
    if thin is not None and thin < 1:
        raise ValueError(f"thin must be at least 1, not {thin}")
    if schedule is not None and step_size_of(kernel) is None:
        raise UserError(f"sampler.schedule scales a step size: {type(kernel).__name__} has none")
    if beta_schedule is not None and not hasattr(potential, "tempered"):
        raise UserError("a schedule of beta needs a potential with a temperature: gebm.potential(beta)")
    counted = Counted(potential)
    kept: list[Tensor] = []
    told: dict[str, list[Tensor]] = {"acceptance": [], "potential": [], "jump": []}
    with sampling_mode(potential), torch.no_grad():
        factor = 1.0 if beta_schedule is None else beta_schedule(0)
        at = counted if beta_schedule is None else counted.tempered(counted.beta * factor)
        state = kernel.init(z0.detach(), at, generator)
        _check_start(state)
        for step in range(1, warmup + num_steps + 1):
            if beta_schedule is not None and beta_schedule(step - 1) != factor:
                factor = beta_schedule(step - 1)
                at = counted.tempered(counted.beta * factor)
                # What the state has cached belongs to the old temperature.
                state = restart(kernel, state, state.z, at, generator)
            scaled = kernel if schedule is None else with_step_size(kernel, schedule(step - 1))
            before = state.z
            state, info = scaled.step(state, at, generator)
            told["acceptance"].append(info.accept_prob.mean())
            told["potential"].append(info.potential.mean())
            told["jump"].append((state.z - before).square().sum(1).mean())
            if hasattr(info, "swap_prob"):
                told.setdefault("swap_prob", []).append(info.swap_prob.mean(0))
            if thin is not None and step > warmup and (step - warmup) % thin == 0:
                kept.append(state.z.clone())
            if on_step is not None:
                on_step(step, state, info)
    if not torch.isfinite(state.z).all():
        raise UserError(
            f"a {type(kernel).__name__} chain left the finite numbers within {warmup + num_steps} steps: its step size "
            f"{step_size_of(kernel)} is too large for this potential; lower sampler.kernel.step_size or sampler.beta"
        )
    last: Tensor | None = getattr(state, "potential", None)
    if last is not None and not torch.isfinite(last).all():
        raise UserError(
            f"{int((~torch.isfinite(last)).sum())} of {len(last)} chains of {type(kernel).__name__} ended where the potential is "
            "NaN or infinite: an approximate kernel needs a prior that reflects it, or a smaller step size"
        )
    info_all = {k: torch.stack(values) if values else z0.new_empty(0) for k, values in told.items()}
    info_all |= {k: torch.tensor(count / max(len(z0), 1)) for k, count in counted.counts.items()}
    trace = None if thin is None else torch.stack(kept) if kept else z0.new_empty((0, *z0.shape))
    return Chain(state.z, trace, info_all)


def _check_start(state: Any) -> None:
    potential: Tensor | None = getattr(state, "potential", None)
    if potential is not None and potential.shape != state.z.shape[:1]:
        raise ValueError(
            f"a potential must return shape {tuple(state.z.shape[:1])}, one number a chain, not {tuple(potential.shape)}"
        )
    if potential is not None and not torch.isfinite(potential).all():
        bad = int((~torch.isfinite(potential)).sum())
        raise UserError(
            f"the potential has no finite value at {bad} of the {len(potential)} points where chains start: the energy or "
            "the base returns NaN or infinity there, or the points lie outside of the prior's support"
        )


def step_size_of(kernel: Any) -> float | None:
    """The step size of a kernel, or of the one inside of it; None for kernels without."""
    inner = getattr(kernel, "kernel", None)
    return getattr(kernel, "step_size", None) if inner is None else step_size_of(inner)


def with_step_size(kernel: Any, factor: float) -> Any:
    """The same kernel with its step size, or that of the kernel inside of it, times `factor`."""
    inner = getattr(kernel, "kernel", None)
    if inner is not None:
        return replace(kernel, kernel=with_step_size(inner, factor))
    return replace(kernel, step_size=kernel.step_size * factor)
