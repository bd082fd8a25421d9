"""What every transport promises: no trace, any mode, the same samples for any chunk or process, labels, plain refusals."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, UserError
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import BaseSampler
from gebm_lightning.transports import DOT, DRS, MHGAN, Calibrated, DGFlow

MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def snapshot(gebm):
    return {
        "state": {k: v.clone() for k, v in gebm.state_dict().items()},
        "grad": {k: p.grad for k, p in gebm.named_parameters()},
        "requires_grad": {k: p.requires_grad for k, p in gebm.named_parameters()},
        "training": {k: m.training for k, m in gebm.named_modules()},
    }


def fitted_here(fitted, gebm):
    modes = {m: m.training for m in gebm.modules()}
    refiner = fitted(gebm)
    for module, mode in modes.items():
        module.training = mode
    return refiner


@pytest.mark.parametrize("mode", MODES)
def test_no_trace_in_any_mode(gebm, fitted, mode):
    plain = fitted(gebm.eval()).refine(gebm, 70, BlockNoise(0))
    gebm.train()
    gebm.base.layers[1].eval()
    before = snapshot(gebm)
    with MODES[mode]():
        samples = fitted_here(fitted, gebm).refine(gebm, 70, BlockNoise(0))
    after = snapshot(gebm)
    assert all(torch.equal(before["state"][k], after["state"][k]) for k in before["state"])
    assert all(g is None for g in after["grad"].values())
    assert before["requires_grad"] == after["requires_grad"] and before["training"] == after["training"]
    torch.testing.assert_close(samples.x, plain.x, rtol=1e-5, atol=1e-6)
    assert samples.x.shape == (70, 1, 8, 8) and not samples.x.requires_grad
    info = samples.info
    assert all(isinstance(info[key], float) for key in ("gradients", "evaluations", "beta"))
    assert info["gradients"] + info["evaluations"] > 0
    if samples.z is not None:
        with torch.no_grad():
            torch.testing.assert_close(gebm.eval().base(samples.z.clone()), plain.x, rtol=1e-4, atol=1e-5)


def test_the_same_samples_for_any_chunk_and_process(gebm, fitted):
    n = 300
    whole = fitted(gebm, chunk=n).refine(gebm, n, BlockNoise(5))
    small = fitted(gebm, chunk=64)
    part = small.refine(gebm, n, BlockNoise(5))
    torch.testing.assert_close(part.x, whole.x, rtol=1e-4, atol=1e-4)
    for start, stop in ((0, 100), (100, 230), (230, 300)):
        mine = small.refine(gebm, stop - start, BlockNoise(5).shifted(start))
        torch.testing.assert_close(mine.x, whole.x[start:stop], rtol=1e-4, atol=1e-4)
    assert not torch.equal(small.refine(gebm, 20, BlockNoise(6)).x, whole.x[:20])


def test_labels(conditional, fitted):
    """Sample i depends on its own label, not on those of others, and comes from its class."""
    real_labels = torch.arange(600) % 10
    refiner = fitted(conditional.eval(), real_labels, chunk=64)
    y = torch.arange(150) % 10
    samples = refiner.refine(conditional, 150, BlockNoise(2), y)
    ones = refiner.refine(conditional, 150, BlockNoise(2), torch.full((150,), 7))
    mine = y == 7
    torch.testing.assert_close(samples.x[mine], ones.x[mine], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(samples.x[~mine], ones.x[~mine], atol=1e-4)
    if samples.z is not None:
        with torch.no_grad():
            torch.testing.assert_close(conditional.base(samples.z, y), samples.x, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        again = refiner.refine(conditional, 150, BlockNoise(2), torch.arange(150) % 10)
    torch.testing.assert_close(again.x, samples.x, rtol=1e-4, atol=1e-4)


def test_a_plain_torch_generator_serves(gebm, fitted):
    refiner = fitted(gebm)
    a, b = (refiner.refine(gebm, 70, torch.Generator().manual_seed(3)).x for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("refiner", [DGFlow(num_steps=0), DOT(num_steps=0, lipschitz=1.0)])
def test_transports_start_at_the_bases_own_samples(gebm, refiner):
    base = BaseSampler().refine(gebm, 80, BlockNoise(2)).x
    for space in ("latent", "data"):
        torch.testing.assert_close(replace(refiner, space=space).refine(gebm, 80, BlockNoise(2)).x, base)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DGFlow(divergence="hellinger"), "kl, js, logd"),
        (lambda: DGFlow(space="pixels"), "latent, data"),
        (lambda: DOT(space="pixels"), "latent, data"),
        (lambda: DOT(optimizer="lion"), "adam, sgd"),
        (lambda: MHGAN(start="fake"), "base, real"),
        (lambda: Calibrated(MHGAN(), method="beta"), "logistic, isotonic"),
        (lambda: MHGAN(num_proposals=0), "num_proposals"),
        (lambda: DGFlow(step_size=0.0), "step_size"),
        (lambda: DGFlow(noise=-1.0), "noise"),
        (lambda: DOT(lipschitz=0.0), "lipschitz"),
        (lambda: DRS(percentile=101), "100"),
        (lambda: DRS(percentile=-1), "percentile"),
        (lambda: DRS(max_rounds=0), "max_rounds"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(UserError, match=match):
        make()


class Steep(nn.Module):
    """Every step leads to infinity."""

    def forward(self, x):
        return -1e30 * x.pow(4).sum(1)


class Broken(nn.Module):
    def forward(self, x):
        return x.sum(1) * float("nan")


@pytest.mark.parametrize("refiner", [DGFlow(), DOT(), MHGAN(3), DRS(num_burn_in=64)])
def test_what_is_not_finite_is_said(refiner):
    with pytest.raises(UserError, match="finite"):
        refiner.refine(GEBM(nn.Identity(), Broken(), Gaussian(2)), 10, BlockNoise(0))
    if isinstance(refiner, DGFlow):
        with pytest.raises(UserError, match="lower"):
            refiner.refine(GEBM(nn.Identity(), Steep(), Gaussian(2)), 10, BlockNoise(0))
