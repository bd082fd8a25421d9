"""MH-GAN and DRS draw from the model's own law: N(0, I) under a quadratic energy, a Gaussian in closed form."""

import numpy as np
import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import BaseSampler
from gebm_lightning.transports import DRS, MHGAN, drs, mhgan

N = 20_000


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_mhgan_reaches_the_model(quadratic, distance, dim, beta):
    model, _, _ = quadratic(1.0, 1.0, dim)
    _, mean, variance = quadratic(beta, 1.0, dim)
    samples = MHGAN(num_proposals=60, beta=beta, chunk=N).refine(model, N, BlockNoise(1))
    assert distance(samples.x, mean, variance) < 4.5
    assert samples.info["evaluations"] == 61 and samples.info["restarted"] == 0
    assert 0.2 < samples.info["acceptance"] < 0.9


def test_mhgan_from_real_samples_forgets_them_and_restarts(quadratic, distance):
    model, mean, variance = quadratic()
    # Real samples at the energy's very minimum are left with probability e^{d' − d} only: some chains never move.
    real = torch.ones(100, 1, dtype=torch.float64)
    refiner = MHGAN(num_proposals=4, start="real").fit(model, real, BlockNoise(0))
    samples = refiner.refine(model, N, BlockNoise(1))
    share = samples.info["restarted"]
    still = 1 - 2**-0.5 * np.exp(-0.25)  # of one proposal: 1 − E[e^d]
    assert abs(share - still**4) < 4.5 * np.sqrt(still**4 / N)
    assert samples.info["evaluations"] == pytest.approx(4 * (1 + share) + share)
    longer = MHGAN(num_proposals=60, start="real").fit(model, real, BlockNoise(0))
    assert distance(longer.refine(model, N, BlockNoise(1)).x, mean, variance) < 4.5


def test_an_inverted_ratio_is_noticed(quadratic, distance, monkeypatch):
    model, mean, variance = quadratic()
    right = mhgan.metropolis
    monkeypatch.setattr(mhgan, "metropolis", lambda old, new, ratio, noise: right(old, new, -ratio, noise))
    assert distance(MHGAN(60, chunk=N).refine(model, N, BlockNoise(1)).x, mean, variance) > 20
    inverted = drs.DRS._f
    monkeypatch.setattr(drs.DRS, "_f", lambda self, d, maximum: inverted(self, -d, 0.0 * d))
    assert distance(DRS(percentile=None, num_burn_in=1000).refine(model, N, BlockNoise(1)).x, mean, variance) > 20


def test_a_base_start_is_the_bases_own_latents(quadratic):
    model, _, _ = quadratic(a=-50.0, m=0.0)  # far out is better by far: what lies far out never moves again
    z = BaseSampler().refine(model, 500, BlockNoise(4)).z
    kept = MHGAN(1).refine(model, 500, BlockNoise(4)).z
    far = z.abs().squeeze(1) > 3
    assert far.any() and torch.equal(z[far], kept[far])


def test_mhgan_asks_for_real_samples(gebm, conditional):
    with pytest.raises(UserError, match="held-out"):
        MHGAN(start="real").refine(gebm, 3, BlockNoise(0))
    real, y = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.long)
    refiner = MHGAN(2, start="real").fit(conditional.eval(), real, BlockNoise(0), y)
    with pytest.raises(UserError, match="label 1"):
        refiner.refine(conditional, 3, BlockNoise(0), torch.ones(3, dtype=torch.long))
    assert MHGAN(2).fit(gebm, real, BlockNoise(0)) == MHGAN(2)


@pytest.mark.parametrize("dim", [1, 2])
def test_drs_without_a_shift_is_exact_rejection(quadratic, distance, dim):
    model, mean, variance = quadratic(1.0, 1.0, dim)
    samples = DRS(percentile=None, chunk=N).refine(model, N, BlockNoise(1))
    assert distance(samples.x, mean, variance) < 4.5
    z = (2**-0.5 * np.exp(-0.25)) ** dim
    assert abs(samples.info["acceptance"] - z) < 4.5 * np.sqrt(z * (1 - z) / (N / z))
    assert samples.info["above_maximum"] < 1e-3


def test_drs_with_a_percentile_has_the_law_of_its_formula(quadratic):
    """γ is the 80th percentile of F over the burn-in, not the 0.8th, and the law ∝ η(x)·σ(F(x) − γ), by quadrature."""
    model, _, _ = quadratic()
    samples = DRS(percentile=80, chunk=N).refine(model, N, BlockNoise(1))
    burn_in = torch.cat(
        [model.prior.sample(512, BlockNoise(1).substream("burn-in").shifted(s)) for s in range(0, 10_000, 512)]
    )
    d = -0.5 * (burn_in[:10_000, 0].numpy() - 1) ** 2
    top, eps = d.max(), 1e-8

    def f(d):
        delta = np.minimum(d - top, 0)
        return delta - np.log(-np.expm1(delta - eps))

    gamma = np.percentile(f(d), 80)
    assert samples.info["gamma"] == pytest.approx(gamma, rel=1e-9) and samples.info["maximum"] == pytest.approx(top)
    x = np.linspace(-8, 8, 200_001)
    weight = np.exp(-(x**2) / 2) / (1 + np.exp(gamma - f(-0.5 * (x - 1) ** 2)))
    acceptance = weight.sum() * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    weight /= weight.sum()
    mean = (weight * x).sum()
    moments = [(weight * (x - mean) ** k).sum() for k in (2, 4)]
    got = samples.x[:, 0].numpy()
    assert abs(got.mean() - mean) < 4.5 * np.sqrt(moments[0] / N)
    assert abs(got.var() - moments[0]) < 4.5 * np.sqrt((moments[1] - moments[0] ** 2) / N)
    assert abs(samples.info["acceptance"] - acceptance) < 4.5 * np.sqrt(acceptance / N)
    assert samples.info["evaluations"] == pytest.approx(1 / samples.info["acceptance"] + 10_000 / N)
    loose = DRS(percentile=0.8).refine(model, 2000, BlockNoise(1))
    assert loose.info["acceptance"] > 1.5 * acceptance, "the 0.8th percentile accepts nearly everything"


def test_hopeless_rejection_is_said(quadratic):
    with pytest.raises(UserError, match="lower"):
        DRS(percentile=None, max_rounds=1000).refine(quadratic(400.0, 3.0)[0], 100, BlockNoise(0))
    with pytest.raises(UserError, match="lower"):
        DRS(percentile=100, max_rounds=100).refine(quadratic()[0], 100, BlockNoise(0))
