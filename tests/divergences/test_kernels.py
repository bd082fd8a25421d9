"""Kernels against their formulas by loops, positive definite, differentiable twice also where points coincide."""

import math

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.divergences import kernels
from gebm_lightning.divergences.kernels import (
    EnergyDistance,
    Gaussian,
    Laplace,
    Polynomial,
    RationalQuadratic,
    Sum,
    distances,
    gaussians,
    median_heuristic,
    norms,
    squared_distances,
)


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


FORMULAS = {
    Gaussian(0.7): lambda x, y: math.exp(-(math.dist(x, y) ** 2) / (2 * 0.7**2)),
    Laplace(0.7): lambda x, y: math.exp(-math.dist(x, y) / 0.7),
    RationalQuadratic((0.5, 2.0), 1.3): lambda x, y: (
        (1 + math.dist(x, y) ** 2 / (2 * 0.5 * 1.3**2)) ** -0.5 + (1 + math.dist(x, y) ** 2 / (2 * 2 * 1.3**2)) ** -2
    ),
    Polynomial(): lambda x, y: (dot(x, y) / len(x) + 1) ** 3,
    Polynomial(2, 0.5, 0.3): lambda x, y: (dot(x, y) * 0.5 + 0.3) ** 2,
    EnergyDistance(): lambda x, y: (math.hypot(*x) + math.hypot(*y) - math.dist(x, y)) / 2,
    Sum((Gaussian(1.0), Laplace(2.0))): lambda x, y: (
        math.exp(-(math.dist(x, y) ** 2) / 2) + math.exp(-math.dist(x, y) / 2)
    ),
}
KERNELS = pytest.mark.parametrize("kernel", list(FORMULAS), ids=str)


