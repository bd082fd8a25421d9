"""The dual of KALE in an RKHS: a convex problem in one weight per point of Q, and two solvers for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError

WARM_STEPS = 20
"""Steps that a warm start has, before the solver begins anew."""
SHRINK = 0.1
"""From one penalty to the next on the way down to the one that is asked for."""


class Dual(NamedTuple):
    """min_{α>0} Σ α_i log(N α_i) − Σ α_i + (1/2λ)‖Σ α_i k(y_i,·) − μ_P‖², by what it needs of the points."""

    gram: Tensor
    """(N, N) k(y_i, y_j)."""
    cross: Tensor
    """(N,) μ_P(y_i), the mean over x of k(y_i, x)."""
    square: Tensor
    """() ‖μ_P‖², the mean of k over pairs of x."""
    reg: float
    """λ."""

    def at(self, log_ratio: Tensor) -> Point:
        """The dual at α_i = exp(u_i)/N."""
        u, ratio = log_ratio, log_ratio.exp()
        alpha = ratio / len(u)
        image = self.gram @ alpha
        h = (self.cross - image) / self.reg
        # 1 + Σ(α log Nα − α) as a sum of positive terms: at a large λ all of the value is in the digits that 1 would take.
        entropy = (torch.xlogy(ratio, ratio) - torch.special.expm1(u)).mean()
        # ‖Σ α_i k(y_i,·) − μ_P‖²/2λ is not negative, though its rounding, some 1e-16 ‖μ_P‖²/λ, may be.
        distance = (alpha @ image - 2 * (alpha @ self.cross) + self.square).clamp(min=0)
        value = entropy + distance / (2 * self.reg)
        # Nα(d − 1) + e^h, where d − 1 + e^−d must not cancel.
        d = u - h
        near = d.abs() < 1
        terms = torch.where(near, ratio * (d + torch.special.expm1(-d)), ratio * (d - 1) + h.exp())
        return Point(u, alpha, h, value, terms.mean())

    def squared_norm(self, point: Point) -> Tensor:
        """() ‖h‖² in the RKHS; what rounding, some 1e-16 ‖μ_P‖²/λ², makes negative is 0."""
        return ((self.square - point.alpha @ (self.cross + self.reg * point.h)) / self.reg**2).clamp(min=0)


class Point(NamedTuple):
    """Weights of the dual, and the function h = (1/λ)(μ_P − Σ α_i k(y_i,·)) that belongs to them."""

    log_ratio: Tensor
    """(N,) u = log(N α); at the optimum it is h(y)."""
    alpha: Tensor
    """(N,) weights; those of points far from P may be 0 in floating point."""
    h: Tensor
    """(N,) h(y_i)."""
    value: Tensor
    """() 1 + the dual's objective: an upper bound of KALE."""
    gap: Tensor
    """() `value` − (1 + E_P h − E_Q e^h − λ‖h‖²/2), which is mean(e^u(u − h − 1) + e^h): no term is negative."""


def check_finite(values: Tensor) -> None:
    """Raise a UserError if a kernel's values are not all finite."""
    if not torch.isfinite(values).all():
        raise UserError("KALE's kernel has values that are not finite: look for NaN and infinity among the points")


Solver = Callable[[Dual, Point, float, int], tuple[Point, int]]
"""(dual, start, tolerance of (1 + λ)·gap, most steps) → the last point, and steps taken."""


def is_solved(dual: Dual, point: Point, tolerance: float) -> bool:
    """Whether KALE in the flow's scale, (1 + λ) times its value, is known up to `tolerance`."""
    return bool((1 + dual.reg) * point.gap <= tolerance)


def newton(dual: Dual, point: Point, tolerance: float, max_steps: int) -> tuple[Point, int]:
    """Newton's method with backtracking, in a chart of α > 0.

    The direction solves (I + K diag(α)/λ) du = h − u by the Cholesky factor of I + A K A/λ, A = diag(√α), whose
    eigenvalues are in [1, 1 + tr K/λ] whatever the points, coinciding ones included. It is followed as α(1 + t·du) upwards
    and α·exp(t·du) downwards: positive always, and weights that vanish do so at once. Where the factor fails, for k is no
    positive-definite kernel or I is lost beside huge weights, it stays where it is.
    """
    for step in range(max_steps):
        if is_solved(dual, point, tolerance):
            return point, step
        root = point.alpha.sqrt()
        matrix = dual.gram * (root / dual.reg)
        matrix.mul_(root[:, None]).diagonal().add_(1)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed:
            return point, step
        residual = point.log_ratio - point.h
        inner = torch.cholesky_solve((root * residual)[:, None], factor)[:, 0]
        direction = dual.gram @ (root * inner) / dual.reg - residual
        following = backtrack(dual, point, direction)
        if following is None:
            return point, step
        point = following
    return point, max_steps


