"""Each prior samples from its density and treats its edges as the samplers expect."""

import math

import pytest
import torch

from gebm_lightning import GEBM, UserError, build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Flow, Gaussian, Uniform
from gebm_lightning.samplers import ULA, LatentSampler

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
    far, _ = Uniform(1, 0.0, 1.0).reflect(torch.tensor([[10.9], [11.1], [-9.9], [-10.1]]).double())
    assert far.isnan().flatten().tolist() == [False, True, False, True]


ZUKO = ["NSF", "MAF", "RealNVP", "NICE"]


def flow_prior(name, seed=0, scale=0.5):
    """A flow whose weights were pushed away from where it begins, near the identity."""
    zuko = pytest.importorskip("zuko")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = getattr(zuko.flows, name)(2, hidden_features=(16, 16))
        for parameter in flow.parameters():
            parameter.data += scale * parameter.data.std().nan_to_num(0.1) * torch.randn_like(parameter)
    return Flow(flow.double()).double()


@pytest.mark.parametrize("name", ZUKO)
def test_a_flow_integrates_to_one_and_its_samples_follow_it(name):
    prior = flow_prior(name)
    n = 20_000
    z = prior.sample(n, BlockNoise(0))
    low, high = z.min(0).values - 3, z.max(0).values + 3
    axes = [torch.linspace(a.item(), b.item(), 700, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*axes)
    mass = torch.cat([prior.log_prob(part).exp() for part in grid.split(70_000)])
    mass = mass * (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    assert mass.sum().item() == pytest.approx(1, abs=5e-3)
    mean = (mass[:, None] * grid).sum(0)
    second = (mass[:, None] * (grid - mean).square()).sum(0)
    assert ((z.mean(0) - mean).abs() < 4.5 * (second / n).sqrt() + 2e-3).all()
    spread = ((z - mean).square().var(0) / n).sqrt()
    assert ((z.var(0) - second).abs() < 4.5 * spread + 1e-2).all()


@pytest.mark.parametrize("name", ZUKO)
def test_a_flows_samples_depend_on_their_index_alone(name):
    prior = flow_prior(name)
    z = prior.sample(200, BlockNoise(3))
    parts = [prior.sample(n, BlockNoise(3).shifted(start)) for start, n in ((0, 70), (70, 130))]
    torch.testing.assert_close(torch.cat(parts), z)
    assert torch.equal(prior.sample(200, BlockNoise(3)), z)


def test_a_flow_is_the_prior_of_a_model_and_ula_keeps_it():
    prior = flow_prior("NSF")
    assert not any(p.requires_grad for p in prior.parameters())

    class Zero(torch.nn.Module):
        def forward(self, x):
            return 0 * x.sum(1)

    gebm = GEBM(torch.nn.Identity(), Zero(), prior).double()
    samples = LatentSampler(ULA(1e-3), num_steps=50).refine(gebm, 2000, BlockNoise(0))
    start = prior.sample(2000, BlockNoise(0))
    assert not torch.equal(samples.z, start)
    spread = 4.5 * (start.var(0) / 2000).sqrt()
    assert ((samples.z.mean(0) - start.mean(0)).abs() < 2 * spread).all()


def test_a_flow_by_the_command_line_with_weights_of_its_own(tmp_path):
    prior = flow_prior("NSF")
    torch.save(prior.flow.state_dict(), tmp_path / "flow.pt")
    cfg = compose(
        [
            "model=mlp",
            "data=ring",
            "model.latent_dim=2",
            "model.prior._target_=gebm_lightning.priors.Flow",
            "+model.prior.flow={_target_:zuko.flows.NSF,features:2,hidden_features:[16,16]}",
            f"+model.prior.weights={tmp_path / 'flow.pt'}",
        ]
    )
    z = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(build(cfg).prior.double().log_prob(z), prior.log_prob(z))
    assert build(cfg, trusted=False).prior.dim == 2


def test_what_is_no_flow_for_a_prior():
    zuko = pytest.importorskip("zuko")
    for flow in (zuko.flows.NSF(2, context=3), torch.nn.Linear(2, 2)):
        with pytest.raises(UserError, match="no unconditional zuko flow"):
            Flow(flow)
    with pytest.raises(UserError, match="standard normal base"):
        Flow(zuko.flows.NCSF(2))
    with pytest.raises(UserError, match="inverse leads elsewhere"):
        Flow(zuko.flows.GF(2))
    with pytest.raises(UserError, match=r"has 2 dimensions, model\.latent_dim is 3"):
        Flow(zuko.flows.NSF(2), dim=3)
