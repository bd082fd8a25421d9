"""A real WGAN-GP of 25 Gaussians, trained elsewhere: exact values by importance sampling, see GEBM_FIXTURES."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gebm_lightning import GEBM
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Uniform
from gebm_lightning.samplers import BaseSampler
from gebm_lightning.transports import DRS, MHGAN, DGFlow

PATH = Path(os.environ.get("GEBM_FIXTURES", ".")) / "wgan_gp_25gaussians.npz"
pytestmark = pytest.mark.skipif(not PATH.is_file(), reason=f"GEBM_FIXTURES holds no {PATH.name}")

GRID = torch.tensor([(2.0 * i, 2.0 * j) for i in range(-2, 3) for j in range(-2, 3)]) / 2.828
RADIUS = 4 * 0.05 / 2.828
# share of high quality, E[x] of the target e^{s·d}·p_G; from 300,000 weighted draws.
EXACT = {1.0: (0.452, (0.181, 0.093)), 2.9: (0.567, (0.437, 0.254))}


def network(arrays, name):
    layers = []
    for i in range(4):
        weight, bias = (torch.from_numpy(arrays[f"{name}.{i}.{part}"]) for part in ("weight", "bias"))
        linear = nn.Linear(*weight.shape[::-1])
        linear.weight.data, linear.bias.data = weight, bias
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


class Negative(nn.Module):
    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, x):
        return -self.critic(x).squeeze(1)


@pytest.fixture
def wgan():
    with np.load(PATH) as arrays:
        return GEBM(network(arrays, "generator"), Negative(network(arrays, "critic")), Uniform(2))


def quality(x):
    distance, nearest = torch.cdist(x, GRID).min(1)
    good = distance < RADIUS
    return good.float().mean().item(), torch.bincount(nearest[good], minlength=25)


def test_the_generator_alone(wgan):
    share, modes = quality(BaseSampler().refine(wgan, 20_000, BlockNoise(0)).x)
    assert abs(share - 0.384) < 0.015 and (modes > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("s", EXACT)
def test_mhgan_reaches_the_exact_rows(wgan, s):
    samples = MHGAN(num_proposals=100, beta=s).refine(wgan, 8000, BlockNoise(0))
    share, _ = quality(samples.x)
    want, mean = EXACT[s]
    print(s, share, samples.x.mean(0), samples.info)
    assert abs(share - want) < 0.015
    assert (samples.x.mean(0) - torch.tensor(mean)).abs().max() < 0.03


def test_exact_rejection_reaches_the_first_row(wgan):
    samples = DRS(percentile=None).refine(wgan, 8000, BlockNoise(0))
    share, _ = quality(samples.x)
    want, mean = EXACT[1.0]
    print(share, samples.x.mean(0), samples.info)
    assert abs(share - want) < 0.02
    assert (samples.x.mean(0) - torch.tensor(mean)).abs().max() < 0.04


def test_dgflow_reaches_all_modes(wgan):
    samples = DGFlow("kl", 0.01, 0.0, num_steps=25).refine(wgan, 2500, BlockNoise(0))
    share, modes = quality(samples.x)
    print(share, modes, samples.info)
    assert share > 0.9 and (modes > 0).all()
