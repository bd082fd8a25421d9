"""Densities: flows invert and integrate to one; log Z by each estimate is that of quadrature; what has no density says so."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, UserError, build, compose
from gebm_lightning.config import instantiate
from gebm_lightning.metrics.likelihood import METHODS, log_likelihood, log_partition, negative_log_likelihoods
from gebm_lightning.networks import DiagonalGaussian, FlowBase, FlowEnergy, Identity
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian, Uniform

zuko = pytest.importorskip("zuko")

FLOWS = {
    "identity": lambda: Identity([2]),
    "gaussian": lambda: DiagonalGaussian(2),
    "realnvp": lambda: FlowBase(zuko.flows.RealNVP(2, transforms=4, hidden_features=[16])),
    "maf": lambda: FlowBase(zuko.flows.MAF(2, transforms=2, hidden_features=[16])),
    "nsf": lambda: FlowBase(zuko.flows.NSF(2, transforms=2, hidden_features=[16])),
}


class Tilt(nn.Module):
    """E(x) = (x₀ − 1)²/2 + sin 2x₁."""

    def forward(self, x):
        return (x[:, 0] - 1).square() / 2 + (2 * x[:, 1]).sin()


def base_of(kind, seed=0, scale=0.15):
    torch.manual_seed(seed)
    base = FLOWS[kind]().double()
    with torch.no_grad():
        for p in base.parameters():
            p.add_(scale * torch.randn_like(p))
    return base


def grid(n=320, half=10.0):
    ticks = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.cartesian_prod(ticks, ticks), (ticks[1] - ticks[0]).item() ** 2


@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_inverts_and_its_density_integrates_to_one(kind):
    gebm = GEBM(base_of(kind), Tilt(), Gaussian(2).double()).double()
    z = gebm.prior.sample(200, BlockNoise(0))
    x = gebm.base(z)
    back, log_det = gebm.base.inverse(x)
    torch.testing.assert_close(back, z, atol=1e-6, rtol=0)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda r: gebm.base(r[None])[0], row) for row in z[:8]])
    torch.testing.assert_close(log_det[:8], -torch.linalg.slogdet(jacobian).logabsdet, atol=1e-5, rtol=0)
    points, area = grid()
    assert gebm.base_log_prob(points).exp().sum().item() * area == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("kind", ["realnvp", "maf", "nsf"])
def test_a_flow_begins_at_the_identity(kind):
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(FLOWS[kind]()(z), z, atol=1e-5, rtol=0)
    assert (FlowBase(zuko.flows.RealNVP(2), zero_init=False)(z) - z).abs().max() > 0.01


def test_tanh_keeps_outliers_in_their_place():
    """Far out the log-determinant of a trained-like flow with tanh stays what it is nearer by; with ReLU it grows."""
    far = torch.tensor([[1e3, -1e3], [1e4, -1e4]])
    moved = {}
    for activation in (None, "tanh"):
        torch.manual_seed(0)
        base = FlowBase(zuko.flows.RealNVP(2, transforms=2, hidden_features=[20]), False, activation)
        _, log_det = base.inverse(far)
        moved[activation] = (log_det[1] - log_det[0]).abs().item()
    assert moved["tanh"] < 1e-6 < moved[None]
    with pytest.raises(UserError, match=r"model\.base\.activation is tanh or null, not selu"):
        FlowBase(zuko.flows.RealNVP(2), activation="selu")
    with pytest.raises(UserError, match="which this flow has nowhere"):
        FlowBase(zuko.flows.RealNVP(2, activation=torch.nn.ELU), activation="tanh")


def test_another_prior_gives_another_density():
    gebm = GEBM(base_of("gaussian"), Tilt(), Uniform(2, -1, 1).double()).double()
    x = gebm.base(torch.tensor([[0.5, -0.5], [1.5, 0.0]], dtype=torch.float64))
    inside, outside = gebm.base_log_prob(x).tolist()
    assert inside == pytest.approx(-2 * math.log(2) - gebm.base.log_scale.sum().item()) and outside == -math.inf


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "exact"])
def test_log_z_is_that_of_quadrature(kind, method):
    gebm = GEBM(base_of(kind), Tilt(), Gaussian(2).double()).double()
    points, area = grid()
    truth = torch.logsumexp(gebm.base_log_prob(points) - gebm.energy(points), 0).item() + math.log(area)
    with torch.no_grad():
        gebm.log_partition.fill_(truth)
    estimate = log_partition(
        gebm, BlockNoise(1), method, num_samples=20_000 if method == "monte_carlo" else 300, num_betas=20
    )
    bound = 1e-6 if method == "learned" else 4.5 * estimate.standard_error
    assert estimate.method == method and abs(estimate.value - truth) <= bound, (estimate, truth)
    result = log_likelihood(gebm, points[::1000], estimate)
    torch.testing.assert_close(
        result.values, gebm.base_log_prob(points[::1000]) - gebm.energy(points[::1000]) - estimate.value
    )
    assert result.mean == pytest.approx(result.values.mean().item()) and result.log_partition == estimate


def test_the_flow_energy_makes_its_own_flow_the_model():
    base, own = base_of("realnvp", 0), base_of("realnvp", 1)
    energy = FlowEnergy(own).double()
    gebm = GEBM(base, energy, Gaussian(2).double()).double()
    energy.attach(gebm.base, gebm.prior)
    x = gebm.sample_base(300, BlockNoise(0)).detach()
    wanted = GEBM(own, Tilt(), Gaussian(2).double()).double().base_log_prob(x)
    torch.testing.assert_close(gebm.log_prob(x), wanted)
    assert log_partition(gebm, BlockNoise(0), "exact") == (0.0, 0.0, "exact")
    other = GEBM(base_of("realnvp", 0), energy, Gaussian(2).double()).double()
    with pytest.raises(UserError, match="log Z of FlowEnergy is not known exactly"):
        log_partition(other, BlockNoise(0), "exact")
    # As a function of x only: the base's parameters get no gradient from it, the energy's and x do.
    x.requires_grad_()
    energy(x).sum().backward()
    assert all(p.grad is None for p in base.parameters()) and all(p.grad is not None for p in own.parameters())
    assert x.grad.abs().sum() > 0 and not any(name.startswith("_of") for name in energy.state_dict())


@pytest.mark.parametrize("model", ["flow_realnvp", "flow_maf", "flow_nsf", "flow_gaussian", "identity"])
@pytest.mark.parametrize("energy", ["mlp", "flow"])
def test_configs_build(model, energy):
    gebm = build(compose([f"model={model}", "data=ring", f"model/energy={energy}"]))
    x = gebm.sample_base(5, BlockNoise(0))
    assert gebm.log_prob(x).shape == (5,)


class Steep(nn.Module):
    """E(x) = k x₀, so that under N(0, I) one sample in a thousand has all the weight."""

    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        return self.k * x[:, 0]


@pytest.mark.parametrize(("k", "known"), [(0.5, True), (30.0, False)])
def test_a_log_z_of_a_handful_of_samples_gives_no_likelihood(k, known):
    gebm = GEBM(Identity([2]), Steep(k), Gaussian(2)).double()
    data = instantiate(compose(["data=ring", "data.source.num_train=100", "data.source.num_held_out=100"]).data)
    told = negative_log_likelihoods(gebm, data, ["test"], BlockNoise(0), 20_000)
    assert ("note" in told) is not known and bool(told["splits"]) is known
    if known:
        x = data.dataset("test").x
        wanted = (x.square().sum(1) / 2 + math.log(2 * math.pi) + k * x[:, 0] + k**2 / 2).mean().item()
        assert told["splits"]["test"]["nll"] == pytest.approx(wanted, abs=4.5 * told["log_partition"]["standard_error"])


def test_what_has_no_density_says_so():
    gebm = build(compose(["model=mlp", "data=ring"]))
    with pytest.raises(UserError, match="no likelihood: MLPBase has no density"):
        log_likelihood(gebm, torch.zeros(3, 2), log_partition(gebm, BlockNoise(0), "learned"))
    with pytest.raises(UserError, match="one of learned, monte_carlo, ais, exact"):
        log_partition(gebm, BlockNoise(0), "guess")
    with pytest.raises(UserError, match="not known exactly"):
        log_partition(gebm, BlockNoise(0), "exact")
    with pytest.raises(UserError, match="no unconditional zuko flow"):
        FlowBase(zuko.flows.NSF(2, context=3))
