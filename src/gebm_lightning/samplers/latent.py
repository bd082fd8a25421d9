"""Any kernel as a sampler of the model: z by MCMC on U_β, x = B(z)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM, Potential, call_base
from ..noise import BLOCK, Generator, is_first, shared
from .chain import sample_chain, step_size_of
from .cost import Counted
from .diagnostics import effective_sample_size, split_rhat
from .gradients import sampling_mode
from .memory import chains_that_fit
from .precision import Fast, check_mode, check_precision
from .refiner import Samples, chunks
from .schedules import Schedule
from .tuning import DualAveraging


@dataclass(frozen=True)
class LatentSampler:
    """Chains from the prior on U_β(z) = −log η(z) + β·E(B(z)), pushed through the base.

    `info` tells means over all chains and steps: `acceptance`, `jump` (squared distance of a step), the mean `potential` at
    the end, `gradients` and `evaluations` of a chain, `swap_rates` of tempering, the `step_size` that tuning arrived at. Of
    the first 64 chains, where this call has them, it also tells the worst coordinate's split `rhat` and bulk `ess` (of all
    64 together), and `ess_per_gradient`: an R-hat well above 1 says that these are no samples of the model, but of a short run.
    What `tuning` took is apart, `tuning_gradients` a sample.
    `watched` are the states of these chains, (num_steps, 64, d).

    Args:
        kernel: the Markov kernel.
        beta: inverse temperature of the energy; the paper samples images at 100, the model's own law is at 1.
        num_steps: steps after the warm-up. Few steps give a *short run*, which need not be near the equilibrium.
        schedule: factor on the step size by step.
        beta_schedule: factor on β by step.
        thin: with a number, `info["trace"]` holds every thin-th state, (kept, n, d).
        warmup: steps before the first that counts.
        tuning: adapts the step size before all that, on 64 chains of their own, once for all samples.
        chunk: chains run side by side; memory, not results, depends on it. "auto" are as many as the free memory of a GPU
            holds.
        precision: "32-true", or "bf16-mixed": the gradient of E∘B in bfloat16; see `samplers.precision.Fast`.
        channels_last: run convolutions in the memory format (n, H, W, C).
        compile: false, true for `torch.compile`, or the name of one of its modes: "reduce-overhead" has CUDA graphs,
            "max-autotune" searches for kernels. The first steps then take a minute.
    """

    kernel: Any
    beta: float = 1.0
    num_steps: int = 100
    schedule: Schedule | None = None
    beta_schedule: Schedule | None = None
    thin: int | None = None
    warmup: int = 0
    tuning: DualAveraging | None = None
    chunk: int | str = 512
    precision: str = "32-true"
    channels_last: bool = False
    compile: bool | str = False

    def __post_init__(self) -> None:
        check_number("sampler.beta", self.beta)
        check_number("sampler.num_steps", self.num_steps, low=0, integer=True)
        check_number("sampler.warmup", self.warmup, low=0, integer=True)
        if isinstance(self.chunk, str) and self.chunk != "auto":
            raise UserError(f"sampler.chunk is a number of chains, or auto, not {self.chunk}")
        if self.chunk != "auto":
            check_number("sampler.chunk", self.chunk, low=1, integer=True)
        check_precision("sampler.precision", self.precision)
        check_mode("sampler.compile", self.compile)
        if not isinstance(self.channels_last, bool):
            raise UserError(f"sampler.channels_last must be true or false, not {self.channels_last}")
        if self.thin is not None:
            check_number("sampler.thin", self.thin, low=1, integer=True)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        tuned, tuning_gradients = self._tuned(gebm, generator)
        # Once: its networks may be copies.
        potential = tuned.potential(gebm)
        parts = [
            tuned._chunk(potential, rows, noise, y) for rows, noise in chunks(n, generator, tuned.chains(potential))
        ]
        x, z = torch.cat([part.x for part in parts]), torch.cat([part.z for part in parts if part.z is not None])
        shares = [len(part.x) / n for part in parts]
        info: dict[str, Any] = {"beta": self.beta, "step_size": step_size_of(tuned.kernel)} | parts[0].info
        for key in ("acceptance", "jump", "potential", "gradients", "evaluations"):
            info[key] = sum(share * part.info[key] for share, part in zip(shares, parts, strict=True))
        if "swap_rates" in info:
            rates = [
                [rate * share for rate in part.info["swap_rates"]] for share, part in zip(shares, parts, strict=True)
            ]
            info["swap_rates"] = [sum(column) for column in zip(*rates, strict=True)]
        if tuning_gradients:
            info["tuning_gradients"] = tuning_gradients / n
        if self.thin is not None:
            info |= {"trace": torch.cat([part.info["trace"] for part in parts], dim=1), "thin": self.thin}
        return Samples(x, z, info)

    def potential(self, gebm: GEBM, y: Tensor | None = None) -> Potential:
        """U_β as the chains see it, by the arithmetic asked for."""
        half = self.precision == "bf16-mixed"
        if not half and not self.channels_last and not self.compile:
            return gebm.potential(self.beta, y)
        # Of a kernel that says nothing of itself the worst is assumed.
        exact = getattr(self.kernel, "exact", True)
        return Fast(gebm, self.beta, y, half, self.channels_last, exact and half, self.compile)

    def chains(self, potential: Potential) -> int:
        """How many chains run side by side."""
        return chains_that_fit(potential) if isinstance(self.chunk, str) else self.chunk

    def tuned(self, gebm: GEBM, generator: Generator) -> LatentSampler:
        """The sampler with the step size that `tuning` finds on 64 chains, the same for whatever samples follow."""
        return self._tuned(gebm, generator)[0]

    def _tuned(self, gebm: GEBM, generator: Generator) -> tuple[LatentSampler, float]:
        if self.tuning is None:
            return self, 0.0
        noise = shared(generator, "tuning")
        y = gebm.sample_labels(BLOCK, noise)
        z0 = gebm.prior.sample(BLOCK, noise)
        # A ladder's kernel is tuned at the coldest replica: what is accepted there is accepted at all.
        inner = getattr(self.kernel, "kernel", None)
        counted = Counted(self.potential(gebm, y))
        kernel = self.tuning.tune(self.kernel if inner is None else inner, counted, z0, noise)
        tuned = replace(self, kernel=kernel if inner is None else replace(self.kernel, kernel=kernel), tuning=None)
        return tuned, counted.counts["gradients"]

    def _chunk(self, potential: Potential, rows: slice, noise: Generator, y: Tensor | None) -> Samples:
        gebm = potential.gebm
        labels = None if y is None else y[rows]
        watched: list[Tensor] = []
        first = rows.start == 0 and is_first(noise)

        def watch(step: int, state: Any, info: Any) -> None:
            if first and step > self.warmup:
                # A part of it: a view would keep the states of all chains.
                watched.append(state.z[:BLOCK].clone())

        chain = sample_chain(
            self.kernel,
            potential.given(labels),
            gebm.prior.sample(rows.stop - rows.start, noise),
            self.num_steps,
            generator=noise,
            thin=self.thin,
            warmup=self.warmup,
            schedule=self.schedule,
            beta_schedule=self.beta_schedule,
            on_step=watch,
        )
        with sampling_mode(gebm), torch.no_grad():
            x = call_base(gebm.base, chain.z, labels)
        moved = self.num_steps + self.warmup > 0
        info: dict[str, Any] = {key: chain.info[key].mean().item() if moved else 0.0 for key in ("acceptance", "jump")}
        info["potential"] = chain.info["potential"][-1].item() if moved else 0.0
        info |= {key: chain.info[key].item() for key in ("gradients", "evaluations")}
        if "swap_prob" in chain.info:
            info["swap_rates"] = chain.info["swap_prob"].nanmean(0).tolist()
        if chain.trace is not None:
            info["trace"] = chain.trace
        if watched:
            info["watched"] = torch.stack(watched)
        if len(watched) >= 4:
            info |= _diagnose(info["watched"], info["gradients"])
        return Samples(x, chain.z, info)


def _diagnose(trace: Tensor, gradients: float) -> dict[str, float]:
    ess = effective_sample_size(trace).min().item()
    worst = {"rhat": split_rhat(trace).max().item(), "ess": ess}
    return worst if gradients == 0 else worst | {"ess_per_gradient": ess / (gradients * trace.shape[1])}
