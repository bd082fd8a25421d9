"""The energy player's loss reads each spectrally normalised weight once, and is the loss with that weight."""

import copy

import pytest
import torch
from torch.nn.utils.parametrizations import _SpectralNorm

from gebm_lightning import build, compose
from gebm_lightning.lightning.losses import energy_loss
from gebm_lightning.noise import BlockNoise
from gebm_lightning.objectives import KALE
from gebm_lightning.objectives.penalties import GradientPenalty, L2Penalty, SpectralPenalty
from gebm_lightning.samplers import sampling_mode


@pytest.fixture
def parts():
    gebm = build(compose(["model=sngan", "model.width=4", "data=digits", "seed=1"])).double().train()
    x_real, x_base = (
        torch.rand(8, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1)
    )
    return gebm, x_real, x_base


OBJECTIVES = {
    "gradient": KALE(penalties={"gradient": GradientPenalty(1.0)}),
    "all": KALE(penalties={"gradient": GradientPenalty(1.0), "l2": L2Penalty(1.0), "spectral": SpectralPenalty(0.1)}),
}


def moves(monkeypatch, work):
    """How often a power iteration moves in `work`."""
    count, power = [0], _SpectralNorm._power_method

    def counted(self, *args):
        count[0] += 1
        return power(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(_SpectralNorm, "_power_method", counted)
        work()
    return count[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_power_iterations_move_once_an_update(name, parts, monkeypatch):
    gebm, x_real, x_base = parts
    layers = sum(isinstance(m, _SpectralNorm) for m in gebm.energy.modules())
    assert layers > 3
    noise = BlockNoise(0)
    assert moves(monkeypatch, lambda: energy_loss(OBJECTIVES[name], gebm, gebm.energy, x_real, x_base, noise)) == layers


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_the_weights_computed_anew_each_time(name, parts):
    gebm, x_real, x_base = parts
    loss, _ = energy_loss(OBJECTIVES[name], gebm, gebm.energy, x_real, x_base, BlockNoise(0))
    loss.backward()
    # After the update's one iteration, in eval mode, every reading computes the same weight from the same vectors.
    anew = copy.deepcopy(gebm).eval()
    anew.zero_grad()
    v_real, v_base = anew.energy(x_real), anew.energy(x_base)
    expected, _ = OBJECTIVES[name].energy_loss(v_real, v_base, anew.log_partition)
    noise = BlockNoise(0)
    for penalty in OBJECTIVES[name].penalties.values():
        expected = expected + penalty(anew.energy, x_real, x_base, noise)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for (key, p), q in zip(gebm.energy.named_parameters(), anew.energy.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=key)


def test_sampling_computes_a_normalised_weight_once(parts, monkeypatch):
    gebm, x_real, _ = parts
    reads, forward = [0], _SpectralNorm.forward

    def counted(self, weight):
        reads[0] += 1
        return forward(self, weight)

    monkeypatch.setattr(_SpectralNorm, "forward", counted)
    layers = sum(isinstance(m, _SpectralNorm) for m in gebm.energy.modules())
    with sampling_mode(gebm):
        first = gebm.energy(x_real)
        assert torch.equal(gebm.energy(x_real), first) and reads[0] == layers
    with torch.no_grad():
        next(gebm.energy.parameters()).mul_(1.5)
        gebm.energy.last.bias.add_(1.0)
    with sampling_mode(gebm):
        assert not torch.equal(gebm.energy(x_real), first) and reads[0] == 2 * layers, "weights of before"
