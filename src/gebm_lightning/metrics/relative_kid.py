"""Is one sample's KID lower than another's? A test on three samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kid_rows(generated: Tensor, real: Tensor) -> Tensor:
    """(n,) row means, over j ≠ i, of k(g_i, g_j) − k(r_i, g_j) − k(r_j, g_i) with KID's cubic kernel.

    Their mean is the unbiased KID of generated against real features (both (n, f)), but for the real images' own term.
    """
    generated, real = generated.double(), real.double()
    n, f = generated.shape
    own, cross = (generated @ generated.T / f + 1) ** 3, (real @ generated.T / f + 1) ** 3
    terms = own - cross - cross.T
    return (terms.sum(1) - terms.diagonal()) / (n - 1)


def relative_kid_test(new: Tensor, old: Tensor) -> tuple[float, float]:
    """KID(new) − KID(old) and the p-value of "new is no better than old", from both samples' `kid_rows` (n,).

    The relative test of Bounliphone et al. (ICLR 2016) on equally many real, new and old samples: the difference is one
    U-statistic of order two, asymptotically normal; its variance is the jackknife's.
    """
    rows = new - old
    n = len(rows)
    difference = rows.mean()
    variance = 4 * (n - 1) / (n * (n - 2) ** 2) * (rows - difference).square().sum()
    statistic = difference / variance.sqrt().clamp_min(torch.finfo(rows.dtype).tiny)
    return difference.item(), 0.5 * math.erfc(-statistic.item() / math.sqrt(2))