def backtrack(dual: Dual, point: Point, direction: Tensor) -> Point | None:
    """The first of the steps 1, ½, ¼ … that lowers the dual enough; None if none does."""
    slope = float(point.alpha @ ((point.log_ratio - point.h) * direction))
    # Close to the optimum the decrease drowns in the rounding of the value, but not the gap.
    close = point.gap < 1e-6 * (1 + point.value.abs())
    size = 1.0
    while size > 1e-10:
        step = size * direction
        new = dual.at(point.log_ratio + torch.where(step < 0, step, torch.log1p(step.clamp(min=0))))
        if new.value <= point.value + 1e-4 * size * slope or (close and new.gap <= point.gap / 2):
            return new
        size /= 2
    return None


def lbfgs(dual: Dual, point: Point, tolerance: float, max_steps: int) -> tuple[Point, int]:
    """L-BFGS with strong Wolfe line searches on v = √(Nα): no factorisation, many more steps.

    In v the entropy's Hessian is a multiple of I, and weights may vanish; in log α, and in α, those that do spoil the
    conditioning.
    """
    v = (point.log_ratio / 2).exp().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [v], max_iter=20, history_size=20, tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        now = dual.at(2 * v.detach().abs().clamp(min=1e-150).log())
        v.grad = 2 * v.detach() * (now.log_ratio - now.h)
        return float(now.value * len(v))

    steps, best = 0, point
    while steps < max_steps and not is_solved(dual, best, tolerance):
        optimizer.step(closure)
        new = dual.at(2 * v.detach().abs().clamp(min=1e-150).log())
        taken = optimizer.state[v]["n_iter"]
        # The value no longer falls and the gap neither: rounding has been reached.
        if not (new.value < best.value or new.gap < best.gap) or taken == steps:
            break
        steps, best = taken, new
    return best, steps


SOLVERS: dict[str, Solver] = {"newton": newton, "lbfgs": lbfgs}


def solve(dual: Dual, start: Tensor | None, solver: Solver, tolerance: float, max_steps: int) -> tuple[Point, int]:
    """The dual's optimum from `start` (N,) = log(N α), and steps taken; without one, by way of larger penalties.

    At a small λ, |h| is up to 1/λ, and from far away no solver is quick. At λ₀ = max |μ_P(y_i) − μ_Q(y_i)| all h(y_i) of
    α = 1/N are in [−1, 1]; from there λ is lowered tenfold at a time, each solved to a gap of .1.

    Raises:
        UserError: (1 + λ)·gap is above the tolerance after `max_steps`, or where nothing changes any more; or the kernel has
            values that are not finite, or is not positive definite.
    """
    check_finite(dual.cross)
    check_finite(dual.square)
    used = 0
    if start is not None:
        point, used = solver(dual, dual.at(start), tolerance, min(WARM_STEPS, max_steps))
        if is_solved(dual, point, tolerance):
            return point, used
    log_ratio = torch.zeros_like(dual.cross)
    reg = float((dual.cross - dual.gram.mean(1)).abs().max())
    while reg > dual.reg and used < max_steps:
        eased = dual._replace(reg=reg)
        point, steps = solver(eased, eased.at(log_ratio), 0.1 * (1 + reg), max_steps - used)
        log_ratio, used, reg = point.log_ratio, used + steps, SHRINK * reg
    point, steps = solver(dual, dual.at(log_ratio), tolerance, max_steps - used)
    used += steps
    if not is_solved(dual, point, tolerance):
        eigenvalues = torch.linalg.eigvalsh(dual.gram)
        if eigenvalues[0] < -1e-8 * eigenvalues[-1].abs():
            raise UserError("KALE needs a positive-definite kernel: this one's matrix k(y_i, y_j) is not")
        advice = f"raise max_steps={max_steps}, reg" if used >= max_steps else "rounding has been reached; raise reg"
        raise UserError(
            f"KALE's dual is not solved after {used} steps: (1 + reg) times the gap is {float((1 + dual.reg) * point.gap):.1e}, "
            f"not {tolerance:.0e}; {advice}={dual.reg:g} or the tolerance"
        )
    return point, used
