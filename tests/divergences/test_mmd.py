"""MMD² against loops, its closed form between Gaussians, and the energy distance; the witness; blocks; gradients."""

import math

import pytest
import torch
from scipy.stats import energy_distance

from gebm_lightning import UserError
from gebm_lightning.divergences import _mmd
from gebm_lightning.divergences._mmd import mmd
from gebm_lightning.divergences.kernels import (
    EnergyDistance,
    Gaussian,
    Laplace,
    Polynomial,
    RationalQuadratic,
    median_heuristic,
)

KERNELS = pytest.mark.parametrize(
    "kernel", [Gaussian(0.8), Laplace(1.2), RationalQuadratic(), Polynomial(), EnergyDistance()], ids=str
)


def normal(n, d, seed, mean=0.0, std=1.0):
    return mean + std * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop(x, y, kernel, unbiased):
    """MMD² entry by entry."""

    def mean(a, b, skip):
        values = [
            float(kernel(p[None], q[None])) for i, p in enumerate(a) for j, q in enumerate(b) if i != j or not skip
        ]
        return sum(values) / len(values)

    return mean(x, x, unbiased) + mean(y, y, unbiased) - 2 * mean(x, y, False)


@KERNELS
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_against_a_loop(kernel, unbiased, chunk):
    x, y = normal(9, 2, 0), normal(7, 2, 1, 0.5)
    value = mmd(x, y, kernel, unbiased, chunk).value
    assert value.shape == () and value.dtype == torch.float64
    assert float(value) == pytest.approx(loop(x, y, kernel, unbiased), rel=1e-11, abs=1e-12)
    assert float(value) != pytest.approx(loop(x, y, kernel, not unbiased), rel=1e-3)
    single = mmd(x.float(), y.float(), kernel, unbiased, chunk).value
    assert single.dtype == torch.float32 and float(single) == pytest.approx(float(value), rel=1e-4, abs=1e-5)


def closed_form(m1, s1, m2, s2, sigma, d):
    """MMD² of N(m1·1, s1² I) and N(m2·1, s2² I): E k(X, Y) = (σ²/v)^{d/2} exp(−‖Δ‖²/(2v)), v = σ² + s² + s'²."""

    def mean(delta, a, b):
        v = sigma**2 + a**2 + b**2
        return (sigma**2 / v) ** (d / 2) * math.exp(-d * delta**2 / (2 * v))

    return mean(0, s1, s1) + mean(0, s2, s2) - 2 * mean(m1 - m2, s1, s2)


def replicates(estimate, m1, s1, m2, s2, d=2, count=400):
    """The mean of `count` estimates from 25 and 20 points, and its standard error."""
    x, y = normal(25 * count, d, 2, m1, s1), normal(20 * count, d, 3, m2, s2)
    pairs = zip(x.split(25), y.split(20), strict=True)
    values = torch.stack([estimate(a, b) for a, b in pairs])
    return float(values.mean()), float(values.std()) / math.sqrt(count)


@pytest.mark.parametrize(("m1", "s1", "m2", "s2"), [(0, 1, 0, 1), (0, 1, 0.5, 1), (0, 0.5, 0.3, 1.5)])
def test_the_unbiased_estimate_between_gaussians(m1, s1, m2, s2):
    """For P = Q the truth is 0."""
    mean, error = replicates(lambda x, y: mmd(x, y, Gaussian(0.8)).value, m1, s1, m2, s2)
    truth = closed_form(m1, s1, m2, s2, 0.8, 2)
    assert (truth == 0) == (m1 == m2 and s1 == s2)
    assert abs(mean - truth) < 5 * error
    # The test sees the bias of the other estimate, and a width that lacks its factor 2.
    mean, error = replicates(lambda x, y: mmd(x, y, Gaussian(0.8), unbiased=False).value, m1, s1, m2, s2)
    assert abs(mean - truth) > 10 * error
    if truth > 0:
        mean, error = replicates(lambda x, y: mmd(x, y, Gaussian(0.8 / math.sqrt(2))).value, m1, s1, m2, s2)
        assert abs(mean - truth) > 5 * error


def test_half_of_the_energy_distance():
    x, y = normal(50, 1, 0), normal(40, 1, 1, 0.5, 2)
    twice = 2 * mmd(x, y, EnergyDistance(), unbiased=False).value
    assert float(twice) == pytest.approx(energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-12)
    # In two dimensions, and unbiased: ‖x‖ and ‖y‖ cancel there as well.
    x, y = normal(50, 2, 0), normal(40, 2, 1, 0.5, 2)
    within = sum(torch.pdist(sample).mean() for sample in (x, y))
    twice = 2 * mmd(x, y, EnergyDistance()).value
    torch.testing.assert_close(twice, 2 * torch.cdist(x, y).mean() - within, rtol=1e-11, atol=0)


