"""f-GAN's experiment on the line: a Gaussian learned against a critic of each divergence (Nowozin et al., NeurIPS 2016, §2.5)."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from gebm_lightning.divergences import PHI, f_divergence_of_densities, grid
from gebm_lightning.objectives import FGAN

C = torch.zeros(())
NODES, CELL = grid([-20.0], [20.0], 20_001)
WEIGHTS, MEANS, STDS = torch.tensor([0.33, 0.67]), torch.tensor([-1.0, 2.0]), torch.tensor([0.255, math.sqrt(2)])


def log_p(x):
    mixture = torch.distributions.Normal(MEANS.to(x), STDS.to(x))
    return torch.logsumexp(WEIGHTS.to(x).log() + mixture.log_prob(x), 1)


def divergence(key, mu, sigma):
    def log_q(x):
        return torch.distributions.Normal(mu, sigma).log_prob(x[:, 0])

    return f_divergence_of_densities(log_p, log_q, key, NODES, CELL).value.item()


def learn(key, steps=3000, batch=1024):
    """(μ, σ, bound, its standard error) after `steps` alternating updates at a falling learning rate."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    objective = FGAN(key)
    critic = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1), nn.Flatten(0))
    mu, log_sigma = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    players = [torch.optim.Adam(critic.parameters(), 0.01), torch.optim.Adam([mu, log_sigma], 0.01)]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(player, steps) for player in players]

    def real(n):
        component = (torch.rand(n, generator=generator) > 0.33).long()
        return (MEANS[component] + STDS[component] * torch.randn(n, generator=generator))[:, None]

    def base(n):
        return mu + log_sigma.exp() * torch.randn(n, 1, generator=generator)

    for _ in range(steps):
        losses = (
            lambda: objective.energy_loss(critic(real(batch)), critic(base(batch).detach()), C),
            lambda: objective.base_loss(critic(base(batch)), C),
        )
        for player, schedule, loss in zip(players, schedules, losses, strict=True):
            player.zero_grad()
            loss()[0].backward()
            player.step()
            schedule.step()
    with torch.no_grad():
        t, dual = PHI[key].activation(critic(real(200_000))), PHI[key].dual(critic(base(200_000)))
    error = math.sqrt((t.var() + dual.var()) / 200_000)
    return mu.item(), log_sigma.exp().item(), (t.mean() - dual.mean()).item(), error


@pytest.mark.slow
@pytest.mark.parametrize("key", list(PHI))
def test_learned_gaussians_are_close_to_the_best(key):
    mu, sigma, bound, error = learn(key)
    reached = divergence(key, mu, sigma)
    best = minimize(lambda v: divergence(key, v[0], math.exp(v[1])), [mu, math.log(sigma)], method="Nelder-Mead").fun
    print(f"{key}: mu {mu:.4f}, sigma {sigma:.4f}, D {reached:.4f}, best {best:.4f}, bound {bound:.4f} ± {error:.4f}")
    assert math.isfinite(bound) and sigma > 0
    if key in ("kl", "js"):
        assert reached <= 1.05 * best
        assert bound <= reached + 4 * error
