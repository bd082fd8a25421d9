"""W₁ against its closed forms, its witness's Lipschitz constant, the duality gap, and Sinkhorn's limit."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from gebm_lightning import UserError
from gebm_lightning.divergences._wasserstein import wasserstein1
from gebm_lightning.divergences.kernels import distances

CASES = pytest.mark.parametrize(
    ("method", "d"),
    [("exact", 1), ("exact", 2), ("exact", 5), ("sorted", 1), ("sinkhorn", 1), ("sinkhorn", 2)],
)


def normal(n, d, seed, mean=0.0, std=1.0):
    return mean + std * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", ["sorted", "exact"])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 25), (1, 7), (1, 1), (35, 36)])
def test_one_dimension(method, n, m):
    x, y = normal(n, 1, 0), normal(m, 1, 1, 0.5, 2)
    value = wasserstein1(x, y, method).value
    assert value.shape == () and float(value) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-11)
    if n == m:
        order = (x[:, 0].sort().values - y[:, 0].sort().values).abs().mean()
        torch.testing.assert_close(value, order, rtol=1e-11, atol=0)


def test_ties_in_one_dimension():
    x, y = torch.tensor([[0.0], [0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    estimate = wasserstein1(x, y)
    assert float(estimate.value) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]))
    assert float(estimate.witness(x).mean() - estimate.witness(y).mean()) == pytest.approx(float(estimate.value))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_shift_moves_by_its_norm(d):
    x = normal(40, d, 0)
    shift = torch.arange(1, d + 1, dtype=torch.float64)
    estimate = wasserstein1(x, (x + shift).flip(0))
    torch.testing.assert_close(estimate.value, shift.norm(), rtol=1e-11, atol=0)
    assert float(wasserstein1(x, x.flip(0)).value) == pytest.approx(0, abs=1e-12)


def test_gaussians_of_equal_variance():
    """W₁ = |difference of means|; for these, |F − G| has one sign, so the estimate is that of the sample means."""
    means = torch.stack([wasserstein1(normal(100, 1, s), normal(80, 1, 1000 + s, 2.0)).value for s in range(100)])
    error = math.sqrt((1 / 100 + 1 / 80) / 100)
    assert abs(float(means.mean()) - 2) < 5 * error
    assert abs(float(means.mean()) - 2.1) > 5 * error


@CASES
def test_the_witness_is_lipschitz_and_attains_the_distance(method, d):
    x, y = normal(60, d, 0), normal(45, d, 1, 1.0, 1.5)
    estimate = wasserstein1(x, y, method)
    f, gap = estimate.witness, estimate.info["gap"]
    difference = f(x).mean() - f(y).mean()
    assert float(estimate.value - difference) == pytest.approx(gap, abs=1e-12) and difference > 0
    assert estimate.info["method"] == method
    if method == "sinkhorn":
        exact = wasserstein1(x, y).value
        assert difference < exact < estimate.value and 1e-4 < gap < 0.1 * exact
    else:
        assert abs(gap) < 1e-9
    p = torch.cat([x, y, normal(400, d, 2, std=4.0), x + 1e-3])
    slopes = (f(p)[:, None] - f(p)).abs() / distances(p, p).clamp(min=1e-300)
    assert slopes.fill_diagonal_(0).max() < 1 + 1e-7
    assert slopes.max() > 0.9
    p = normal(20, d, 3, std=3.0).requires_grad_()
    (gradient,) = torch.autograd.grad(f(p).sum(), p)
    norm = gradient.norm(dim=1)
    assert torch.isclose(norm, torch.ones_like(norm)).logical_or(norm == 0).all() and norm.max() > 0.5
    single = f(p.detach().float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), f(p).detach(), rtol=1e-5, atol=1e-5)


def test_a_potential_alone_is_no_witness():
    """Half of the witness, or the witness of other samples, leaves a gap: the equality above sees it."""
    x, y = normal(60, 2, 0), normal(45, 2, 1, 1.0, 1.5)
    estimate, other = wasserstein1(x, y), wasserstein1(normal(60, 2, 5), normal(45, 2, 6))
    for f in (other.witness, lambda p: estimate.witness(p) / 2, lambda p: -estimate.witness(p)):
        assert f(x).mean() - f(y).mean() < estimate.value - 1e-3


def test_sinkhorn_falls_to_the_exact_distance_with_epsilon():
    x, y = normal(30, 2, 0), normal(30, 2, 1, 0.5)
    exact = float(wasserstein1(x, y).value)
    estimates = [wasserstein1(x, y, "sinkhorn", epsilon) for epsilon in (1.0, 0.3, 0.1, 0.03, 0.01)]
    errors = [float(estimate.value) - exact for estimate in estimates]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and 0 < errors[-1] < 0.01 * exact
    gaps = [estimate.info["gap"] for estimate in estimates]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] > 0
    assert estimates[0].info["epsilon"] == 1 and estimates[0].info["marginal_error"] < 1e-4
    assert wasserstein1(x, y, "sinkhorn").info["epsilon"] == pytest.approx(float(torch.cdist(x, y).mean()) / 100)


@pytest.mark.parametrize("epsilon", [0.05, 10.0])
def test_sinkhorns_plan_is_a_coupling(epsilon):
    """For a coupling and one y, the value is the mean distance to it, whatever epsilon is; and epsilon is no scale."""
    x, y = normal(30, 2, 0), normal(20, 2, 1)
    torch.testing.assert_close(wasserstein1(x, y[:1], "sinkhorn", epsilon).value, (x - y[0]).norm(dim=1).mean())
    value = wasserstein1(x, y, "sinkhorn", epsilon).value
    assert wasserstein1(x, y).value < value < torch.cdist(x, y).mean() + 1e-9
    torch.testing.assert_close(wasserstein1(5 * x, 5 * y, "sinkhorn", 5 * epsilon).value, 5 * value)


def test_sinkhorn_says_that_it_has_not_converged():
    x, y = normal(30, 2, 0), normal(30, 2, 1, 0.5)
    with pytest.warns(UserWarning, match="not converged in 3 steps"):
        estimate = wasserstein1(x, y, "sinkhorn", 0.01, max_steps=3)
    assert estimate.info["steps"] == 3 and estimate.info["marginal_error"] > 0.01
    # The bracket holds all the same.
    assert estimate.value - estimate.info["gap"] < wasserstein1(x, y).value < estimate.value
    assert float(wasserstein1(x[:1] * 0, y[:1] * 0, "sinkhorn").value) == 0


@pytest.mark.parametrize(("method", "d"), [("exact", 2), ("sorted", 1)])
def test_gradients(method, d):
    x, y = normal(6, d, 0).requires_grad_(), normal(4, d, 1, 1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: wasserstein1(x, y, method).value, (x, y))
    # No point pulls harder than its mass.
    (gradient,) = torch.autograd.grad(wasserstein1(x, y, method).value, x)
    assert gradient.norm(dim=1).max() <= 1 / 6 + 1e-9 and gradient.norm(dim=1).min() > 0
    same = torch.autograd.grad(wasserstein1(x, x.detach().clone(), method).value, x)[0]
    assert (same == 0).all()


def test_single_precision_and_many_points():
    x, y = normal(3000, 1, 0).float(), normal(2000, 1, 1, 1.0).float()
    value = wasserstein1(x, y).value
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-5)
    estimate = wasserstein1(normal(500, 2, 0).float(), normal(400, 2, 1).float())
    assert estimate.value.dtype == torch.float32 and abs(estimate.info["gap"]) < 1e-9


def test_falls_as_disjoint_supports_meet():
    x = normal(50, 2, 0, std=0.05)
    values = [float(wasserstein1(x, normal(50, 2, 1, shift, 0.05)).value) for shift in (4.0, 2.0, 1.0, 0.5, 0.0)]
    assert values == sorted(values, reverse=True) and values[0] == pytest.approx(4 * math.sqrt(2), rel=0.02)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda x: wasserstein1(x, x, "emd"), "exact, sorted, sinkhorn"),
        (lambda x: wasserstein1(x, x, "sorted"), "one dimension, not 2"),
        (lambda x: wasserstein1(x, x, "sinkhorn", epsilon=0.0), "epsilon"),
        (lambda x: wasserstein1(x, x, "sinkhorn", max_steps=0), "max_steps"),
        (lambda x: wasserstein1(x, x / 0), "finite"),
        (lambda x: wasserstein1(x, x[:, :1]), "dimension"),
        (lambda x: wasserstein1(x, x[:0]), "y must hold at least 1"),
    ],
)
def test_mistakes(make, word):
    with pytest.raises(UserError, match=word):
        make(torch.ones(3, 2))
