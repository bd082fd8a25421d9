"""A base with a density makes a GEBM an ordinary EBM, p ∝ q_θ e^{−E}: density, gradient of the base, Langevin dynamics."""

import json
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from gebm_lightning import GEBM, compose, load
from gebm_lightning.cli.fit import fit
from gebm_lightning.networks import DiagonalGaussian, Identity, MLPEnergy
from gebm_lightning.noise import BlockNoise, randn
from gebm_lightning.objectives import KALE
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import ULA, LatentSampler, sample_chain

DOUBLE = {"dtype": torch.float64}
MEAN, SCALE = torch.tensor([0.4, -0.3], **DOUBLE), torch.tensor([1.3, 0.6], **DOUBLE)


class Quadratic(nn.Module):
    """E = ½ xᵀAx − bᵀx."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return 0.5 * ((x @ self.a) * x).sum(1) - x @ self.b


def energy():
    return Quadratic(torch.tensor([[1.0, 0.4], [0.4, 0.7]], **DOUBLE), torch.tensor([0.5, -0.8], **DOUBLE))


def model(e=None):
    gebm = GEBM(DiagonalGaussian(2), e or energy(), Gaussian(2)).double()
    with torch.no_grad():
        gebm.base.loc.copy_(MEAN)
        gebm.base.log_scale.copy_(SCALE.log())
    return gebm


def reweighted(e):
    """Mean (2,) and covariance (2, 2) of q e^{−E}/Z, Gaussian again, and log Z, by completing the square."""
    precision = torch.diag(SCALE**-2)
    total = precision + e.a
    mean = torch.linalg.solve(total, precision @ MEAN + e.b)
    log_z = 0.5 * (torch.logdet(precision) - torch.logdet(total) + mean @ total @ mean - MEAN @ precision @ MEAN)
    return mean, torch.linalg.inv(total), log_z


def test_the_density_is_that_of_the_ebm():
    gebm = model()
    mean, covariance, log_z = reweighted(gebm.energy)
    with torch.no_grad():
        gebm.log_partition.copy_(log_z)
    x = 2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), **DOUBLE)
    torch.testing.assert_close(gebm.log_prob(x), MultivariateNormal(mean, covariance).log_prob(x))
    # The EBM's own energy, E − log q, differs from −log p by log Z alone.
    difference = gebm.energy(x) - gebm.base_log_prob(x) + gebm.log_prob(x)
    torch.testing.assert_close(difference, -log_z.expand(50))


def expected_scores(mean, covariance):
    """E[∂ log q/∂μ], E[∂ log q/∂ log σ] (2,) each, under a law of this mean and covariance."""
    off = mean - MEAN
    return off / SCALE**2, (covariance.diagonal() + off.square()) / SCALE**2 - 1


def base_loss(objective, gebm, x_real, n, noise):
    """What the base descends on: by n of its samples, and by the likelihood of real ones where the objective says so."""
    e_base = gebm.energy(gebm.sample_base(n, noise))
    if objective.by_likelihood:
        return objective.likelihood_loss(gebm.base_log_prob(x_real), e_base)[0]
    return objective.base_loss(e_base, gebm.log_partition)[0]


def gradients(gebm, objective, x_real, repeats=40, n=20_000):
    """Mean and standard error (2,) for each of μ and log σ, of the gradient that training takes."""
    found = []
    for repeat in range(repeats):
        loss = base_loss(objective, gebm, x_real, n, BlockNoise(repeat))
        found.append(torch.stack(torch.autograd.grad(loss, [gebm.base.loc, gebm.base.log_scale])))
    stacked = torch.stack(found)
    return stacked.mean(0), stacked.std(0) / math.sqrt(repeats)


X_REAL = torch.randn(500, 2, generator=torch.Generator().manual_seed(3), **DOUBLE) * 0.8 + 0.2


def agrees(mean, error, wanted):
    # The bar must tell a gradient from none, and from its opposite.
    assert (4.5 * error < 0.05 * wanted.abs().max()).all()
    return bool(((mean - wanted).abs() < 4.5 * error + 1e-12).all())


def test_the_likelihoods_gradient_is_the_ordinary_ebms():
    gebm = model()
    data = torch.stack(expected_scores(X_REAL.mean(0), X_REAL.T.cov(correction=0)))
    inside = torch.stack(expected_scores(*reweighted(gebm.energy)[:2]))
    found = gradients(gebm, KALE(base_by="likelihood"), X_REAL)
    assert agrees(*found, -data + inside)
    assert not agrees(*found, -data) and not agrees(*found, -data - inside)


def test_kales_gradient_is_that_of_the_gaussian_integral():
    gebm = model()
    loc, log_scale = MEAN.clone().requires_grad_(), SCALE.log().requires_grad_()
    precision = torch.diag((-2 * log_scale).exp())
    total, shift = precision + gebm.energy.a, precision @ loc + gebm.energy.b
    log_z = 0.5 * (
        -2 * log_scale.sum() - torch.logdet(total) + shift @ torch.linalg.solve(total, shift) - loc @ precision @ loc
    )
    assert log_z.item() == pytest.approx(reweighted(gebm.energy)[2].item())
    wanted = -torch.stack(torch.autograd.grad(log_z, [loc, log_scale]))
    assert agrees(*gradients(gebm, KALE(), X_REAL), wanted)
    # ∇ log Z = E_model[∇ log q]: the same, as an ordinary EBM has it.
    torch.testing.assert_close(wanted, -torch.stack(expected_scores(*reweighted(gebm.energy)[:2])))


def test_at_the_optimal_energy_kales_gradient_is_that_of_maximum_likelihood():
    # P = N(m, S); E = −log p/q up to a constant, so that the model is P.
    m, s = torch.tensor([0.7, 0.1], **DOUBLE), torch.tensor([[0.8, 0.2], [0.2, 0.3]], **DOUBLE)
    p, q = torch.linalg.inv(s), torch.diag(SCALE**-2)
    optimal = Quadratic(p - q, p @ m - q @ MEAN)
    mean, covariance, _ = reweighted(optimal)
    torch.testing.assert_close(mean, m)
    torch.testing.assert_close(covariance, s)
    assert agrees(*gradients(model(optimal), KALE(), X_REAL), -torch.stack(expected_scores(m, s)))


def network():
    torch.manual_seed(0)
    return MLPEnergy([2], width=16)


def test_latent_langevin_through_the_identity_is_langevin_on_the_data_space():
    gebm = GEBM(Identity([2]), network(), Gaussian(2), 0.3).double()
    step, n, steps = 0.05, 100, 25
    latent = LatentSampler(ULA(step), beta=1.0, num_steps=steps).refine(gebm, n, BlockNoise(7))
    torch.testing.assert_close(latent.x, latent.z, atol=0, rtol=0)
    noise = BlockNoise(7)
    x = gebm.prior.sample(n, noise)
    start = x.clone()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (score,) = torch.autograd.grad(gebm.log_prob(x).sum(), x)
        x = (x + step * score + math.sqrt(2 * step) * randn((n, 2), noise, **DOUBLE)).detach()
    torch.testing.assert_close(latent.x, x, atol=1e-12, rtol=1e-12)
    # And by the same driver, on −log p as any function of x.
    noise = BlockNoise(7)
    gebm.prior.sample(n, noise)
    chain = sample_chain(ULA(step), lambda at: -gebm.log_prob(at), start, steps, generator=noise)
    torch.testing.assert_close(latent.x, chain.z, atol=1e-12, rtol=1e-12)
    # The energy matters: without it the same noise leads elsewhere.
    prior_alone = sample_chain(ULA(step), lambda at: -gebm.prior.log_prob(at), start, steps, generator=BlockNoise(7))
    assert (prior_alone.z - x).abs().max() > 0.01


def test_through_a_scaling_it_is_preconditioned_by_the_squared_scale():
    gebm = model(network().double())
    step, n, steps = 0.05, 64, 10
    latent = LatentSampler(ULA(step), beta=1.0, num_steps=steps).refine(gebm, n, BlockNoise(2))
    noise = BlockNoise(2)
    x = (MEAN + SCALE * gebm.prior.sample(n, noise)).detach()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (score,) = torch.autograd.grad(gebm.log_prob(x).sum(), x)
        x = x + step * SCALE**2 * score + math.sqrt(2 * step) * SCALE * randn((n, 2), noise, **DOUBLE)
    torch.testing.assert_close(latent.x, x.detach(), atol=1e-11, rtol=1e-11)


@pytest.mark.slow
def test_the_experiment_trains_an_ebm_that_beats_its_gaussian(tmp_path):
    run = tmp_path / "run"
    fit(compose(["experiment=ebm_reduction", "trainer.accelerator=cpu", f"run_dir={run}"]), run)
    told = json.loads((run / "summary.json").read_text())["likelihood"]
    test = told["splits"]["test"]
    assert test["base_nll"] - test["nll"] > 0.5
    # The density of what was saved integrates to one, with the learned c.
    gebm = load(run)
    ticks = torch.linspace(-4, 4, 801)
    points = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        mass = torch.cat([gebm.log_prob(part).double().exp() for part in points.split(50_000)]).sum().item()
    assert mass * 0.01**2 == pytest.approx(1, abs=0.05)
