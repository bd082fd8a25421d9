"""KALE and Donsker–Varadhan against formulas written again here, and closed forms."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning.noise import BlockNoise
from gebm_lightning.objectives import KALE, DonskerVaradhan, GradientPenalty, L2Penalty


def outputs(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator, dtype=torch.float64), torch.randn(
        n, generator=generator, dtype=torch.float64
    ) * 2 + 1


def kale(e_real, e_base, c):
    return -(e_real + c).mean() - torch.exp(-(e_base + c)).mean() + 1


def donsker_varadhan(e_real, e_base):
    return -e_real.mean() - torch.log(torch.exp(-e_base).mean())


@pytest.mark.parametrize("c", [-2.0, 0.0, 0.7, 3.0])
def test_values_are_the_formulas(c):
    e_real, e_base = outputs()
    c = torch.tensor(c, dtype=torch.float64)
    loss, logs = KALE().energy_loss(e_real, e_base, c)
    torch.testing.assert_close(loss, -kale(e_real, e_base, c))
    torch.testing.assert_close(logs["kale"], kale(e_real, e_base, c))
    torch.testing.assert_close(logs["donsker_varadhan"], donsker_varadhan(e_real, e_base))
    loss, _ = DonskerVaradhan().energy_loss(e_real, e_base, c)
    torch.testing.assert_close(loss, -donsker_varadhan(e_real, e_base))


def test_kale_is_below_donsker_varadhan_and_tight_at_log_z():
    e_real, e_base = outputs()
    bound, log_z = donsker_varadhan(e_real, e_base), torch.log(torch.exp(-e_base).mean())
    for offset in torch.linspace(-3, 3, 25, dtype=torch.float64):
        value = -KALE().energy_loss(e_real, e_base, log_z + offset)[0]
        assert value <= bound + 1e-12
        assert offset.abs() < 1e-9 or value < bound - 1e-6
    torch.testing.assert_close(-KALE().energy_loss(e_real, e_base, log_z)[0], bound)


@pytest.mark.parametrize("objective", [KALE(), DonskerVaradhan()], ids=["kale", "dv"])
def test_at_the_optimal_energy_the_bound_is_kl_between_gaussians(objective):
    m, n = 1.2, 400_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=generator, dtype=torch.float64) + m
    y = torch.randn(n, generator=generator, dtype=torch.float64)
    energy = lambda t: -(m * t - m**2 / 2)  # noqa: E731  -log p/q, hence log Z = 0
    value = -objective.energy_loss(energy(x), energy(y), torch.zeros((), dtype=torch.float64))[0]
    error = math.sqrt(m**2 / n + (math.exp(m**2) - 1) / n)
    assert abs(value - m**2 / 2) < 4.5 * error


@pytest.mark.parametrize("c", [-30.0, -1.0, 0.4, 20.0])
def test_gradient_of_c_is_the_amortised_one(c):
    e_real, e_base = outputs()
    c = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    c_hat = torch.log(torch.exp(-e_base).mean())
    (gradient,) = torch.autograd.grad(KALE().energy_loss(e_real, e_base, c)[0], c)
    torch.testing.assert_close(gradient, torch.exp(c - c_hat) - 1)
    raw = 1 - torch.exp(c_hat - c)
    assert gradient >= -1 and torch.sign(gradient) == torch.sign(raw)


def test_gradient_of_the_energies_is_the_true_one():
    e_real, e_base = outputs(16)
    c = torch.tensor(0.3, dtype=torch.float64)

    def loss(a, b):
        return KALE().energy_loss(a, b, c)[0]

    assert torch.autograd.gradcheck(loss, (e_real.requires_grad_(), e_base.requires_grad_()))


@pytest.mark.parametrize("objective", [KALE(), DonskerVaradhan()], ids=["kale", "dv"])
def test_base_gradient_has_the_self_normalised_weights(objective):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    energy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)).double()
    z = torch.randn(32, 3, dtype=torch.float64)
    objective.base_loss(energy(base(z)), torch.zeros((), dtype=torch.float64))[0].backward()
    weights = torch.softmax(-energy(base(z)).detach(), 0)
    for name, parameter in base.named_parameters():
        expected = torch.zeros_like(parameter)
        for w, z_i in zip(weights, z, strict=True):
            x_i = base(z_i[None])
            (slope,) = torch.autograd.grad(energy(x_i).sum(), x_i, retain_graph=True)
            expected += w * torch.autograd.grad((slope.detach() * x_i).sum(), parameter, retain_graph=True)[0]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("objective", [KALE(), DonskerVaradhan()], ids=["kale", "dv"])
def test_the_critic_is_the_energy(objective):
    critic = nn.Linear(2, 1)
    assert objective.make_energy(critic) is critic


@pytest.mark.parametrize("at", ["interpolates", "real", "base"])
def test_gradient_penalty_is_the_mean_squared_slope(at):
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0)).double()
    x, y = torch.randn(6, 3, 2, 2, dtype=torch.float64), torch.randn(6, 3, 2, 2, dtype=torch.float64)
    value = GradientPenalty(0.7, at)(critic, x, y, BlockNoise(0))
    torch.testing.assert_close(value, 0.7 * critic[1].weight.square().sum())


def test_gradient_penalty_is_taken_between_the_samples_and_differentiable():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return scale * x.square().sum((1, 2, 3))

    scale = torch.tensor(2.0, requires_grad=True)
    x, y = torch.zeros(128, 1, 2, 2), torch.ones(128, 1, 2, 2)
    value = GradientPenalty(1.0)(critic, x, y, BlockNoise(0))
    alpha = seen[0].flatten(1)
    assert (alpha == alpha[:, :1]).all() and 0 <= alpha.min() < 0.1 and 0.9 < alpha.max() <= 1
    torch.testing.assert_close(value, (2 * 2.0 * alpha).square().sum(1).mean())
    (slope,) = torch.autograd.grad(value, scale)
    torch.testing.assert_close(slope, 2 * value.detach() / 2.0)


def test_l2_penalty_divides_by_the_number_of_parameters():
    critic = nn.Linear(3, 2)
    expected = (critic.weight.square().sum() + critic.bias.square().sum()) / 8
    torch.testing.assert_close(L2Penalty(2.0)(critic, torch.zeros(1), torch.zeros(1), BlockNoise(0)), 2 * expected)
