"""Every objective on a critic: its formula written again, the energy that its optimum stands for, and what the base does."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from gebm_lightning.divergences import PHI
from gebm_lightning.divergences.kernels import Gaussian, RationalQuadratic
from gebm_lightning.errors import UserError
from gebm_lightning.noise import BlockNoise
from gebm_lightning.objectives import (
    FGAN,
    KALE,
    MMD,
    DonskerVaradhan,
    GradientPenalty,
    Hinge,
    LeastSquares,
    Logistic,
    ScaledEnergy,
    Wasserstein,
    WitnessPenalty,
)

C = torch.zeros((), dtype=torch.float64)
# Those whose critic stands for a log-ratio.
RATIOS = [KALE(), DonskerVaradhan(), Logistic(), LeastSquares()] + [
    FGAN(key) for key in PHI if key != "total_variation"
]
SIGNS = [Hinge(), Wasserstein(), FGAN("total_variation")]
POINTWISE = [o for o in RATIOS if not isinstance(o, DonskerVaradhan)] + SIGNS


def name(objective):
    return getattr(objective, "divergence", type(objective).__name__)


def outputs(n=64):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))


def expected_losses(o, r, b):
    """(energy loss, base loss), by the formulas of the papers."""
    if isinstance(o, FGAN):
        phi = PHI[o.divergence]
        # The bound from g and φ* themselves, not from their composition in closed form.
        t = phi.activation(b)
        bound = phi.activation(r).mean() - phi.conjugate(t).mean()
        return -bound, -phi.conjugate(t).mean() if o.saturating else -t.mean()
    if isinstance(o, Logistic):
        base = torch.log(1 - torch.sigmoid(b)).mean() if o.saturating else -torch.log(torch.sigmoid(b)).mean()
        return -torch.log(torch.sigmoid(r)).mean() - torch.log(1 - torch.sigmoid(b)).mean(), base
    if isinstance(o, LeastSquares):
        return ((r - 1) ** 2).mean() / 2 + (b**2).mean() / 2, ((b - 1) ** 2).mean() / 2
    if isinstance(o, Hinge):
        return torch.clamp(1 - r, min=0).mean() + torch.clamp(1 + b, min=0).mean(), -b.mean()
    return b.mean() - r.mean(), -b.mean()


@pytest.mark.parametrize("objective", [*POINTWISE, Logistic(saturating=True), FGAN("kl", saturating=False)], ids=name)
def test_losses_are_the_formulas(objective):
    r, b = outputs()
    energy, base = objective.energy_loss(r, b, C)[0], objective.base_loss(b, C)[0]
    expected = expected_losses(objective, r, b)
    torch.testing.assert_close(energy, expected[0])
    torch.testing.assert_close(base, expected[1])


# P and Q on six atoms, each as often as says here.
P, Q = torch.tensor([8, 4, 2, 6, 1, 3]), torch.tensor([1, 4, 8, 3, 6, 2])


def optimal_critic(objective):
    """v (6,) that minimises the objective's energy loss on the atoms."""
    v = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    c = torch.zeros((), dtype=torch.float64, requires_grad=True)
    if isinstance(objective, FGAN) and objective.divergence == "pearson":
        v = torch.full((6,), 0.1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [v, c], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = objective.energy_loss(v.repeat_interleave(P), v.repeat_interleave(Q), c)[0]
        loss.backward()
        return loss

    optimizer.step(closure)
    return v.detach()


@pytest.mark.parametrize("objective", RATIOS, ids=name)
def test_the_optimal_critics_energy_is_minus_the_log_ratio(objective):
    """Sign and scale of `to_energy`: −log p/q + constant, and for all but the first two the constant is 0."""
    energy = objective.to_energy(optimal_critic(objective))
    log_ratio = torch.log((P / P.sum()) / (Q / Q.sum())).double()
    if isinstance(objective, DonskerVaradhan):
        energy = energy - (energy + log_ratio).mean()
    torch.testing.assert_close(energy, -log_ratio, atol=2e-5, rtol=0)


@pytest.mark.parametrize("objective", [*RATIOS, *SIGNS], ids=name)
def test_a_critic_learns_to_be_an_energy_that_is_low_on_real_data(objective):
    v = torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)
    loss = objective.energy_loss(v[:1], v[1:], C)[0]
    (slope,) = torch.autograd.grad(loss, v)
    real, base = objective.to_energy((v - 1e-3 * slope).detach())
    assert real < base


