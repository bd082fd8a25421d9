"""What goes wrong with chains is told, and what a chain needs is found where the contract says so."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import UserError
from gebm_lightning.gebm import GEBM
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian, Uniform
from gebm_lightning.samplers import (
    HMC,
    KLA,
    MALA,
    ULA,
    LatentSampler,
    ParallelTempering,
    ais_log_z,
    effective_sample_size,
    sample_chain,
    split_rhat,
)


def model(prior):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    return GEBM(base, nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)), prior)


@pytest.mark.parametrize("kernel", [ULA(1e2), ULA(1e20), KLA(1e20, 1.0)], ids=str)
def test_a_step_far_out_of_a_box_is_no_sample(kernel):
    with pytest.raises(UserError, match=r"left the finite numbers.*step size"):
        LatentSampler(kernel, num_steps=40).refine(model(Uniform(2)), 64, BlockNoise(0))


def test_the_models_own_method_is_a_potential():
    gebm = model(Uniform(2))
    z0 = gebm.prior.sample(64, BlockNoise(0))
    before = {k: v.clone() for k, v in gebm.state_dict().items()}
    by_method, by_potential = (
        sample_chain(ULA(0.05), potential, z0, 20, generator=BlockNoise(1)).z
        for potential in (gebm.latent_potential, gebm.potential())
    )
    assert torch.equal(by_method, by_potential) and by_method.abs().max() <= 1
    assert all(torch.equal(v, before[k]) for k, v in gebm.state_dict().items())


def test_potentials_of_other_shapes_or_without_support_are_refused():
    with pytest.raises(ValueError, match="one number a chain"):
        sample_chain(MALA(0.1), lambda z: z.square().sum(), torch.zeros(4, 2), 3, generator=BlockNoise(0))

    def boxed(z):
        return torch.where((z.abs() < 1).all(1), 0 * z.sum(1), math.inf)

    with pytest.raises(UserError, match="ended where the potential is"):
        sample_chain(ULA(0.5), boxed, torch.zeros(64, 2), 50, generator=BlockNoise(0))
    assert sample_chain(MALA(0.5), boxed, torch.zeros(64, 2), 50, generator=BlockNoise(0)).z.abs().max() < 1


def test_annealing_takes_exact_kernels_only():
    gebm = model(Gaussian(2))
    with pytest.raises(UserError, match="ULA is approximate"):
        ais_log_z(gebm, 100, [0.5, 1.0], ULA(0.1), BlockNoise(0))
    with pytest.raises(UserError, match="num_samples"):
        ais_log_z(gebm, 1, [0.5, 1.0], MALA(0.1), BlockNoise(0))


def test_trajectories_keep_their_jitter_where_the_temperature_changes(monkeypatch):
    lengths = []
    own = HMC.trajectory
    monkeypatch.setattr(HMC, "trajectory", lambda self, phase, u, n: lengths.append(n) or own(self, phase, u, n))
    gebm = model(Gaussian(2))
    ais_log_z(gebm, 64, [k / 20 for k in range(1, 21)], HMC(0.1, 5), BlockNoise(0))
    assert len(set(lengths)) > 3
    lengths.clear()
    sampler = LatentSampler(ParallelTempering(HMC(0.1, 5), [0.2, 0.5, 1.0]), num_steps=20)
    sampler.refine(gebm, 64, BlockNoise(0))
    assert len(set(lengths)) > 3


def test_a_nan_in_a_trace_is_a_nan_in_its_diagnostics():
    trace = torch.randn(20, 4, 2, generator=torch.Generator().manual_seed(0))
    trace[3, 1, 0] = math.nan
    for found in (effective_sample_size(trace), split_rhat(trace)):
        assert found[0].isnan() and found[1].isfinite()
    with pytest.raises(ValueError, match="steps, chains, d"):
        effective_sample_size(trace[:, :, 0])
