"""KALE, the KL approximate lower-bound estimator, with a critic in a reproducing kernel Hilbert space."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ._kale_dual import SOLVERS, Dual, Point, check_finite, solve
from .estimate import Estimate, check_samples
from .kernels import Kernel

BLOCK = 2**22
"""Entries of a kernel's matrix that are computed at once."""


def kale(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    reg: float,
    *,
    method: str = "newton",
    start: Tensor | None = None,
    tolerance: float = 1e-9,
    max_steps: int | None = None,
) -> Estimate:
    """KALE(P‖Q) = max_h 1 + E_P h − E_Q e^h − (λ/2)‖h‖², from x ~ P and y ~ Q.

    It is solved in its dual (Glaser, Arbel & Gretton, KALE Flow, NeurIPS 2021), with N points y:
    1 + min_{α>0} Σ α_i log(N α_i) − Σ α_i + (1/2λ)‖Σ α_i k(y_i,·) − μ_P‖². The witness is h = (1/λ)(μ_P − Σ α_i k(y_i,·)),
    an estimate of log dP/dQ: **high on P**, minus the energy of a GEBM, with α_i = e^{h(y_i)}/N. The value is unscaled: the
    particle flow's loss is (1 + λ) times it, and tends to MMD²/2 as λ → ∞. All is computed in float64.

    Args:
        x: (n, d) points of P.
        y: (m, d) points of Q.
        kernel: positive definite, (n, d), (m, d) → (n, m).
        reg: λ.
        method: "newton", a Cholesky factorisation a step, or "lbfgs", products only.
        start: (m,) `info["alpha"]` of a problem nearby.
        tolerance: of the gap between primal and dual, times 1 + λ.
        max_steps: of the solver; by default 200 for Newton's and 20,000 for L-BFGS.

    Returns:
        value: () in x's dtype, differentiable in x and y, and in whatever the kernel depends on, once (envelope theorem).
        witness: (k, d) → (k,), in the dtype of its points.
        info: `gap`, `steps`, `squared_norm` ‖h‖², `alpha` (m,) in float64, and `rounding`, what the digits lost at a small λ may
            make of the value, ‖μ_P‖²/λ times the machine's precision.

    Raises:
        UserError: samples that cannot be compared, numbers that are not finite, or a dual that is not solved.
    """
    check_samples(x, y)
    check_number("reg", reg, above=0)
    check_number("tolerance", tolerance, above=0)
    if method not in SOLVERS:
        raise UserError(f"method must be one of {', '.join(SOLVERS)}, not {method!r}")
    max_steps = {"newton": 200, "lbfgs": 20_000}[method] if max_steps is None else max_steps
    check_number("max_steps", max_steps, low=0, integer=True)
    # Out of inference mode, so that the witness can be differentiated whatever mode the caller is in.
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
        p, q = ((t.clone() if t.is_inference() else t).double() for t in (x, y))
        dual = Dual(gram(kernel, q), cross_mean(kernel, q, p), cross_mean(kernel, p, p).mean(), float(reg))
        with torch.no_grad():
            detached = Dual(dual.gram.detach(), dual.cross.detach(), dual.square.detach(), dual.reg)
            first = None if start is None else _log_ratio(start, detached)
            point, steps = solve(detached, first, SOLVERS[method], tolerance, max_steps)
            norm = float(detached.squared_norm(point))
        rounding = float(torch.finfo(torch.float64).eps * detached.square / detached.reg)
        info = {
            "gap": float(point.gap),
            "rounding": rounding,
            "steps": steps,
            "squared_norm": norm,
            "alpha": point.alpha,
        }
        value = at_fixed_weights(dual, point).to(x.dtype)
        return Estimate(value, witness(kernel, p.detach(), q.detach(), point.alpha, dual.reg), info)


def at_fixed_weights(dual: Dual, point: Point) -> Tensor:
    """The dual's value at weights taken for constant: at the optimum its gradient in the points is that of KALE."""
    alpha = point.alpha
    moved = alpha @ (dual.gram @ alpha) / 2 - alpha @ dual.cross + dual.square / 2
    return point.value + (moved - moved.detach()) / dual.reg if moved.requires_grad else point.value


def witness(kernel: Kernel, x: Tensor, y: Tensor, alpha: Tensor, reg: float) -> Callable[[Tensor], Tensor]:
    """h = (1/λ)(mean_j k(x_j,·) − Σ_i α_i k(y_i,·)), as a function (k, d) → (k,)."""

    def h(points: Tensor) -> Tensor:
        if points.dim() != 2 or points.shape[1] != x.shape[1]:
            raise UserError(f"the witness takes points (k, {x.shape[1]}), not {tuple(points.shape)}")
        rows = points.to(x.dtype)
        parts = [kernel(part, x).mean(1) - kernel(part, y) @ alpha for part in rows.split(_rows(max(len(x), len(y))))]
        return (torch.cat(parts) / reg).to(points.dtype)

    return h


def gram(kernel: Kernel, y: Tensor) -> Tensor:
    """(m, m) k(y_i, y_j), computed by blocks of rows; a UserError if it is not finite."""
    parts = [kernel(rows, y) for rows in y.split(_rows(len(y)))]
    matrix = parts[0] if len(parts) == 1 else torch.cat(parts)
    check_finite(matrix)
    return matrix


def cross_mean(kernel: Kernel, y: Tensor, x: Tensor) -> Tensor:
    """(m,) mean_j k(y_i, x_j), of which at most a block of rows is in memory."""
    return torch.cat([kernel(rows, x).mean(1) for rows in y.split(_rows(len(x)))])


def _rows(columns: int) -> int:
    return max(BLOCK // columns, 1)


def _log_ratio(start: Tensor, dual: Dual) -> Tensor:
    """log(N α) of weights given by the caller, those that are 0 included."""
    alpha = start.detach().to(dual.cross)
    if alpha.shape != dual.cross.shape or not torch.isfinite(alpha).all() or (alpha < 0).any():
        raise UserError(f"start must be {len(dual.cross)} finite weights, none negative: one for each point of y")
    return (len(alpha) * alpha).clamp(min=1e-300).log()
