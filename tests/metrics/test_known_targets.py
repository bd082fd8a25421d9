"""Known densities in 5 and 10 dimensions: what can be represented is found, and a base that cannot is beaten."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM
from gebm_lightning.callbacks.log_partition import finish, moments
from gebm_lightning.gebm import estimate_log_partition
from gebm_lightning.metrics.likelihood import LogPartition, log_likelihood, log_partition
from gebm_lightning.networks import DiagonalGaussian, FlowBase, MLPEnergy
from gebm_lightning.noise import BlockNoise, stable_seed
from gebm_lightning.objectives import KALE, GradientPenalty, MaximumLikelihood
from gebm_lightning.priors import Gaussian

zuko = pytest.importorskip("zuko")

DOUBLE = {"dtype": torch.float64}
NUM_FINISHING = 2000


def generator(*names):
    return torch.Generator().manual_seed(stable_seed("known targets", *names))


def normal_log_prob(x, mean, scale):
    return (-0.5 * ((x - mean) / scale).square() - torch.log(scale) - 0.5 * math.log(2 * math.pi)).sum(-1)


class Mixture:
    """Three Gaussians of one diagonal covariance, of which any Gaussian is a quadratic and a log-sum-exp away."""

    def __init__(self, dim, distance=2.5):
        directions = torch.linalg.qr(torch.randn(dim, dim, generator=generator("means"), **DOUBLE))[0][:3]
        self.means = distance * directions
        self.scale = torch.linspace(0.6, 1.2, dim, **DOUBLE)
        self.weights = torch.tensor([0.5, 0.3, 0.2], **DOUBLE)

    def sample(self, n, *names):
        noise = generator("mixture", *names)
        which = torch.multinomial(self.weights, n, replacement=True, generator=noise)
        return self.means[which] + self.scale * torch.randn(n, len(self.scale), generator=noise, **DOUBLE)

    def log_prob(self, x):
        return torch.logsumexp(self.weights.log() + normal_log_prob(x[:, None], self.means, self.scale), 1)


class Curved:
    """x₀ ~ N(0, 1), x₁ = (x₀² − 1)/2 + .4 ξ, the rest N(0, 1): no Gaussian is near it."""

    def __init__(self, dim):
        self.dim = dim

    def sample(self, n, *names):
        x = torch.randn(n, self.dim, generator=generator("curved", *names), **DOUBLE)
        x[:, 1] = (x[:, 0].square() - 1) / 2 + 0.4 * x[:, 1]
        return x

    def log_prob(self, x):
        one = torch.ones(1, **DOUBLE)
        across = normal_log_prob(x[:, 1:2], (x[:, :1].square() - 1) / 2, 0.4 * one)
        return across + normal_log_prob(torch.cat([x[:, :1], x[:, 2:]], 1), 0 * one, one)


class Pushed:
    """The law of a base with a density, its parameters moved by `spread`: what the same base can represent."""

    def __init__(self, base, spread):
        noise = generator("pushed")
        self.base, self.prior = base.double().requires_grad_(False), Gaussian(base_dim(base)).double()
        for p in self.base.parameters():
            p += spread * torch.randn(p.shape, generator=noise, **DOUBLE)

    def sample(self, n, *names):
        return self.base(self.prior.sample(n, generator("push", *names)))

    def log_prob(self, x):
        z, log_det = self.base.inverse(x)
        return self.prior.log_prob(z) + log_det


def base_dim(base):
    return len(base.loc) if isinstance(base, DiagonalGaussian) else 5


class MixtureRatio(nn.Module):
    """E = ½ Σ d_i x_i² − log Σ_k exp(a_k + ⟨b_k, x⟩), whose log Z under a Gaussian has a closed form."""

    def __init__(self, dim, components=3):
        super().__init__()
        self.curvature, self.offsets = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(components))
        self.slopes = nn.Parameter(0.3 * torch.randn(components, dim, generator=generator("slopes")))

    def forward(self, x):
        return 0.5 * x.square() @ self.curvature - torch.logsumexp(self.offsets + x @ self.slopes.T, 1)

    def log_z(self, base):
        loc, precision = base.loc, (-2 * base.log_scale).exp()
        total = precision + self.curvature
        assert (total > 0).all()
        shift = (precision * loc + self.slopes).square() / total - precision * loc.square()
        return torch.logsumexp(self.offsets + 0.5 * (shift + (precision / total).log()).sum(1), 0).item()


def base_loss(objective, gebm, x_real, n, noise):
    """What the base descends on: by n of its samples, and by the likelihood of real ones where the objective says so."""
    e_base = gebm.energy(gebm.sample_base(n, noise))
    if objective.by_likelihood:
        return objective.likelihood_loss(gebm.base_log_prob(x_real), e_base)[0]
    return objective.base_loss(e_base, gebm.log_partition)[0]


def train(gebm, objective, x, steps, energy_turns=3, lr=1e-2, batch=256):
    """The game, by the objective's losses, both learning rates falling to zero; c begins at log Z."""
    noise = generator("train")
    playing = [1] if isinstance(objective, MaximumLikelihood) else [0, 1]
    with torch.no_grad():
        gebm.log_partition.copy_(estimate_log_partition(gebm, BlockNoise(0)))
    players = [[*gebm.energy.parameters(), gebm.log_partition], list(gebm.base.parameters())]
    optimizers = [torch.optim.Adam(p, lr, (0.5, 0.99)) for p in players]
    schedules = [torch.optim.lr_scheduler.LinearLR(optimizers[i], 1.0, 0.01, steps) for i in playing]

    def descend(which, loss):
        for p, g in zip(players[which], torch.autograd.grad(loss, players[which], allow_unused=True), strict=True):
            p.grad = g
        optimizers[which].step()

    for step in range(steps):
        for turn in range(energy_turns if 0 in playing else 0):
            stream = BlockNoise(0, stream=f"{step}/{turn}")
            real = x[torch.randint(len(x), (batch,), generator=noise)]
            with torch.no_grad():
                made = gebm.sample_base(batch, stream)
            loss, _ = objective.energy_loss(gebm.energy(real), gebm.energy(made), gebm.log_partition)
            for penalty in objective.penalties.values():
                loss = loss + penalty(gebm.energy, real, made, stream)
            descend(0, loss)
        real = x[torch.randint(len(x), (batch,), generator=noise)]
        descend(1, base_loss(objective, gebm, real, batch, BlockNoise(0, stream=f"{step}/base")))
        for schedule in schedules:
            schedule.step()
    return gebm.eval()


