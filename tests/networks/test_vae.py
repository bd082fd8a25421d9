"""The VAE's bound against an independent computation and the exact log-likelihood, and the potential of its joint latents."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from gebm_lightning import GEBM, UserError
from gebm_lightning.networks import VAE, SNGANEnergy
from gebm_lightning.noise import BlockNoise, randn
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import BaseSampler


def vae(latent_dim=3, shape=(1, 8, 8), width=4, seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VAE(latent_dim, shape, width, **settings).double()


@pytest.fixture
def x():
    return randn((5, 1, 8, 8), BlockNoise(1), dtype=torch.float64).tanh()


def log_p(model, x, z):
    """log p(x|z) by torch.distributions, (n,)."""
    return Independent(Normal(model.decoder(z), model.sigma), 3).log_prob(x)


def log_q(model, x, z):
    mean, scale = model.encode(x)
    return Independent(Normal(mean, scale), 1).log_prob(z)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 16, 16), (1, 28, 28), (3, 32, 32)])
def test_joint_latents_become_images_and_images_a_bound(shape):
    model = vae(5, shape)
    eps = randn((3, 5 + math.prod(shape)), BlockNoise(0), dtype=torch.float64)
    x = model(eps)
    assert x.shape == (3, *shape) and model.elbo(x, BlockNoise(2)).shape == (3,)
    assert model.mean(eps[:, :5]).abs().max() <= 1
    torch.testing.assert_close((x - model.decoder(eps[:, :5])) / model.sigma, eps[:, 5:].unflatten(1, shape))


def test_the_base_alone_with_and_without_its_noise():
    model = vae()
    gebm = GEBM(model, SNGANEnergy((1, 8, 8), width=4), Gaussian(67)).double()
    noisy, means = (
        BaseSampler().refine(gebm, 70, BlockNoise(0)),
        BaseSampler(noise=False).refine(gebm, 70, BlockNoise(0)),
    )
    with torch.no_grad():
        torch.testing.assert_close(means.x, model.decoder(noisy.z[:, :3]))
        torch.testing.assert_close(noisy.x - means.x, model.sigma * noisy.z[:, 3:].unflatten(1, (1, 8, 8)))
    assert means.z is None
    gebm.base = torch.nn.Identity()
    with pytest.raises(UserError, match="noise=false needs a base with noise of its own, as model=vae: not Identity"):
        BaseSampler(noise=False).refine(gebm, 4, BlockNoise(0))


def test_no_layer_mixes_samples_or_knows_a_mode(x):
    model = vae()
    eps = randn((4, 67), BlockNoise(0), dtype=torch.float64)
    whole, one = model.train()(eps), model.eval()(eps[:1])
    torch.testing.assert_close(whole[:1], one)
    assert not any("Norm" in type(m).__name__ or "Dropout" in type(m).__name__ for m in model.modules())


def test_the_two_terms_are_those_of_torch_distributions(x):
    model = vae()
    log_likelihood, kl = model.elbo_terms(x, BlockNoise(3))
    mean, scale = model.encode(x)
    z = mean + scale * randn((5, 3), BlockNoise(3), dtype=torch.float64)
    torch.testing.assert_close(log_likelihood, log_p(model, x, z))
    prior = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    torch.testing.assert_close(kl, kl_divergence(Independent(Normal(mean, scale), 1), prior))
    torch.testing.assert_close(model.elbo(x, BlockNoise(3)), log_likelihood - kl)


TICKS = torch.linspace(-8, 8, 401, dtype=torch.float64)
LOG_STEP = (TICKS[1] - TICKS[0]).log()


def misfits(model, x, draws=2000):
    """By how many standard errors log p(x) − ELBO misses KL(q(z|x) ‖ p(z|x)), by quadrature over a latent of one dimension, (n,)."""
    found = []
    for i, one in enumerate(x):
        many, z = one.expand(len(TICKS), 1, 8, 8), TICKS[:, None]
        joint = log_p(model, many, z) + Normal(0.0, 1.0).log_prob(TICKS)
        log_likelihood, q = joint.logsumexp(0) + LOG_STEP, log_q(model, many, z)
        divergence = (q.exp() * (q - joint + log_likelihood)).sum() * LOG_STEP.exp()
        elbo = model.elbo(one.expand(draws, 1, 8, 8), BlockNoise(4 + i))
        assert divergence > 0.1
        found.append((log_likelihood - elbo.mean() - divergence) / (elbo.std() / math.sqrt(draws)))
    return torch.stack(found)


@pytest.fixture
def one_dimensional():
    """A VAE whose posteriors are neither the prior nor points."""
    model = vae(1, sigma=1.5)
    with torch.no_grad():
        for p in [*model.encoder.parameters(), *model.decoder.parameters()]:
            p.mul_(1.7)
    return model


def test_the_bound_is_below_the_log_likelihood_by_the_divergence_of_the_posteriors(one_dimensional, x):
    with torch.no_grad():
        assert misfits(one_dimensional, x[:3]).abs().max() < 4


@pytest.mark.parametrize("error", ["no constant", "half the kl", "the mean's likelihood", "variance for scale"])
def test_the_same_comparison_sees_a_planted_error(one_dimensional, x, error, monkeypatch):
    model, right = one_dimensional, one_dimensional.elbo_terms

    def wrong(x, generator):
        terms = right(x, generator)
        mean, scale = model.encode(x)
        return {
            "no constant": terms._replace(log_likelihood=terms.log_likelihood + 32 * math.log(2 * math.pi)),
            "half the kl": terms._replace(kl=terms.kl / 2),
            "the mean's likelihood": terms._replace(log_likelihood=model.log_likelihood(x, mean) + 0 * terms.kl),
            "variance for scale": terms._replace(kl=terms.kl - 0.5 * (scale.square() - scale).sum(1)),
        }[error]

    monkeypatch.setattr(model, "elbo_terms", wrong)
    with torch.no_grad():
        assert misfits(model, x[:3]).abs().max() > 6


def test_noise_is_the_generators_alone(x):
    model = vae()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b = model.elbo(x, BlockNoise(3)), model.elbo(x, torch.Generator().manual_seed(3))
    assert torch.equal(before, torch.get_rng_state()) and not torch.equal(a, b)
    torch.testing.assert_close(a, model.elbo(x, BlockNoise(3)))
    torch.testing.assert_close(a[2:], model.elbo(x[2:], BlockNoise(3).shifted(2)))


def test_the_joint_potential_is_that_of_vaebm():
    """½‖ε‖² + E(T(ε)) = −log p(z) − log p(x|z) − Σ log σ + E(x) + constant, x = T(ε): the density of (z, x), and the volume of T."""
    model, energy = vae(sigma=0.3), SNGANEnergy((1, 8, 8), width=4, spectral=False).double()
    gebm = GEBM(model, energy, Gaussian(67)).double()
    eps = randn((6, 67), BlockNoise(5), dtype=torch.float64)
    z, x = eps[:, :3], model(eps)
    log_prior = Independent(Normal(torch.zeros(3).double(), 1.0), 1).log_prob(z)
    expected = -log_prior - log_p(model, x, z) - 64 * model.sigma.log() + energy(x)
    torch.testing.assert_close(gebm.latent_potential(eps), expected)
    tempered = gebm.latent_potential(eps, 2.0) - gebm.latent_potential(eps, 0.0)
    torch.testing.assert_close(tempered, 2 * energy(x))


def test_sigma_starts_where_it_is_told_and_stays_above_its_floor():
    model = vae(sigma=0.3, sigma_floor=0.1)
    torch.testing.assert_close(model.sigma.item(), 0.3)
    with torch.no_grad():
        model.rho.fill_(-100.0)
    assert model.sigma >= 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 64, 64)}, "8, 16, 28, 32 pixels, not 64"),
        ({"shape": (2,)}, "vae is not built for"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"sigma_floor": 0.0}, "sigma_floor"),
        ({"sigma": 0.01, "sigma_floor": 0.1}, r"model\.base\.sigma "),
    ],
)
def test_what_it_is_not_built_for(arguments, message):
    with pytest.raises(UserError, match=message):
        vae(**arguments)


def test_latents_of_another_size_and_labels_are_refused():
    model = vae()
    with pytest.raises(ValueError, match=r"\(n, 67\)"):
        model(torch.zeros(2, 3))
    with pytest.raises(UserError, match="num_classes must be null"):
        model(torch.zeros(2, 67).double(), torch.zeros(2))
