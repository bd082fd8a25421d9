"""R-hat and effective sample size: arviz's numbers."""

import math

import pytest
import torch

from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import HMC, MALA, ULA, LatentSampler, effective_sample_size, split_rhat

arviz = pytest.importorskip("arviz", reason="arviz, the reference, is not installed")


def autoregressive(steps, chains, phi, seed, offset=0.0):
    noise = torch.randn(steps, chains, len(phi), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    states = [noise[0]]
    for e in noise[1:]:
        states.append(torch.tensor(phi) * states[-1] + e)
    return torch.stack(states) + offset * torch.arange(chains)[None, :, None]


TRACES = {
    "mixed": autoregressive(200, 6, [0.0, 0.5, 0.9, -0.6], 0),
    "apart": autoregressive(101, 4, [0.3, 0.95], 1, offset=1.0),
    "short": autoregressive(7, 30, [0.2, 0.8], 2),
    "one chain": autoregressive(500, 1, [0.7], 3),
    "ties": autoregressive(200, 4, [0.5], 4).round(),
}


@pytest.mark.parametrize("name", TRACES)
def test_they_are_arvizs(name):
    trace = TRACES[name]
    for i in range(trace.shape[2]):
        draws = trace[:, :, i].T.numpy()
        assert effective_sample_size(trace)[i].item() == pytest.approx(float(arviz.ess(draws, method="bulk")), rel=1e-9)
        if len(draws) > 1:
            assert split_rhat(trace)[i].item() == pytest.approx(float(arviz.rhat(draws, method="split")), rel=1e-9)


def test_too_short_to_tell():
    assert split_rhat(torch.zeros(3, 4, 2)).isnan().all() and effective_sample_size(torch.zeros(3, 4, 2)).isnan().all()


def test_every_sampler_tells_of_its_chains(gebm):
    short = LatentSampler(ULA(1e-3), num_steps=20).refine(gebm, 200, BlockNoise(0)).info
    long = LatentSampler(HMC(0.5, 4), num_steps=100, warmup=10).refine(gebm, 70, BlockNoise(0)).info
    assert short["rhat"] > 2 and long["rhat"] < 1.05
    assert long["ess"] > 20 * short["ess"] and long["ess_per_gradient"] == pytest.approx(
        long["ess"] / (64 * long["gradients"])
    )
    assert short["gradients"] == 21 and short["evaluations"] == 0
    later = LatentSampler(MALA(1e-2), num_steps=20).refine(gebm, 64, BlockNoise(0).shifted(64)).info
    assert "rhat" not in later and math.isfinite(later["jump"])
