"""Discriminator optimal transport (Tanaka, NeurIPS 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ..gebm import GEBM
from ..noise import Generator, shared
from ..priors import Gaussian, Prior, Uniform
from ..samplers.gradients import sampling_mode, value_and_grad
from ..samplers.refiner import Samples
from .space import SPACES, Space, check_choice, check_finite, filled, labels_of, merge, per_sample, spread, starts

TRIALS, PAIRS = 10, 100
OFFSET = 1e-3  # the paper's code adds it to every coordinate of x − y: the distance has no gradient at 0

Step = Callable[[Tensor], Tensor]


def sgd(step_size: float) -> Step:
    """g -> η·g."""
    return lambda gradient: step_size * gradient


def adam(step_size: float, decay: float = 0.9, eps: float = 1e-8) -> Step:
    """g -> η·g/(√v̂ + ε), v̂ the running mean of g² without its bias: Adam with (β₁, β₂) = (0, .9), as in the paper."""
    mean, correction = torch.zeros(()), 1.0

    def step(gradient: Tensor) -> Tensor:
        nonlocal mean, correction
        mean = decay * mean.to(gradient) + (1 - decay) * gradient.square()
        correction *= decay
        return step_size * gradient / ((mean / (1 - correction)).sqrt() + eps)

    return step


OPTIMIZERS: dict[str, Callable[[float], Step]] = {"adam": adam, "sgd": sgd}
PAPER = {"data": "adam", "latent": "sgd"}


@dataclass(frozen=True)
class DOT:
    """Each sample y of the base goes to argmin_x ‖x − y‖ − d(x)/K, the transport map of a critic d that is K-Lipschitz.

    d = −β·E (β cancels where K is estimated), in latent space d∘B. There a Gaussian's samples keep to the shell ‖z‖ = ‖z_y‖:
    the gradient is projected on its tangent, g − (g·z)z/‖z‖² (the paper divides by √D in place of ‖z‖² ≈ D), and a uniform
    prior's are clipped to its box. K is the paper's: the mean of 10 maxima of |d(x) − d(y)|/‖x − y‖ over 100 pairs of base
    samples, for each class of its own. argmin is not unique, and the map reaches no equilibrium.

    Args:
        space: "latent" or "data".
        num_steps: gradient steps.
        step_size: of the optimiser.
        lipschitz: K; None to estimate it.
        optimizer: "adam", "sgd", or None for the paper's: Adam (0, .9) among data, SGD among latents.
        beta: inverse temperature of the energy.
        chunk: samples moved side by side; memory, not results, depends on it.
    """

    space: str = "latent"
    num_steps: int = 100
    step_size: float = 0.01
    lipschitz: float | None = None
    optimizer: str | None = None
    beta: float = 1.0
    chunk: int = 512

    uses_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("sampler.space", self.space, SPACES)
        if self.optimizer is not None:
            check_choice("sampler.optimizer", self.optimizer, OPTIMIZERS)
        if self.lipschitz is not None:
            check_number("sampler.lipschitz", self.lipschitz, above=0)
        check_number("sampler.step_size", self.step_size, above=0)
        check_number("sampler.num_steps", self.num_steps, low=0, integer=True)
        check_number("sampler.beta", self.beta)
        check_number("sampler.chunk", self.chunk, low=1, integer=True)

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        """n samples; `info["lipschitz"]` is K, `info["moved"]` the mean distance from the base's own.

        Raises:
            UserError: a one-dimensional Gaussian prior, whose shell is two points, a critic without a Lipschitz constant, or
                samples that left the finite numbers.
        """
        if self.space == "latent" and isinstance(gebm.prior, Gaussian) and gebm.prior.dim == 1:
            raise UserError(
                "DOT keeps a Gaussian's latents on a shell, which in one dimension is two points: use sampler.space=data"
            )
        labels = labels_of(gebm, y)
        cost = 0 if self.lipschitz is not None else 2 * TRIALS * PAIRS * len(labels)
        with sampling_mode(gebm), torch.no_grad():
            constants = {label: self.lipschitz or self._estimate(gebm, generator, label) for label in labels}
            parts = [
                self._transport(gebm.prior, SPACES[self.space](gebm, self.beta, z, own), per_sample(constants, own, z))
                for _, z, own in starts(gebm, n, generator, self.chunk, y)
            ]
        return merge(parts, beta=self.beta, gradients=float(self.num_steps), evaluations=cost / n)

    def _estimate(self, gebm: GEBM, generator: Generator, label: int | None) -> float:
        noise = shared(generator, "lipschitz" if label is None else f"lipschitz/{label}")
        maxima = []
        for _ in range(TRIALS):
            z = gebm.prior.sample(2 * PAIRS, noise)
            space = SPACES[self.space](gebm, self.beta, z, filled(label, 2 * PAIRS, z.device))
            (d1, d2), (x1, x2) = space.logit(space.start).split(PAIRS), space.start.flatten(1).split(PAIRS)
            maxima.append(((d1 - d2).abs() / (x1 - x2).norm(dim=1)).max())
        constant = torch.stack(maxima).mean().item()
        if not 0 < constant < float("inf"):
            raise UserError(
                f"DOT's estimate of the critic's Lipschitz constant is {constant}: its energy or its samples are constant, or "
                "not finite"
            )
        return constant

    def _transport(self, prior: Prior, space: Space, constant: Tensor) -> Samples:
        points = start = space.start
        tangent, confine = _constraint(prior if self.space == "latent" else None, start)
        step = OPTIMIZERS[self.optimizer or PAPER[self.space]](self.step_size)

        def cost(points: Tensor) -> Tensor:
            return (points - start + OFFSET).flatten(1).norm(dim=1) - space.logit(points) / constant

        for _ in range(self.num_steps):
            _, gradient = value_and_grad(cost, points)
            points = confine(points - step(tangent(points, gradient)))
        x, z = space.finish(points)
        check_finite("DOT", f"lower sampler.step_size={self.step_size}", points, x)
        moved = (points - start).flatten(1).norm(dim=1).mean().item()
        return Samples(x, z, {"moved": moved, "lipschitz": constant.mean().item()})


def _constraint(prior: Prior | None, start: Tensor) -> tuple[Callable[[Tensor, Tensor], Tensor], Step]:
    """(points, gradient) to the gradient that is left, and points to points allowed, for points of a prior or of none."""
    if isinstance(prior, Uniform):
        return lambda z, g: g, lambda z: z.clamp(prior.low, prior.high)
    if isinstance(prior, Gaussian):
        radius = start.norm(dim=1)
        return (
            lambda z, g: g - spread((g * z).sum(1) / z.square().sum(1), z) * z,
            # Steps along a tangent leave the sphere to second order; Adam's, scaled by coordinates, to first.
            lambda z: z * spread(radius / z.norm(dim=1), z),
        )
    return lambda z, g: g, lambda z: z
