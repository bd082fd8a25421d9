"""How chains move between modes, on Markov chains whose autocorrelation is known."""

import pytest
import torch

from gebm_lightning.metrics.mixing import chain_mixing, mode_mixing


def walk(steps, chains, stay, k, seed=0):
    """Chains that keep their mode with probability `stay` and else choose one of k anew."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randint(k, (chains,), generator=generator)
    states = []
    for _ in range(steps):
        keep = torch.rand(chains, generator=generator) < stay
        state = torch.where(keep, state, torch.randint(k, (chains,), generator=generator))
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("stay", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_a_known_chain(stay):
    """ρ_t = stay^t, so 1 + 2Σρ_t = (1 + stay)/(1 − stay)."""
    found = mode_mixing(walk(1000, 500, stay, 5), 5)
    assert found["mode_time"] == pytest.approx((1 + stay) / (1 - stay), rel=0.05)
    assert found["modes_per_chain"] == 5


def test_chains_that_stay():
    still = torch.arange(4).repeat(16)[None].expand(50, -1)
    found = mode_mixing(still, 4)
    assert found["modes_per_chain"] == 1 and found["mode_time"] > 45
    assert mode_mixing(torch.zeros(50, 8, dtype=torch.long), 3) == {"modes_per_chain": 1, "mode_time": 1}


def test_modes_of_a_models_chains(gebm):
    from gebm_lightning.metrics import Digits, Identity

    trace = torch.randn(6, 64, 6)
    found = chain_mixing(gebm, trace, Digits(), None)
    assert 1 <= found["modes_per_chain"] <= 6 and found["mode_time"] >= 1
    assert chain_mixing(gebm, trace, Identity(), None) == {}