def model(base, critic, objective):
    torch.manual_seed(0)
    critic = critic()
    base = base()
    dim = base_dim(base)
    return GEBM(base, objective.make_energy(critic), Gaussian(dim)).double()


def paired(better, worse):
    """Mean difference of log densities, and its standard error."""
    difference = better - worse
    return difference.mean().item(), difference.std().item() / math.sqrt(len(difference))


@pytest.fixture(scope="module", params=[5, 10])
def represented(request):
    """A target, and the model that can be it, trained."""
    dim = request.param
    target = Mixture(dim)
    objective = KALE(base_by="likelihood")
    gebm = model(lambda: DiagonalGaussian(dim), lambda: MixtureRatio(dim), objective)
    train(gebm, objective, target.sample(50_000, "train"), steps=2000)
    with torch.no_grad():
        gebm.log_partition.fill_(finish(gebm, BlockNoise(0, stream="finish"), 256, NUM_FINISHING))
    return target, gebm


@pytest.mark.parametrize("target", [Mixture(5), Curved(5)], ids=lambda t: type(t).__name__)
def test_densities_are_those_of_the_samples(target):
    # E_P[q/p] = 1 for a Gaussian q with thinner tails, and the entropies of closed forms.
    x = target.sample(200_000, "check")
    q = normal_log_prob(x, x.mean(0), 0.4 * torch.ones(5, **DOUBLE))
    ratio = (q - target.log_prob(x)).exp()
    mean, error = ratio.mean().item(), ratio.std().item() / math.sqrt(len(x))
    assert abs(mean - 1) < 4.5 * error < 0.25
    if isinstance(target, Curved):
        entropy = 2.5 * math.log(2 * math.pi * math.e) + math.log(0.4)
        assert -target.log_prob(x).mean().item() == pytest.approx(entropy, abs=0.02)


def test_the_closed_form_of_log_z():
    gebm = model(lambda: DiagonalGaussian(5), lambda: MixtureRatio(5), KALE())
    with torch.no_grad():
        for p in gebm.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator("closed form"), **DOUBLE)
        exact = gebm.energy.log_z(gebm.base)
        for method, n in (("monte_carlo", 200_000), ("ais", 1000)):
            found = log_partition(gebm, BlockNoise(4), method, n)
            assert abs(found.value - exact) < 4.5 * found.standard_error < 0.05, (method, found, exact)


