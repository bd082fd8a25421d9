"""KALE in an RKHS: dual against primal, against closed forms, bounds and limits."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import wasserstein_distance

from gebm_lightning import UserError
from gebm_lightning.divergences import kale
from gebm_lightning.divergences._kale_dual import SOLVERS, Dual, solve
from gebm_lightning.divergences.kernels import Gaussian, Laplace, Polynomial, RationalQuadratic

REGS = [1e-4, 1e-3, 1e-1, 1.0, 1e3, 1e6]


def points(n, dim, shift=0.0, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, dim, generator=generator, dtype=torch.float64)


def primal(x, y, kernel, reg, estimate):
    """1 + E_P h − E_Q e^h − (reg/2)‖h‖², all of it from the witness's definition."""
    every = torch.cat([x, y])
    weights = torch.cat([torch.full((len(x),), 1 / len(x), dtype=torch.float64), -estimate.info["alpha"]]) / reg
    norm = weights @ kernel(every, every) @ weights
    torch.testing.assert_close(norm, torch.tensor(estimate.info["squared_norm"]).double(), rtol=1e-6, atol=1e-9)
    h = kernel(every, every) @ weights
    torch.testing.assert_close(estimate.witness(every), h, rtol=1e-9, atol=1e-9 * (1 + 1 / reg))
    return 1 + h[: len(x)].mean() - h[len(x) :].exp().mean() - reg / 2 * norm


