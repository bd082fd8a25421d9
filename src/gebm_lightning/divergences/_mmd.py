"""The maximum mean discrepancy (Gretton et al., A kernel two-sample test, JMLR 2012)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import check_number
from .estimate import Estimate, check_samples
from .kernels import Gaussian, Kernel, median_heuristic

BLOCK = {"cpu": 2**18, "cuda": 2**26}
"""Numbers in a block's largest tensor: what a core's cache holds, and what keeps a GPU busy."""


def _row_sum(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    return kernel(x, y).sum(1)


def row_sums(kernel: Kernel, x: Tensor, y: Tensor, chunk: int | None = None) -> Tensor:
    """(n,) Σ_j k(x_i, y_j) of x (n, d) and y (m, d), over blocks of `chunk` rows; gradients compute each block again."""
    if chunk is None:
        chunk = max(1, BLOCK.get(x.device.type, BLOCK["cuda"]) // max(1, y.numel()))
    blocks = x.split(chunk)
    row_sum = partial(_row_sum, kernel)
    if len(blocks) == 1:
        return row_sum(x, y)
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        row_sum = partial(checkpoint, row_sum, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([row_sum(block, y) for block in blocks])


def mmd(
    x: Tensor, y: Tensor, kernel: Kernel | None = None, unbiased: bool = True, chunk: int | None = None
) -> Estimate:
    """MMD² of P and Q, the *squared* discrepancy; the unbiased estimate of it, the default, can be negative.

    MMD² = E k(x, x') + E k(y, y') − 2 E k(x, y). Unbiased: means over pairs of different points (JMLR 2012, equation 3);
    biased: over all pairs (equation 5), ‖μ_x − μ_y‖² ≥ 0 of the two empirical means. Differentiable in x and y, for
    fixed kernel: the median heuristic's width is a constant.

    Args:
        x: (n, d) from P.
        y: (m, d) from Q.
        kernel: k; by default Gaussian with the median heuristic's width.
        unbiased: which estimate.
        chunk: rows of x or y that are compared with all points of the other at once; by default what the memory likes.

    Returns:
        The value, the witness f(p) = mean_i k(p, x_i) − mean_j k(p, y_j), for which E_x f − E_y f is the biased MMD², and in
        `info` the `kernel` and `mmd` = sqrt(max(0, MMD²)), without gradient.

    Raises:
        UserError: samples that cannot be compared, or fewer than two points for the unbiased estimate.
    """
    check_samples(x, y, least=2 if unbiased else 1)
    if chunk is not None:
        check_number("chunk", chunk, low=1, integer=True)
    used = Gaussian(median_heuristic(x, y)) if kernel is None else kernel
    value = _within(used, x, unbiased, chunk) + _within(used, y, unbiased, chunk)
    value = value - 2 * row_sums(used, x, y, chunk).mean() / len(y)

    def witness(points: Tensor) -> Tensor:
        return row_sums(used, points, x, chunk) / len(x) - row_sums(used, points, y, chunk) / len(y)

    return Estimate(value, witness, {"kernel": used, "mmd": value.detach().clamp(min=0).sqrt()})


def _within(kernel: Kernel, x: Tensor, unbiased: bool, chunk: int | None) -> Tensor:
    n = len(x)
    rows = row_sums(kernel, x, x, chunk)
    if not unbiased:
        return rows.mean() / n
    return (rows - kernel.diagonal(x)).mean() / (n - 1)
