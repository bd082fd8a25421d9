"""Importance resampling draws from the model's own law."""

import math

import torch
from torch import nn

from gebm_lightning import GEBM
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import SIR


class Linear(nn.Module):
    def forward(self, x):
        return -x[:, 0]


def test_an_exponential_tilt_moves_the_mean():
    """η e^{βz} is N(β, 1): mean β, variance 1; the weights' effective share is e^{−β²}."""
    model = GEBM(nn.Identity(), Linear(), Gaussian(1)).double()
    for beta in (0.0, 0.5, 1.0):
        pool, n = 200_000, 50_000
        samples = SIR(pool=pool, beta=beta).refine(model, n, BlockNoise(0))
        error = math.sqrt(1 / n + math.exp(beta**2) * (1 + beta**2 + beta**4) / pool)
        assert abs(samples.x.mean() - beta) < 4.5 * error
        assert abs(samples.x.var() - 1) < 4.5 * math.sqrt(2) * error * 1.5
        assert abs(samples.info["ess_share"] - math.exp(-(beta**2))) < 0.05
    assert not torch.equal(samples.x[:10], SIR(pool=pool).refine(model, 10, BlockNoise(1)).x)