@pytest.mark.parametrize("reg", REGS)
@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize(("n", "m", "shift"), [(30, 20, 0.0), (20, 40, 1.0), (25, 25, 3.0), (1, 30, 8.0), (30, 1, 0.5)])
def test_dual_and_primal_agree_whatever_the_solver(reg, dim, n, m, shift):
    x, y, kernel = points(n, dim, shift), points(m, dim, seed=1), Gaussian(1.0)
    if m > 1:
        y = torch.cat([y, y[: m // 3]])  # coinciding points
    newton, lbfgs = (kale(x, y, kernel, reg, method=method) for method in ("newton", "lbfgs"))
    for estimate in (newton, lbfgs):
        assert (1 + reg) * estimate.info["gap"] <= 1e-9
        value = estimate.value.item()
        assert value >= -1e-12
        assert value == pytest.approx(primal(x, y, kernel, reg, estimate).item(), rel=1e-9, abs=1e-6 / (1 + reg))
    assert newton.value.item() == pytest.approx(lbfgs.value.item(), abs=1e-6 / (1 + reg))
    assert newton.info["steps"] < 40
    # The optimality condition: α_i = e^{h(y_i)}/m.
    torch.testing.assert_close(newton.info["alpha"], newton.witness(y).exp() / len(y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [Laplace(1.0), RationalQuadratic(), Polynomial(2)], ids=lambda k: type(k).__name__)
def test_other_kernels(kernel):
    x, y = points(40, 2, 1.0), points(30, 2, seed=1)
    estimate = kale(x, y, kernel, 0.1)
    assert estimate.value.item() == pytest.approx(primal(x, y, kernel, 0.1, estimate).item(), abs=1e-8)


def test_a_wrong_sign_of_the_coupling_opens_the_gap():
    x, y, kernel = points(30, 2, 1.0), points(30, 2, seed=1), Gaussian(1.0)
    right = Dual(kernel(y, y), kernel(y, x).mean(1), kernel(x, x).mean(), 0.1)
    for dual, agrees in ((right, True), (right._replace(cross=-right.cross), False)):
        point, _ = solve(dual, None, SOLVERS["newton"], 1e-9, 200)
        every = torch.cat([x, y])
        weights = torch.cat([torch.full((30,), 1 / 30, dtype=torch.float64), -point.alpha]) / 0.1
        h = kernel(every, every) @ weights
        value = 1 + h[:30].mean() - h[30:].exp().mean() - 0.05 * weights @ kernel(every, every) @ weights
        assert (abs(value - point.value) < 1e-6) == agrees


def test_the_witness_is_high_on_p_and_near_the_log_ratio():
    """P = N(.5, 1), Q = N(−.5, 1): log dP/dQ = x, which a small penalty nearly allows."""
    estimate = kale(points(2000, 1, 0.5), points(2000, 1, -0.5, seed=1), Gaussian(2.0), 1e-3)
    grid = torch.linspace(-1.5, 1.5, 7).double()
    torch.testing.assert_close(estimate.witness(grid[:, None]), grid, rtol=0, atol=0.3)
    assert estimate.value.item() == pytest.approx(0.5, abs=0.1)  # KL(P‖Q)


@pytest.mark.parametrize("reg", REGS)
def test_zero_for_equal_samples_and_positive_for_others(reg):
    x = points(40, 2)
    equal = kale(x, x[torch.randperm(40, generator=torch.Generator().manual_seed(0))], Gaussian(1.0), reg)
    assert abs(equal.value.item()) < 1e-9 / (1 + reg)
    assert (1 + reg) * kale(x, points(40, 2, 0.2, seed=1), Gaussian(1.0), reg).value.item() > 1e-3


def test_it_becomes_half_of_mmd_squared():
    x, y, kernel = points(50, 2, 1.0), points(40, 2, seed=1), Gaussian(1.0)
    limit = (kernel(x, x).mean() - 2 * kernel(x, y).mean() + kernel(y, y).mean()).item() / 2
    error = {reg: abs((1 + reg) * kale(x, y, kernel, reg).value.item() - limit) for reg in (1e2, 1e3, 1e4)}
    assert error[1e2] / error[1e3] == pytest.approx(10, rel=0.05)
    assert error[1e3] / error[1e4] == pytest.approx(10, rel=0.05)


def test_it_falls_in_the_penalty_and_grows_with_distance():
    y, kernel = points(40, 1), Gaussian(1.0)
    values = [kale(points(40, 1, 1.0, seed=1), y, kernel, reg).value.item() for reg in (1e-3, 1e-2, 1e-1, 1.0)]
    assert values == sorted(values, reverse=True)
    values = [kale(points(40, 1, shift, seed=1), y, kernel, 0.1).value.item() for shift in (0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values)


@pytest.mark.parametrize("reg", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("shift", [0.2, 1.0, 5.0])
def test_at_most_the_lipschitz_constant_times_wasserstein(reg, shift):
    """E_P h − E_Q (e^h − 1) ≤ E_P h − E_Q h ≤ L·W₁ for a witness of slope at most L, the penalty left out."""
    x, y = points(50, 1, shift), points(60, 1, seed=1)
    estimate = kale(x, y, Gaussian(1.0), reg)
    low, high = torch.cat([x, y]).min(), torch.cat([x, y]).max()
    grid = torch.linspace(float(low), float(high), 4001).double()[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(estimate.witness(grid).sum(), grid)
    distance = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert 0 < estimate.value.item() <= slope.abs().max().item() * distance


@pytest.mark.parametrize("reg", REGS)
@pytest.mark.parametrize("gap", [0.0, 0.5, 3.0])
def test_one_point_against_one(reg, gap):
    """log α + (α − k)/reg = 0 has one root in (0, 1]; its objective is the value."""
    k = math.exp(-(gap**2) / 2)
    log_alpha = brentq(lambda u: u + (math.exp(u) - k) / reg, -1 / reg - 1, 1.0, xtol=1e-15)
    alpha = math.exp(log_alpha)
    value = alpha * log_alpha - math.expm1(log_alpha) + (alpha**2 - 2 * alpha * k + 1) / (2 * reg)
    estimate = kale(torch.full((1, 1), gap).double(), torch.zeros(1, 1).double(), Gaussian(1.0), reg)
    assert estimate.value.item() == pytest.approx(value, abs=1e-8 / (1 + reg))
    assert estimate.info["alpha"].item() == pytest.approx(alpha, abs=1e-5)


def test_the_order_of_points_does_not_matter():
    x, y = points(30, 2, 1.0), points(20, 2, seed=1)
    a = kale(x, y, Gaussian(1.0), 0.01)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    b = kale(x.flip(0), y[order], Gaussian(1.0), 0.01)
    assert a.value.item() == pytest.approx(b.value.item(), rel=1e-9)
    torch.testing.assert_close(a.info["alpha"][order], b.info["alpha"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_a_warm_start_takes_fewer_steps(method):
    x, y, kernel = points(60, 2, 2.0), points(50, 2, seed=1), Gaussian(1.0)
    cold = kale(x, y, kernel, 1e-2, method=method)
    near = kale(x + 1e-3, y, kernel, 1e-2, method=method)
    warm = kale(x + 1e-3, y, kernel, 1e-2, method=method, start=cold.info["alpha"])
    assert warm.info["steps"] < near.info["steps"] / 1.5
    assert warm.value.item() == pytest.approx(near.value.item(), abs=1e-8)
    assert kale(x, y, kernel, 1e-2, method=method, start=cold.info["alpha"]).info["steps"] == 0
    # A start that is no help costs steps, not the result.
    lost = kale(x, y, kernel, 1e-2, method=method, start=torch.zeros(50))
    assert lost.value.item() == pytest.approx(cold.value.item(), abs=1e-8)


@pytest.mark.parametrize("reg", [1e-2, 1.0, 1e4])
def test_its_gradient_is_that_of_finite_differences(reg):
    x, y, kernel = points(6, 2, 0.5), points(5, 2, seed=1), Gaussian(1.0)
    x.requires_grad_()
    y.requires_grad_()
    estimate = kale(x, y, kernel, reg, tolerance=1e-13)
    gradients = torch.autograd.grad(estimate.value, (x, y))
    scale = max(g.abs().max().item() for g in gradients)
    for which, gradient in enumerate(gradients):
        for index in np.ndindex(*gradient.shape):
            shifted = []
            for sign in (1, -1):
                pair = [x.detach().clone(), y.detach().clone()]
                pair[which][index] += sign * 1e-4
                shifted.append(kale(*pair, kernel, reg, tolerance=1e-13).value.item())
            assert (shifted[0] - shifted[1]) / 2e-4 == pytest.approx(gradient[index].item(), abs=1e-5 * scale)
    # In x it is that of the witness over n.
    at = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(estimate.witness(at).mean(), at)
    torch.testing.assert_close(gradients[0], slope, rtol=1e-4, atol=1e-6 * scale)


def test_dtypes_and_modes():
    x, y, kernel = points(30, 2, 1.0), points(20, 2, seed=1), Gaussian(1.0)
    exact = kale(x, y, kernel, 1e-2)
    single = kale(x.float(), y.float(), kernel, 1e-2)
    assert single.value.dtype == torch.float32 and single.info["alpha"].dtype == torch.float64
    assert single.value.item() == pytest.approx(exact.value.item(), rel=1e-5)
    assert single.witness(x.float()).dtype == torch.float32 and single.witness(x[:0].float()).shape == (0,)
    for method in ("newton", "lbfgs"):
        with torch.inference_mode():
            inferred = kale(x.clone(), y.clone(), kernel, 1e-2, method=method)
        assert inferred.value.item() == pytest.approx(exact.value.item(), abs=1e-8)
        at = x.clone().requires_grad_()
        assert torch.autograd.grad(inferred.witness(at).sum(), at)[0].abs().sum() > 0
        with torch.no_grad():
            assert not kale(x.clone().requires_grad_(), y, kernel, 1e-2, method=method).value.requires_grad


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, y = points(30, 2, 1.0), points(20, 2, seed=1)
    whole = kale(x, y, Gaussian(1.0), 1e-2)
    monkeypatch.setattr("gebm_lightning.divergences._kale.BLOCK", 70)
    parts = kale(x, y, Gaussian(1.0), 1e-2)
    assert parts.value.item() == pytest.approx(whole.value.item(), rel=1e-12)
    torch.testing.assert_close(parts.witness(x), whole.witness(x))


def test_two_thousand_points():
    x, y = points(2000, 2, 1.0), points(2000, 2, seed=1)
    estimate = kale(x, y, Gaussian(1.0), 1e-2)
    assert estimate.info["gap"] < 1e-9 and estimate.info["steps"] < 15


@pytest.mark.parametrize("reg", [1e-4, 1e-6, 1e-8, 1e-10])
def test_rounding_at_a_small_penalty_is_told_and_never_below_zero(reg):
    x = points(200, 2)
    same = kale(x, x.flip(0), Gaussian(1.0), reg)
    assert 0 <= same.value <= 20 * same.info["rounding"] and same.info["squared_norm"] >= 0
    square = Gaussian(1.0)(x, x).mean().item()
    assert same.info["rounding"] == pytest.approx(2.2e-16 * square / reg, rel=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reg": 0.0}, "reg must be a number above 0"),
        ({"reg": float("nan")}, "reg"),
        ({"x": torch.zeros(3)}, "points"),
        ({"x": torch.zeros(3, 5).double()}, "dimension"),
        ({"x": torch.zeros(0, 2).double()}, "points"),
        ({"x": torch.full((3, 2), math.nan).double()}, "finite"),
        ({"method": "descent"}, "newton"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"start": torch.ones(3)}, "start"),
        ({"start": -torch.ones(20)}, "start"),
        ({"max_steps": 2, "reg": 1e-3}, "is not solved after 2 steps"),
        ({"max_steps": 3, "reg": 1e-3, "method": "lbfgs"}, "max_steps=3"),
        ({"tolerance": 1e-300, "reg": 1e-3}, "gap"),
        ({"kernel": lambda a, b: -Gaussian(1.0)(a, b), "reg": 1e-2}, "positive-definite"),
    ],
    ids=lambda v: v if isinstance(v, str) else "+".join(v),
)
def test_mistakes(change, words):
    given = {"x": points(30, 2, 1.0), "y": points(20, 2, seed=1), "kernel": Gaussian(1.0), "reg": 0.1} | change
    with pytest.raises(UserError, match=words), warnings.catch_warnings():
        warnings.simplefilter("error")
        kale(given.pop("x"), given.pop("y"), given.pop("kernel"), given.pop("reg"), **given)
