"""Objectives without a game recover what made the data: a Gaussian, and a mixture whose modes overlap; a sign error is seen."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, UserError
from gebm_lightning.networks import DiagonalGaussian, Identity
from gebm_lightning.noise import BlockNoise
from gebm_lightning.objectives import NCE, ContrastiveDivergence, DonskerVaradhan, MaximumLikelihood, ScoreMatching
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import HMC, MALA

SIGMA = 0.3
OBJECTIVES = {
    "nce": NCE(),
    "donsker_varadhan": DonskerVaradhan(),
    "cd": ContrastiveDivergence(MALA(0.3), num_steps=5),
    "persistent_cd": ContrastiveDivergence(HMC(0.5, 3), num_steps=2, start="replay", replay_size=2000),
    "sliced": ScoreMatching("sliced", num_projections=2),
    "denoising": ScoreMatching("denoising", sigma=SIGMA),
}
MODES = torch.tensor([[-1.25, 0.0], [1.25, 0.0]], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.4], [0.4, 0.6]], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.5], dtype=torch.float64)
N = 2000


class GaussianEnergy(nn.Module):
    """With the prior N(0, I) as base the model is a Gaussian of precision P and mean P⁻¹b."""

    def __init__(self):
        super().__init__()
        self.factor, self.b = nn.Parameter(torch.eye(2).double()), nn.Parameter(torch.zeros(2).double())

    def forward(self, x):
        return 0.5 * (x @ self.factor).square().sum(1) - x @ self.b - 0.5 * x.square().sum(1)


class MixtureEnergy(nn.Module):
    """With the prior N(0, I) as base the model is a mixture of two round Gaussians of one width."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.tensor([[-0.5, 0.3], [0.6, -0.2]], dtype=torch.float64))
        self.logit, self.log_scale = nn.Parameter(torch.zeros(2).double()), nn.Parameter(torch.zeros(()).double())

    def forward(self, x):
        squared = (x[:, None] - self.means).square().sum(2) / (2 * self.log_scale).exp()
        return -torch.logsumexp(self.logit - 0.5 * squared, 1) - 0.5 * x.square().sum(1)


def gaussian_log_prob(x, smooth=0.0):
    covariance = COVARIANCE + smooth**2 * torch.eye(2)
    return torch.distributions.MultivariateNormal(MEAN, covariance).log_prob(x)


def mixture_log_prob(x, smooth=0.0):
    variance = 0.8 + smooth**2
    squared = (x[:, None] - MODES).square().sum(2) / variance
    weights = torch.tensor([0.35, 0.65], dtype=torch.float64)
    return torch.logsumexp(weights.log() - 0.5 * squared, 1) - math.log(2 * math.pi * variance)


def sample(law, n=N):
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    if law is gaussian_log_prob:
        return MEAN + noise @ torch.linalg.cholesky(COVARIANCE).T
    which = (torch.rand(n, generator=generator) < 0.65).long()
    return MODES[which] + math.sqrt(0.8) * noise


def kl(law, model, smooth=0.0):
    """KL(law ‖ model) by quadrature, the model known up to its constant."""
    ticks = torch.linspace(-9, 9, 241, dtype=torch.float64)
    points, area = torch.cartesian_prod(ticks, ticks), (ticks[1] - ticks[0]).square()
    with torch.no_grad():
        p = law(points, smooth)
        q = model(points)
        q = q - torch.logsumexp(q, 0) - area.log()
        return (p.exp() * (p - q)).sum().item() * area.item()


def fit(objective, energy, x, steps=300, sign=1.0):
    gebm = GEBM(Identity([2]), energy, Gaussian(2).double()).double()
    state = objective.make_state(gebm, BlockNoise(0, stream="state"))
    optimizer = torch.optim.Adam([*energy.parameters(), gebm.log_partition], lr=0.03)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for step in range(steps):
        noise = BlockNoise(1, stream=str(step))
        loss = objective.direct_loss(gebm, energy, x, noise)
        if loss is None:
            x_base = objective.negatives(gebm, x, noise, None, state).detach()
            loss = objective.energy_loss(energy(x), energy(x_base), gebm.log_partition)
        optimizer.zero_grad()
        (sign * loss[0]).backward()
        optimizer.step()
        decay.step()
        if not all(p.isfinite().all() and p.abs().max() < 50 for p in energy.parameters()):
            break
    return gebm


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("law", "energy"), [(gaussian_log_prob, GaussianEnergy), (mixture_log_prob, MixtureEnergy)])
def test_the_energy_is_recovered(name, law, energy):
    smooth = SIGMA if name == "denoising" else 0.0
    gebm = fit(OBJECTIVES[name], energy(), sample(law))
    far = kl(law, GEBM(Identity([2]), energy().double(), Gaussian(2).double()).double().log_prob, smooth)
    found = kl(law, gebm.log_prob, smooth)
    # Maximum likelihood leaves k/2n on average, k ≤ 7 here; no estimator of the list has twenty times its variance.
    assert 0 <= found < 20 * 7 / (2 * N) < far / 2, (found, far)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_sign_error_is_seen(name):
    smooth = SIGMA if name == "denoising" else 0.0
    try:
        gebm = fit(OBJECTIVES[name], GaussianEnergy(), sample(gaussian_log_prob), steps=150, sign=-1.0)
    except UserError:
        return  # a chain that diverged
    found = kl(gaussian_log_prob, gebm.log_prob, smooth)
    assert not 0 <= found < 20 * 7 / (2 * N), found


