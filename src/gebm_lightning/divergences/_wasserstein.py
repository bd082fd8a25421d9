"""The Wasserstein-1 distance and its 1-Lipschitz witness (Kantorovich & Rubinstein), exact or by Sinkhorn's iteration."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError, check_number
from ._mmd import BLOCK
from .estimate import Estimate, check_samples
from .kernels import distances, norms

METHODS = ("exact", "sorted", "sinkhorn")
TOLERANCE = 1e-4
"""The misplaced mass at which Sinkhorn's iteration ends."""


class _Solution(NamedTuple):
    """Pairs x_i, y_j that a plan couples with its masses w, all (k,), a witness, and diagnostics."""

    i: Tensor
    j: Tensor
    w: Tensor
    witness: Callable[[Tensor], Tensor]
    info: dict[str, Any]


def wasserstein1(
    x: Tensor,
    y: Tensor,
    method: str | None = None,
    epsilon: float | None = None,
    max_steps: int = 10_000,
) -> Estimate:
    """W₁(P, Q) = min over couplings of E‖X − Y‖ = max over 1-Lipschitz f of E_P f − E_Q f, Euclidean norm.

    Methods: "sorted", for d = 1: ∫|F − G| in O(n log n); "exact": the network simplex of POT on the (n, m) costs;
    "sinkhorn": the cost Σ π_ij ‖x_i − y_j‖ of the plan π that minimises it plus epsilon·KL(π ‖ product of the samples),
    without the KL term: no lower than W₁, and W₁ for epsilon → 0. The plan is found in double precision, by the first two on
    the CPU; the value is differentiable in x and y for fixed plan, which is W₁'s own gradient unless the method is sinkhorn.

    Args:
        x: (n, d) from P.
        y: (m, d) from Q.
        method: one of the three; by default sorted for d = 1, otherwise exact.
        epsilon: Sinkhorn's regularisation, in units of distance; by default a hundredth of the mean ‖x_i − y_j‖.
        max_steps: Sinkhorn's iterations at most.

    Returns:
        The value, a witness f that is 1-Lipschitz on all of R^d, and in `info` the `method` and `gap`, which is
        value − (E_x f − E_y f): 0 up to rounding for the two exact methods; W₁ of the samples is between value − gap and
        value. Sinkhorn adds `epsilon`, `steps` and `marginal_error`, the mass that its plan misplaced before it was
        rounded to a coupling.

    Raises:
        UserError: samples that cannot be compared or are not finite, an unknown method, or "sorted" for d > 1.
    """
    check_samples(x, y)
    if method is None:
        method = "sorted" if x.shape[1] == 1 else "exact"
    if method not in METHODS:
        raise UserError(f"wasserstein1's method must be one of {', '.join(METHODS)}, not {method}")
    if method == "sorted" and x.shape[1] != 1:
        raise UserError(f"wasserstein1's method sorted is for one dimension, not {x.shape[1]}: use exact or sinkhorn")
    if epsilon is not None:
        check_number("wasserstein1's epsilon", epsilon, above=0)
    check_number("wasserstein1's max_steps", max_steps, low=1, integer=True)
    if not (x.isfinite().all() and y.isfinite().all()):
        raise UserError("x and y must be finite for wasserstein1")

    a, b = x.detach(), y.detach()
    if method != "sinkhorn" or x.device.type == "mps":
        a, b = a.cpu(), b.cpu()
    a, b = a.double(), b.double()
    if method == "sinkhorn":
        i, j, w, witness, info = _sinkhorn(a, b, epsilon, max_steps)
    else:
        i, j, w, witness, info = (_sorted if method == "sorted" else _exact)(a, b)
    value = (w.to(x) * norms(x[i.to(x.device)] - y[j.to(x.device)])).sum()
    gap = (w * norms(a[i] - b[j])).sum() - witness(a).mean() + witness(b).mean()
    return Estimate(value, witness, {"method": method, "gap": float(gap), **info})


def _exact(x: Tensor, y: Tensor) -> _Solution:
    import ot

    # The limit on iterations that POT has by default is too low for thousands of points.
    plan, log = ot.emd([], [], distances(x, y).numpy(), numItermax=10**9, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"POT's network simplex failed: {log['warning']}")
    plan = torch.from_numpy(plan)
    i, j = plan.nonzero(as_tuple=True)
    return _Solution(i, j, plan[i, j], _lipschitz(y, -torch.from_numpy(log["v"])), {})


