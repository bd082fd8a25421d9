"""The model's contracts, recomputed from their definitions."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, build, compose
from gebm_lightning.gebm import estimate_log_partition
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian


class Quadratic(nn.Module):
    def forward(self, x):
        return 0.5 * x.square().sum(1)


def test_potential_tempers_the_energy_only_and_ignores_c(gebm):
    gebm.eval()
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    energy = gebm.energy(gebm.base(z))
    prior = 0.5 * z.square().sum(1) + 3 * math.log(2 * math.pi)
    gebm.log_partition.data.fill_(7.0)
    for beta in (0.0, 1.0, 100.0):
        torch.testing.assert_close(gebm.latent_potential(z, beta), prior + beta * energy)
        torch.testing.assert_close(gebm.potential(1.0).tempered(beta)(z), prior + beta * energy)
    torch.testing.assert_close(gebm.potential(3.0).energy(z), energy)
    torch.testing.assert_close(gebm.log_weights(gebm.base(z)), -energy - 7.0)


def test_log_partition_of_a_quadratic_energy():
    d, n = 4, 200_000
    model = GEBM(nn.Identity(), Quadratic(), Gaussian(d)).double()
    estimate = estimate_log_partition(model, BlockNoise(0), n, chunk=4096)
    # E exp(-|z|^2/2) = 2^(-d/2); its relative variance is (4/3)^(d/2) - 1.
    error = math.sqrt(((4 / 3) ** (d / 2) - 1) / n)
    assert abs(estimate - (-d / 2 * math.log(2))) < 4.5 * error


def test_a_base_without_density_has_no_log_prob(gebm):
    with pytest.raises(TypeError, match="no density"):
        gebm.log_prob(torch.zeros(1, 1, 8, 8))


def test_an_energy_of_the_wrong_shape_is_named():
    model = GEBM(nn.Identity(), nn.Linear(2, 1), Gaussian(2))
    with pytest.raises(ValueError, match="one number a sample"):
        model.latent_potential(torch.zeros(3, 2))


def test_labels_come_as_often_as_in_the_data():
    gebm = build(compose(["model.num_classes=10", "model.width=4"]))
    n = 20_000
    uniform = gebm.sample_labels(n, BlockNoise(0)).bincount(minlength=10) / n
    assert (uniform - 0.1).abs().max() < 4.5 * (0.09 / n) ** 0.5
    gebm.count_labels(torch.tensor([0] * 60 + [3] * 30 + [9] * 10))
    p = torch.tensor([0.6, 0, 0, 0.3, 0, 0, 0, 0, 0, 0.1])
    drawn = gebm.sample_labels(n, BlockNoise(0)).bincount(minlength=10) / n
    assert ((drawn - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt()).all()
    twin = build(compose(["model.num_classes=10", "model.width=4"]))
    twin.load_state_dict(gebm.state_dict())
    assert torch.equal(twin.sample_labels(n, BlockNoise(0)), gebm.sample_labels(n, BlockNoise(0)))


@pytest.mark.parametrize("model", ["dcgan", "sngan", "resnet", "mlp"])
def test_a_conditional_model_asks_for_labels(model):
    gebm = build(compose([f"model={model}", "model.num_classes=10", "model.width=4"]))
    with pytest.raises(ValueError, match="needs labels"):
        gebm.base(torch.zeros(2, gebm.prior.dim))
    with pytest.raises(ValueError, match="needs labels"):
        gebm.log_weights(torch.zeros(2, 1, 8, 8))
