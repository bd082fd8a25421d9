"""Each prior samples from its density and treats its edges as the samplers expect."""

import math

import pytest
import torch

from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian, Uniform

PRIORS = [Gaussian(3), Uniform(3), Uniform(3, -2.0, 5.0)]


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_log_prob_agrees_with_torch_distributions(prior):
    z = prior.sample(50, BlockNoise(0))
    if isinstance(prior, Gaussian):
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    else:
        expected = torch.distributions.Uniform(prior.low, prior.high).log_prob(z).sum(1)
    torch.testing.assert_close(prior.log_prob(z), expected)


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_samples_have_the_moments_of_the_density(prior):
    n = 40_000
    z = prior.double().sample(n, BlockNoise(1))
    mean, var = (
        (0.0, 1.0)
        if isinstance(prior, Gaussian)
        else ((prior.low + prior.high) / 2, (prior.high - prior.low) ** 2 / 12)
    )
    assert (z.mean(0) - mean).abs().max() < 4.5 * math.sqrt(var / n)
    assert (z.var(0) / var - 1).abs().max() < 4.5 * math.sqrt(2 / n)


def test_outside_a_box_the_potential_is_infinite_and_its_gradient_finite():
    prior = Uniform(2)
    z = torch.tensor([[0.5, 1.5], [0.5, 0.5]], requires_grad=True)
    log_prob = prior.log_prob(z)
    assert log_prob[0] == -math.inf and log_prob[1].item() == pytest.approx(-2 * math.log(2))
    (gradient,) = torch.autograd.grad(-log_prob.sum(), z)
    assert torch.isfinite(gradient).all()


def test_reflection_folds_back_and_tells_the_sign():
    z, signs = Uniform(1, 0.0, 1.0).reflect(torch.tensor([[0.3], [1.2], [-0.4], [2.1], [3.3]]).double())
    torch.testing.assert_close(z, torch.tensor([[0.3], [0.8], [0.4], [0.1], [0.7]]).double())
    assert signs.flatten().tolist() == [1, -1, -1, 1, -1]
