"""DGflow and DOT against their formulas, computed again."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, UserError
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian, Uniform
from gebm_lightning.samplers import BaseSampler
from gebm_lightning.transports import DOT, DGFlow
from gebm_lightning.transports.dot import adam

WEIGHT = {"kl": lambda d: 1 + 0 * d, "js": lambda d: 1 / (1 + (-d).exp()), "logd": lambda d: 1 / (1 + d.exp())}


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def model(critic, prior, base=None):
    """A GEBM whose critic, minus the energy, is a function."""
    return GEBM(base or nn.Identity(), Function(lambda x: -critic(x)), prior).double()


@pytest.mark.parametrize("divergence", WEIGHT)
@pytest.mark.parametrize("space", ["latent", "data"])
def test_one_step_of_dgflow(gebm, divergence, space):
    eta, gamma, beta = 0.3, 0.2, 2.0
    gebm.eval()
    flow = DGFlow(divergence, eta, gamma, num_steps=1, space=space, beta=beta)
    samples = flow.refine(gebm, 64, BlockNoise(7))
    noise = BlockNoise(7)
    z = gebm.prior.sample(64, noise)
    start = z if space == "latent" else gebm.base(z).detach()
    start.requires_grad_()
    d = -beta * gebm.energy(gebm.base(start) if space == "latent" else start)
    (gradient,) = torch.autograd.grad(d.sum(), start)
    xi = noise.draw(torch.randn, tuple(start.shape), torch.float32)
    s = WEIGHT[divergence](d).detach().view(-1, *[1] * (start.dim() - 1))
    want = (start + eta * s * gradient + math.sqrt(2 * eta * gamma) * xi).detach()
    got = samples.z if space == "latent" else samples.x
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert (samples.z is None) == (space == "data")
    assert samples.info["gradients"] == 1 and samples.info["evaluations"] == 0


def test_the_kl_flow_descends_the_kl():
    """With d = log p/q of p = N(m, s²), q = N(0, 1), the velocity is −∇log q/p, Wasserstein's steepest descent of KL."""
    m, s2, n = 1.5, 0.5, 400
    toy = model(lambda x: (-((x - m) ** 2) / (2 * s2) + x**2 / 2).sum(1), Gaussian(1))
    x = BaseSampler().refine(toy, n, BlockNoise(0)).x

    def kl(a, b):
        return 0.5 * (math.log(s2 / a**2) + (a**2 + (b - m) ** 2) / s2 - 1)

    for eta in (0.1, 0.01, 1e-4):
        moved = DGFlow("kl", eta, num_steps=1).refine(toy, n, BlockNoise(0)).x
        torch.testing.assert_close((moved - x) / eta, -(x - m) / s2 + x, rtol=1e-6, atol=1e-6)
        # z ↦ az + b keeps Gaussians: KL(N(b, a²)‖p) falls at the rate E|∇d|².
        a, b = 1 + eta * (1 - 1 / s2), eta * m / s2
        rate = (kl(1, 0) - kl(a, b)) / eta
        assert abs(rate - ((1 - 1 / s2) ** 2 + (m / s2) ** 2)) < 20 * eta


def test_dgflow_is_not_clamped_to_the_box():
    toy = model(lambda x: 5 * x.sum(1), Uniform(2))
    assert (DGFlow(step_size=0.1).refine(toy, 64, BlockNoise(0)).z > 1).all()


def test_the_lipschitz_constant():
    for prior, base, space, slope in (
        (Uniform(1), nn.Identity(), "latent", 3.0),
        (Gaussian(1), nn.Identity(), "data", 3.0),
        (Uniform(1), Function(lambda z: 2 * z), "latent", 6.0),
        (Uniform(1), Function(lambda z: 2 * z), "data", 3.0),
    ):
        toy = model(lambda x: 3 * x[:, 0], prior, base)
        info = DOT(space=space, num_steps=1).refine(toy, 10, BlockNoise(0)).info
        assert info["lipschitz"] == pytest.approx(slope) and info["evaluations"] == 200
        tempered = DOT(space=space, num_steps=1, beta=2.0).refine(toy, 10, BlockNoise(0)).info
        assert tempered["lipschitz"] == pytest.approx(2 * slope)
    # In two dimensions pairs are at random angles: the largest of a hundred |cos| is short of 1 by little.
    toy = model(lambda x: 3 * x[:, 0], Gaussian(2))
    assert 2.97 < DOT(num_steps=1).refine(toy, 10, BlockNoise(0)).info["lipschitz"] < 3
    fixed = DOT(num_steps=1, lipschitz=4.0).refine(toy, 10, BlockNoise(0)).info
    assert fixed["lipschitz"] == 4 and fixed["evaluations"] == 0 and fixed["gradients"] == 1


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(
    ("prior", "space"), [(Gaussian(3), "latent"), (Uniform(3), "latent"), (Gaussian(3), "data")], ids=str
)
def test_dot_lowers_its_cost_where_it_may(prior, space, optimizer):
    slope = 2.0

    def critic(x):
        return torch.sin(3 * x).sum(1)  # of slope up to 3√3: what lies on its slopes is worth moving

    toy = model(critic, prior)
    dot = DOT(space=space, lipschitz=slope, optimizer=optimizer)
    samples = dot.refine(toy, 500, BlockNoise(3))
    y = BaseSampler().refine(toy, 500, BlockNoise(3)).x
    before, after = -critic(y) / slope, -critic(samples.x) / slope + (samples.x - y).norm(dim=1)
    assert (after < before + 0.02).all() and (after < before - 0.1).double().mean() > 0.5
    if space == "latent" and isinstance(prior, Gaussian):
        torch.testing.assert_close(samples.z.norm(dim=1), y.norm(dim=1))
    if isinstance(prior, Uniform):
        assert samples.z.abs().max() <= 1
    assert samples.info["moved"] == pytest.approx((samples.x - y).norm(dim=1).mean().item())


def test_dot_stays_where_its_critic_is_flat_enough():
    toy = model(lambda x: 0.5 * x[:, 0], Gaussian(2))
    samples = DOT(space="data", lipschitz=1.0).refine(toy, 200, BlockNoise(3))
    assert samples.info["moved"] < 0.03


def test_one_sgd_step_of_dot_among_gaussian_latents():
    toy = model(lambda x: x.pow(3).sum(1), Gaussian(3))
    y = BaseSampler().refine(toy, 64, BlockNoise(3)).x
    g = torch.ones_like(y) / math.sqrt(3) - 3 * y**2 / 2.0
    g = g - (g * y).sum(1, keepdim=True) / y.square().sum(1, keepdim=True) * y
    z = y - 0.05 * g
    z = z * y.norm(dim=1, keepdim=True) / z.norm(dim=1, keepdim=True)
    got = DOT(num_steps=1, step_size=0.05, lipschitz=2.0).refine(toy, 64, BlockNoise(3)).z
    torch.testing.assert_close(got, z)


def test_adam_is_torchs():
    x = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    theirs, ours, y = torch.optim.Adam([x], lr=0.1, betas=(0.0, 0.9)), adam(0.1), torch.zeros(4, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x.grad = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        y = y - ours(x.grad)
        theirs.step()
    torch.testing.assert_close(y, x.detach())


def test_dot_refuses_what_has_no_map():
    with pytest.raises(UserError, match="data"):
        DOT().refine(model(lambda x: x[:, 0], Gaussian(1)), 10, BlockNoise(0))
    with pytest.raises(UserError, match="constant"):
        DOT().refine(model(lambda x: 0 * x[:, 0], Gaussian(2)), 10, BlockNoise(0))