def _sorted(x: Tensor, y: Tensor) -> _Solution:
    n, m = len(x), len(y)
    # The quantiles k/n and l/m at which either quantile function jumps, in whole multiples of 1/(nm).
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    i, j = x[:, 0].argsort()[(ends - 1) // m], y[:, 0].argsort()[(ends - 1) // n]
    # E_P f − E_Q f = ∫ f'·(G − F), so the best slope is the sign of G − F.
    knots, order = torch.cat([x, y])[:, 0].sort()
    excess = torch.where(order < n, -m, n).cumsum(0)
    slopes = excess.sign().double()
    heights = torch.cat([slopes.new_zeros(1), (slopes[:-1] * knots.diff()).cumsum(0)])

    def witness(points: Tensor) -> Tensor:
        at, p = knots.to(points), points[:, 0]
        left = torch.searchsorted(at, p.detach().contiguous(), right=True) - 1
        inside = left.clamp(min=0)
        slope = torch.where(left < 0, 0, slopes.to(points)[inside])
        return heights.to(points)[inside] + slope * (p - at[inside])

    return _Solution(i, j, widths, witness, {})


def _sinkhorn(x: Tensor, y: Tensor, epsilon: float | None, max_steps: int) -> _Solution:
    import ot

    cost = distances(x, y)
    if epsilon is None:
        epsilon = float(cost.mean()) / 100 or 1.0
    a, b = torch.full_like(cost[:, 0], 1 / len(x)), torch.full_like(cost[0], 1 / len(y))
    # POT measures the marginal's error in the 2-norm, which is at least the 1-norm over the root of the length.
    threshold = 2 * TOLERANCE / len(y) ** 0.5
    plan, log = ot.bregman.sinkhorn_log(
        a, b, cost, epsilon, numItermax=max_steps, stopThr=threshold, log=True, warn=False
    )
    error = float((plan.sum(0) - b).abs().sum()) / 2
    if error > TOLERANCE:
        warnings.warn(
            f"Sinkhorn's iteration has not converged in {max_steps} steps, {error:.1e} of the mass is misplaced: raise "
            f"wasserstein1's max_steps or its epsilon, which is {epsilon:.3g}",
            stacklevel=3,
        )
    # Rounded to a coupling, whose cost cannot be below W₁ (Altschuler, Weed & Rigollet, NeurIPS 2017, algorithm 2).
    plan = plan * (a / plan.sum(1)).clamp(max=1)[:, None]
    plan = plan * (b / plan.sum(0)).clamp(max=1)
    rows, columns = (a - plan.sum(1)).clamp(min=0), (b - plan.sum(0)).clamp(min=0)
    plan = plan + rows[:, None] * columns / rows.sum().clamp(min=torch.finfo(plan.dtype).tiny)
    i, j = plan.nonzero(as_tuple=True)
    info = {"epsilon": epsilon, "steps": log["niter"] + 1, "marginal_error": error}
    return _Solution(i, j, plan[i, j], _lipschitz(y, -epsilon * log["log_v"]), info)


def _lipschitz(anchors: Tensor, heights: Tensor) -> Callable[[Tensor], Tensor]:
    """f(p) = min_j ‖p − y_j‖ + h_j, McShane's extension, with h = −v for a dual potential v, whose c-transform f is.

    It is 1-Lipschitz whatever h is, f(y_j) ≤ −v_j, and f(x_i) ≥ u_i for each dual feasible (u, v): E_x f − E_y f is no
    less than the dual's value, so it is W₁ if that is optimal.
    """

    def witness(points: Tensor) -> Tensor:
        at, offset = anchors.to(points), heights.to(points)
        with torch.no_grad():
            rows = max(1, BLOCK.get(points.device.type, BLOCK["cuda"]) // at.numel())
            nearest = torch.cat([(distances(block, at) + offset).argmin(1) for block in points.detach().split(rows)])
        return norms(points - at[nearest]) + offset[nearest]

    return witness