def test_maximum_likelihood_fits_the_base():
    x = sample(gaussian_log_prob)
    base, objective = DiagonalGaussian(2).double(), MaximumLikelihood()
    gebm = GEBM(base, objective.make_energy(nn.Linear(2, 1)), Gaussian(2).double()).double()
    optimizer = torch.optim.LBFGS(base.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss, _ = objective.likelihood_loss(gebm.base_log_prob(x), gebm.energy(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(base.loc.data, x.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(base.log_scale.data.exp(), x.std(0, correction=0), atol=1e-4, rtol=0)
    torch.testing.assert_close(gebm.log_prob(x), gebm.base_log_prob(x))


def test_nce_learns_log_z():
    gebm = fit(NCE(), GaussianEnergy(), sample(gaussian_log_prob))
    ticks = torch.linspace(-9, 9, 241, dtype=torch.float64)
    points = torch.cartesian_prod(ticks, ticks)
    log_z = torch.logsumexp(gebm.base_log_prob(points) - gebm.energy(points), 0) + 2 * (ticks[1] - ticks[0]).log()
    assert gebm.log_partition.item() == pytest.approx(log_z.item(), abs=4.5 * 2 / math.sqrt(N))


def test_the_base_by_likelihood():
    """The gradient of −E_P[log q] + log Z, by quadrature, is that of the loss."""
    x, base = sample(gaussian_log_prob), DiagonalGaussian(2).double()
    with torch.no_grad():
        base.loc.copy_(torch.tensor([0.2, -0.1])), base.log_scale.copy_(torch.tensor([0.1, 0.3]))
    gebm = GEBM(base, GaussianEnergy(), Gaussian(2).double()).double()
    with torch.no_grad():
        gebm.energy.b.copy_(torch.tensor([0.3, 0.2]))
    for base_by in ("likelihood", "own_likelihood"):
        z = gebm.prior.sample(400_000, BlockNoise(0))
        loss, _ = NCE(base_by=base_by).likelihood_loss(gebm.base_log_prob(x), gebm.energy(base(z)))
        found = torch.cat(torch.autograd.grad(loss, [base.loc, base.log_scale]))
        ticks = torch.linspace(-12, 12, 401, dtype=torch.float64)
        points, area = torch.cartesian_prod(ticks, ticks), (ticks[1] - ticks[0]).square()
        truth = -gebm.base_log_prob(x).mean()
        if base_by == "likelihood":
            log_z = torch.logsumexp(gebm.base_log_prob(points) - gebm.energy(points).detach(), 0) + area.log()
            truth = truth + log_z
        wanted = torch.cat(torch.autograd.grad(truth, [base.loc, base.log_scale]))
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NCE(base_by="game"), "objective.base_by is one of"),
        (lambda: ContrastiveDivergence(start="noise"), "objective.start is one of data, base, replay"),
        (lambda: ContrastiveDivergence(num_steps=0), "objective.num_steps"),
        (lambda: ContrastiveDivergence(restart=2.0), "share of the chains"),
        (lambda: ScoreMatching("exact"), "objective.kind"),
        (lambda: ScoreMatching("denoising", sigma=0.0), "objective.sigma"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_bases_that_will_not_do():
    gebm = GEBM(nn.Linear(2, 2), GaussianEnergy(), Gaussian(2))
    with pytest.raises(UserError, match=r"Linear does not; take objective\.start=base or replay"):
        ContrastiveDivergence().make_state(gebm, BlockNoise(0))
    with pytest.raises(UserError, match="score matching needs a base with a density: Linear"):
        ScoreMatching().direct_loss(gebm, gebm.energy, torch.zeros(4, 2), BlockNoise(0))


def test_a_divergent_chain_is_named():
    x = sample(gaussian_log_prob)
    gebm = GEBM(Identity([2]), GaussianEnergy(), Gaussian(2).double()).double()
    from gebm_lightning.samplers import ULA

    objective = ContrastiveDivergence(ULA(1e8), num_steps=200)
    with pytest.raises(UserError, match=r"chains of contrastive divergence failed.*objective\.kernel\.step_size"):
        objective.negatives(gebm, x, BlockNoise(0), None, None)