@KERNELS
def test_the_witness(kernel):
    x, y = normal(30, 2, 0), normal(20, 2, 1, 1.0)
    estimate = mmd(x, y, kernel, unbiased=False)
    f = estimate.witness
    assert f(x).shape == (30,)
    torch.testing.assert_close(f(x).mean() - f(y).mean(), estimate.value, rtol=1e-11, atol=1e-12)
    assert f(normal(5, 2, 2, -1.0)).mean() > 0.01 and f(normal(5, 2, 2, 2.0)).mean() < f(x).mean()
    assert f(x[:0]).shape == (0,)
    p = normal(4, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(f, (p,)) and torch.autograd.gradgradcheck(f, (p,))
    torch.testing.assert_close(mmd(x, y, kernel, chunk=3).witness(p), f(p), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("chunk", [None, 2])
def test_gradients(unbiased, chunk):
    x, y = normal(5, 2, 0).requires_grad_(), normal(4, 2, 1).requires_grad_()
    for kernel in (Gaussian(0.8), EnergyDistance()):
        assert torch.autograd.gradcheck(lambda x, y: mmd(x, y, kernel, unbiased, chunk).value, (x, y))  # noqa: B023


def test_a_penalty_on_the_witness_by_blocks():
    """Second derivatives go through the blocks that are computed again."""
    slopes = []
    for chunk in (None, 2):
        x, y = normal(5, 2, 0).requires_grad_(), normal(4, 2, 1)
        p = normal(7, 2, 2).requires_grad_()
        f = mmd(x, y, Gaussian(0.8), chunk=chunk).witness
        (gradient,) = torch.autograd.grad(f(p).sum(), p, create_graph=True)
        slopes.append(torch.autograd.grad(gradient.square().sum(), x)[0])
    torch.testing.assert_close(*slopes)
    assert slopes[0].abs().max() > 1e-4


def test_blocks_bound_the_memory(monkeypatch):
    monkeypatch.setitem(_mmd.BLOCK, "cpu", 2000)
    sizes = []

    class Recorder(Gaussian):
        def __call__(self, x, y):
            sizes.append(len(x) * y.numel())
            return super().__call__(x, y)

    x, y = normal(100, 2, 0), normal(300, 2, 1)
    value = mmd(x, y, Recorder(1.0)).value
    assert max(sizes) <= 2000 and sum(sizes) == 2 * (100 * 100 + 300 * 300 + 100 * 300)
    torch.testing.assert_close(value, mmd(x, y, Gaussian(1.0), chunk=1000).value)


def test_defaults_and_info():
    x, y = normal(30, 2, 0), normal(20, 2, 1)
    estimate = mmd(x, y)
    assert estimate.info["kernel"] == Gaussian(median_heuristic(x, y))
    torch.testing.assert_close(estimate.value, mmd(x, y, estimate.info["kernel"], unbiased=True).value)
    shifted = mmd(x, y + 2)
    torch.testing.assert_close(shifted.info["mmd"] ** 2, shifted.value)
    assert mmd(x, x.flip(0)).value < 0 and mmd(x, x.flip(0)).info["mmd"] == 0
    assert mmd(x, x.flip(0), unbiased=False).value.abs() < 1e-12


def test_finite_and_falling_as_disjoint_supports_meet():
    x = normal(50, 2, 0, std=0.05)
    values = [float(mmd(x, normal(50, 2, 1, shift, 0.05), Gaussian(1.0)).value) for shift in (4.0, 2.0, 1.0, 0.5, 0.0)]
    assert values == sorted(values, reverse=True) and values[0] < 2 and abs(values[-1]) < 1e-3


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda x: mmd(x[:, 0], x), "points"),
        (lambda x: mmd(x[:, :1], x), "one dimension, not 1 and 2"),
        (lambda x: mmd(x.float(), x), "one dtype"),
        (lambda x: mmd(x.long(), x.long()), "floating-point"),
        (lambda x: mmd(x, x.to("meta")), "one device, not cpu and meta"),
        (lambda x: mmd(x, x[:1]), "y must hold at least 2 points"),
        (lambda x: mmd(x[:0], x, unbiased=False), "x must hold at least 1"),
        (lambda x: mmd(x, x, chunk=0), "chunk"),
    ],
)
def test_mistakes(make, word):
    with pytest.raises(UserError, match=word):
        make(torch.zeros(3, 2, dtype=torch.float64))
    assert mmd(torch.zeros(1, 2), torch.ones(1, 2), unbiased=False).value > 0