def points(n, d=3, seed=0, scale=1.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@KERNELS
def test_values_symmetry_and_diagonal(kernel):
    x, y = points(5), points(4, seed=1)
    loop = [[FORMULAS[kernel](a, b) for b in y.tolist()] for a in x.tolist()]
    torch.testing.assert_close(kernel(x, y), torch.tensor(loop, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel(y, x), kernel(x, y).T, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(kernel.diagonal(x), kernel(x, x).diagonal(), rtol=1e-12, atol=1e-12)
    single = kernel(x.float(), y.float())
    assert single.dtype == kernel.diagonal(x.float()).dtype == torch.float32
    torch.testing.assert_close(single.double(), kernel(x, y), rtol=1e-5, atol=1e-6)


@KERNELS
def test_positive_definite(kernel):
    def least(k):
        x = torch.cat([points(20), points(10, seed=1, scale=0.1), points(1)])
        return torch.linalg.eigvalsh(k(x, x)).min()

    assert least(kernel) > -1e-10
    assert least(lambda x, y: kernel(x, y) - 2 * kernel(x, y).mean()) < -1e-3


@KERNELS
def test_differentiable_twice(kernel):
    x, y = points(4).requires_grad_(), points(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(kernel, (x, y)) and torch.autograd.gradgradcheck(kernel, (x, y))
    if kernel.diagonal(x).requires_grad:
        assert torch.autograd.gradcheck(kernel.diagonal, (x,)) and torch.autograd.gradgradcheck(kernel.diagonal, (x,))


@KERNELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_differentiable_where_points_coincide(kernel, dtype):
    x = torch.cat([points(3), torch.zeros(1, 3)]).to(dtype).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for value in (kernel(x, y).sum(), kernel(x, x).sum() + kernel.diagonal(x).sum()):
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), x)
        assert slope.isfinite().all() and second.isfinite().all()


def test_smooth_kernels_have_their_hessian_where_points_coincide():
    x = points(1).requires_grad_()
    for kernel in (Gaussian(0.7), RationalQuadratic((0.5, 2.0), 1.3), Polynomial()):
        assert torch.autograd.gradgradcheck(kernel, (x, x.detach().clone().requires_grad_()))


def test_distances_of_close_points_far_from_the_origin():
    """In single precision, where ‖x‖² + ‖y‖² − 2x·y loses all digits."""
    x = (points(6, scale=0.1) + 3000).float()
    y = torch.cat([x[:3], (points(3, seed=1, scale=0.1) - 3000).float()])
    exact = (x.double()[:, None] - y.double()).square().sum(2)
    torch.testing.assert_close(squared_distances(x, y).double(), exact, rtol=1e-6, atol=0)
    assert (squared_distances(x, x).diagonal() == 0).all() and torch.equal(
        squared_distances(x, y), squared_distances(y, x).T
    )
    expanded = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).double()
    assert (expanded - exact)[:, :3].abs().max() > 0.1
    x.requires_grad_()
    (slope,) = torch.autograd.grad(Gaussian(0.3)(x, y).sum(), x)
    x = x.detach().double().requires_grad_()
    (reference,) = torch.autograd.grad(Gaussian(0.3)(x, y.double()).sum(), x)
    torch.testing.assert_close(slope.double(), reference, rtol=1e-4, atol=1e-4)


def test_many_dimensions_with_and_without_gradient():
    x, y = points(7, kernels.WIDE + 1).float(), points(5, kernels.WIDE + 1, seed=1).float()
    y[0] = x[0]
    with_gradient = squared_distances(x.clone().requires_grad_(), y)
    torch.testing.assert_close(squared_distances(x, y), with_gradient.detach(), rtol=1e-5, atol=0)
    assert squared_distances(x, y)[0, 0] == with_gradient[0, 0] == 0 and with_gradient.requires_grad


def test_norms_and_distances():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert norms(x).tolist() == [5, 0] and distances(x, x).tolist() == [[0, 5], [5, 0]]


def test_mmd_gans_widths():
    x, y = points(3), points(3, seed=1)
    torch.testing.assert_close(gaussians()(x, y), sum(Gaussian(s)(x, y) for s in (1, 2, 4, 8, 16)))
    assert gaussians([0.5]).kernels == (Gaussian(0.5),)


def test_median_heuristic():
    x, y = points(9), points(7, seed=1)
    pooled = torch.cat([x, y])
    pairs = sorted(math.dist(a, b) for i, a in enumerate(pooled.tolist()) for b in pooled.tolist()[:i])
    assert median_heuristic(x, y) == median_heuristic(pooled) == pytest.approx(pairs[(len(pairs) - 1) // 2], rel=1e-12)
    assert median_heuristic(x, y, max_points=4) == median_heuristic(pooled[[0, 4, 8, 12]])
    many = points(3000, 2)
    assert median_heuristic(many) == pytest.approx(median_heuristic(many, max_points=3000), rel=0.05)
    assert median_heuristic((many + 1e4).float()) == pytest.approx(median_heuristic(many), rel=1e-3)
    assert median_heuristic(torch.zeros(5, 2)) == 1
    assert median_heuristic(torch.tensor([[0.0]] * 9 + [[3.0]])) == 3


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Gaussian(0.0), "sigma"),
        (lambda: Laplace(-1.0), "sigma"),
        (lambda: RationalQuadratic(()), "alpha"),
        (lambda: RationalQuadratic((1.0, 0.0)), "alpha"),
        (lambda: RationalQuadratic(scale=0.0), "scale"),
        (lambda: Polynomial(0), "degree"),
        (lambda: Polynomial(2.5), "degree"),
        (lambda: Polynomial(scale=0.0), "scale"),
        (lambda: Polynomial(offset=-1.0), "offset"),
        (lambda: Sum(()), "at least one kernel"),
        (lambda: Gaussian(1.0)(torch.zeros(3, 1), torch.zeros(3, 2)), r"\(3, 1\) and \(3, 2\)"),
        (lambda: Gaussian(1.0)(torch.zeros(3), torch.zeros(3)), "points"),
        (lambda: median_heuristic(torch.zeros(3, 2), max_points=1), "max_points"),
    ],
)
def test_mistakes(make, word):
    with pytest.raises(UserError, match=word):
        make()
