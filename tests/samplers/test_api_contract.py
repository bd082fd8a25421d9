"""What every refiner promises: no trace on the model, any caller's mode, the same samples for any chunking."""

from dataclasses import replace

import pytest
import torch

from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import (
    AIS,
    HMC,
    IMH,
    KLA,
    MALA,
    RWM,
    SIR,
    ULA,
    BaseSampler,
    DualAveraging,
    LatentSampler,
    ParallelTempering,
)

REFINERS = {
    "base": BaseSampler(),
    "ula": LatentSampler(ULA(1e-2), num_steps=3),
    "kla": LatentSampler(KLA(1e-2, 1.0), num_steps=3, beta=10.0),
    "sir": SIR(pool=300),
    "mala": LatentSampler(MALA(1e-1), num_steps=3, tuning=DualAveraging(0.574, 5), warmup=2, beta=3.0),
    "hmc": LatentSampler(HMC(0.3, 3), num_steps=3, tuning=DualAveraging(0.651, 5), beta=3.0),
    "rwm": LatentSampler(RWM(0.5), num_steps=3),
    "imh": LatentSampler(IMH(), num_steps=3),
    "tempering": LatentSampler(ParallelTempering(MALA(0.3), [0.0, 0.5, 1.0]), num_steps=3),
    "ais": AIS(pool=130, num_betas=3),
}
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def snapshot(gebm):
    return {
        "state": {k: v.clone() for k, v in gebm.state_dict().items()},
        "grad": {k: p.grad for k, p in gebm.named_parameters()},
        "requires_grad": {k: p.requires_grad for k, p in gebm.named_parameters()},
        "training": {k: m.training for k, m in gebm.named_modules()},
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REFINERS)
def test_sampling_leaves_no_trace_in_any_mode(gebm, name, mode):
    gebm.train()
    gebm.base.layers[1].eval()  # a mixed state must come back as it was
    before = snapshot(gebm)
    with MODES[mode]():
        samples = REFINERS[name].refine(gebm, 70, BlockNoise(0))
    after = snapshot(gebm)
    assert all(torch.equal(before["state"][k], after["state"][k]) for k in before["state"])
    assert all(g is None for g in after["grad"].values())
    assert before["requires_grad"] == after["requires_grad"] and before["training"] == after["training"]
    plain = REFINERS[name].refine(gebm, 70, BlockNoise(0))
    assert torch.equal(samples.x, plain.x) and samples.x.shape == (70, 1, 8, 8)
    with torch.no_grad():
        gebm.eval()
        torch.testing.assert_close(gebm.base(samples.z.clone()), plain.x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFINERS)
def test_the_same_samples_for_any_chunk(gebm, name):
    n = 300
    whole = replace(REFINERS[name], chunk=n).refine(gebm, n, BlockNoise(5))
    for chunk in (64, 192):
        part = replace(REFINERS[name], chunk=chunk).refine(gebm, n, BlockNoise(5))
        torch.testing.assert_close(part.x, whole.x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.z, whole.z, rtol=1e-4, atol=1e-4)
    fewer = REFINERS[name].refine(gebm, 100, BlockNoise(5))
    torch.testing.assert_close(fewer.x, whole.x[:100], rtol=1e-4, atol=1e-4)
    # What a second process would draw.
    rest = REFINERS[name].refine(gebm, 108, BlockNoise(5).shifted(192))
    torch.testing.assert_close(rest.x, whole.x[192:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ula", "kla", "mala", "hmc", "rwm", "imh"])
def test_chains_start_at_the_bases_own_latents(gebm, name):
    still = replace(REFINERS[name], num_steps=0, warmup=0).refine(gebm, 80, BlockNoise(2))
    torch.testing.assert_close(still.x, BaseSampler().refine(gebm, 80, BlockNoise(2)).x, rtol=1e-5, atol=1e-6)


def test_a_trace_covers_all_chains(gebm):
    samples = replace(REFINERS["ula"], thin=1, chunk=64).refine(gebm, 100, BlockNoise(0))
    assert samples.info["trace"].shape == (3, 100, 6)
    assert torch.equal(samples.info["trace"][-1], samples.z)