@pytest.mark.parametrize(
    "objective", [*RATIOS, *SIGNS, Logistic(saturating=True), FGAN("js", saturating=False)], ids=name
)
def test_the_base_moves_towards_low_energy(objective):
    v = torch.tensor([0.2, 0.4], dtype=torch.float64, requires_grad=True)
    if isinstance(objective, LeastSquares):
        v = torch.tensor([0.2, 0.9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective.base_loss(v, C)[0], v)
    before = objective.to_energy(v.detach())
    after = objective.to_energy((v - 1e-4 * slope).detach())
    assert (after < before).all()


@pytest.mark.parametrize("objective", POINTWISE, ids=name)
def test_energies_are_made_of_critics_once(objective):
    critic = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double()
    energy, x = objective.make_energy(critic).double(), torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(energy(x), objective.to_energy(critic(x)))
    assert isinstance(energy, ScaledEnergy) == (objective in SIGNS)
    if objective in SIGNS:
        energy.scale.fill_(3.0)
        torch.testing.assert_close(energy(x), -3 * critic(x))
        assert {"scale", "calibrated"} <= energy.state_dict().keys()


def test_what_cannot_be_an_energy_is_told():
    v = torch.tensor([-3.0, -2.5, 0.0, 1.0])
    assert FGAN("pearson").energy_loss(v, v, torch.zeros(()))[1]["clipped_share"] == 0.5
    assert LeastSquares().energy_loss(v, v, torch.zeros(()))[1]["clipped_share"] == 1.0
    assert torch.isfinite(FGAN("pearson").to_energy(v)).all() and torch.isfinite(LeastSquares().to_energy(v)).all()
    with pytest.raises(UserError, match="one of kl, reverse_kl"):
        FGAN("hellinger")


def mmd2(kernel, x, y):
    """Unbiased MMD², by loops."""
    n, m, total = len(x), len(y), 0.0
    for a, b, sign in ((x, x, 1), (y, y, 1), (x, y, -2)):
        value = sum(
            kernel(a[i : i + 1], b[j : j + 1]).item()
            for i in range(len(a))
            for j in range(len(b))
            if a is not b or i != j
        )
        total += sign * value / (n * m if a is not b else len(a) * (len(a) - 1))
    return total


@pytest.mark.parametrize("kernel", [RationalQuadratic(), Gaussian(0.8)], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("features", [(12, 3), (12,)], ids=str)
def test_mmds_losses_are_the_unbiased_estimate(kernel, features):
    r, b = torch.randn(features, dtype=torch.float64), torch.randn(9, *features[1:], dtype=torch.float64) + 0.5
    value = mmd2(kernel, r.reshape(12, -1), b.reshape(9, -1))
    assert MMD(kernel).energy_loss(r, b, C)[0].item() == pytest.approx(-value, abs=1e-12)
    assert MMD(kernel).base_loss(b, C, r)[0].item() == pytest.approx(value, abs=1e-12)
    with pytest.raises(ValueError, match="needs e_real"):
        MMD(kernel).base_loss(b, C)


def critic_of_features():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    critic.outputs = 3
    return critic


def test_mmds_energy_is_minus_the_witness():
    critic, kernel = critic_of_features(), Gaussian(1.1)
    energy = MMD(kernel, num_reference=6).make_energy(critic).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    assert energy(x).abs().max() == 0 and energy.real_features.shape == (6, 3)
    real, base = torch.randn(6, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64) + 1
    energy.refer(real, base)
    energy.scale.fill_(2.0)
    base = torch.cat([base, base[:2]])

    def mean(p, points):
        return sum(kernel(critic(p[None]), critic(q[None])).item() for q in points) / 6

    expected = [-2 * (mean(p, real) - mean(p, base)) for p in x]
    torch.testing.assert_close(energy(x), torch.tensor(expected, dtype=torch.float64))
    direct = MMD(kernel, num_reference=6).make_energy(critic, reference=real)
    torch.testing.assert_close(direct.real_features, energy.real_features)


def test_scaled_mmd_divides_by_the_jacobian():
    critic, x = critic_of_features(), torch.randn(7, 2, dtype=torch.float64)
    assert MMD().scale(critic, x) is None
    squares = [torch.autograd.functional.jacobian(lambda p: critic(p[None])[0], p).square().sum() for p in x]
    torch.testing.assert_close(MMD(scaled=0.3).scale(critic, x), 1 / (1 + 0.3 * sum(squares) / 7))


def test_the_witness_penalty_is_on_the_witness_and_trains_the_features():
    critic, kernel = critic_of_features(), Gaussian(0.9)
    x, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    penalty = WitnessPenalty(2.0, "real", kernel=kernel)

    def f(p):
        return kernel(critic(p[None]), critic(x)).mean() - kernel(critic(p[None]), critic(y)).mean()

    slopes = torch.stack([torch.autograd.functional.jacobian(f, p) for p in x])
    expected = 2 * (slopes.norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(penalty(critic, x, y, BlockNoise(0)), expected, atol=1e-9, rtol=1e-9)
    penalty(critic, x, y, BlockNoise(0)).backward()
    weight = critic[0].weight
    found, eps = weight.grad[1, 1].item(), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[1, 1] += sign * eps
        values.append(penalty(critic, x, y, BlockNoise(0)).item())
        with torch.no_grad():
            weight[1, 1] -= sign * eps
    assert found == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-5)


@pytest.mark.parametrize("centre", [0.0, 1.0])
def test_gradient_penalties_have_a_centre(centre):
    critic = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    norm = critic[0].weight.norm()
    value = GradientPenalty(0.7, centre=centre)(critic, x, y, BlockNoise(0))
    torch.testing.assert_close(value, 0.7 * (norm - centre) ** 2)
    flat = GradientPenalty(1.0, centre=1.0)(lambda p: 0 * p.sum(1), x, y, BlockNoise(0))
    assert flat.item() == pytest.approx(1.0, abs=1e-5) and math.isfinite(flat)


def test_non_saturating_logistic_has_a_gradient_where_the_critic_is_sure():
    v = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    for saturating, expected in ((False, -1.0), (True, 0.0)):
        (slope,) = torch.autograd.grad(Logistic(saturating).base_loss(v, C)[0], v)
        assert slope.item() == pytest.approx(expected, abs=1e-8)
    assert torch.isfinite(logsigmoid(v)).all()