@pytest.mark.slow
def test_what_can_be_represented_is_found(represented):
    target, gebm = represented
    x = target.sample(20_000, "test")
    exact = LogPartition(gebm.energy.log_z(gebm.base), None, "closed form")
    gap, _ = paired(target.log_prob(x), log_likelihood(gebm, x, exact).values)
    # The base alone is far from it: the energy did something.
    alone, _ = paired(target.log_prob(x), gebm.base_log_prob(x).detach())
    print(f"{len(target.scale)} dimensions: {gap:.4f} nats below the truth, the base alone {alone:.4f}")
    assert abs(gap) < 0.05 < 0.2 < alone
    for method in ("learned", "monte_carlo", "ais"):
        z = log_partition(gebm, BlockNoise(0), method, 2000 if method == "ais" else 50_000)
        gap, _ = paired(target.log_prob(x), log_likelihood(gebm, x, z).values)
        assert abs(gap) < 0.05, method


@pytest.mark.slow
def test_each_estimate_of_log_z_is_the_closed_forms(represented):
    _, gebm = represented
    exact = gebm.energy.log_z(gebm.base)
    for method, n in (("monte_carlo", 50_000), ("ais", 2000)):
        z = log_partition(gebm, BlockNoise(1), method, n)
        print(method, z.value - exact, z.standard_error)
        assert abs(z.value - exact) < 4.5 * z.standard_error < 0.2, (z, exact)
    # c was finished on batches of 256: its error is that of a mean over all of their samples.
    _, variance = moments(gebm, BlockNoise(2), 200_000)
    error = math.sqrt(variance / (256 * NUM_FINISHING))
    print("learned", gebm.log_partition.item() - exact, error)
    assert abs(gebm.log_partition.item() - exact) < 4.5 * error < 0.2


def small_flow(dim=5, transforms=1, hidden=8):
    return lambda: FlowBase(zuko.flows.RealNVP(dim, transforms=transforms, hidden_features=[hidden]))


MISSPECIFIED = {
    "gaussian, mixture, 5": (Mixture(5), lambda: DiagonalGaussian(5)),
    "gaussian, mixture, 10": (Mixture(10), lambda: DiagonalGaussian(10)),
    "gaussian, curved, 10": (Curved(10), lambda: DiagonalGaussian(10)),
    "one coupling, mixture, 5": (Mixture(5), small_flow()),
}


def against_maximum_likelihood(target, base, base_by, steps=1000):
    """Mean paired difference of test log-likelihoods, GEBM minus maximum likelihood of the same flow, and its standard error."""
    x, test = target.sample(50_000, "train"), target.sample(20_000, "test")
    alone = train(model(base, nn.Identity, MaximumLikelihood()), MaximumLikelihood(), x, steps)
    with torch.no_grad():
        by_likelihood = alone.base_log_prob(test)
    objective = KALE(base_by=base_by, penalties={"gradient": GradientPenalty(1e-1)})
    gebm = model(base, lambda: MLPEnergy([test.shape[1]], width=64, depth=2), objective)
    # From the same maximum-likelihood fit: what the energy and the base's game add to it.
    gebm.base.load_state_dict(alone.base.state_dict())
    train(gebm, objective, x, steps, lr=2e-3)
    z = log_partition(gebm, BlockNoise(0), num_samples=200_000)
    difference, error = paired(log_likelihood(gebm, test, z).values, by_likelihood)
    missing, _ = paired(target.log_prob(test), by_likelihood)
    assert z.standard_error is not None
    error = math.hypot(error, z.standard_error)
    print(f"{difference:+.4f} ± {error:.4f} nats ({base_by}); the truth is {missing:.4f} above maximum likelihood")
    return difference, error


@pytest.mark.slow
@pytest.mark.parametrize("base_by", ["likelihood", "kale"])
@pytest.mark.parametrize("case", MISSPECIFIED)
def test_a_misspecified_flow_is_beaten(case, base_by):
    difference, error = against_maximum_likelihood(*MISSPECIFIED[case], base_by)
    assert difference > 2 * error


WELL_SPECIFIED = {
    "gaussian, 5": (lambda: DiagonalGaussian(5), 0.5),
    "gaussian, 10": (lambda: DiagonalGaussian(10), 0.5),
    "realnvp, 5": (small_flow(transforms=2, hidden=16), 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WELL_SPECIFIED)
def test_a_well_specified_flow_is_not_made_worse(case):
    base, spread = WELL_SPECIFIED[case]
    difference, error = against_maximum_likelihood(Pushed(base(), spread), base, "likelihood")
    assert difference > -2 * error
