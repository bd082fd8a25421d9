"""The stationary laws of the kernels on Gaussians, and what they do at edges; each law is shown to catch a planted bug."""

import math

import pytest
import torch

from gebm_lightning.errors import UserError
from gebm_lightning.noise import BlockNoise, randn
from gebm_lightning.priors import Uniform
from gebm_lightning.samplers import KLA, ULA, StepDecay, sample_chain

N = 40_000


def stationary(kernel, omega2, steps, start=0.0):
    """Second moments of N one-dimensional chains on precision omega2, at z and at KLA's midpoint."""
    z0 = start + randn((N, 1), BlockNoise(7), dtype=torch.float64)
    last = []
    chain = sample_chain(
        kernel,
        lambda z: 0.5 * omega2 * z.square().sum(1),
        z0,
        steps,
        generator=BlockNoise(1),
        on_step=lambda s, state, i: last.append(state),
    )
    midpoint = getattr(last[-1], "midpoint", None)
    return chain.z.square().mean().item(), None if midpoint is None else midpoint.square().mean().item()


def agrees(value, expected):
    return abs(value / expected - 1) < 4.5 * math.sqrt(2 / N)


@pytest.mark.parametrize(("step_size", "omega2"), [(0.1, 1.0), (0.4, 1.0), (0.05, 8.0)])
def test_ula(step_size, omega2):
    value, _ = stationary(ULA(step_size), omega2, int(12 / (step_size * omega2)))
    assert agrees(value, 1 / (omega2 * (1 - step_size * omega2 / 2)))
    assert step_size * omega2 < 0.2 or not agrees(value, 1 / omega2)


@pytest.mark.parametrize(("step_size", "omega2", "friction"), [(0.1, 1.0, 1.0), (0.3, 1.0, 4.0), (0.04, 8.0, 2.0)])
def test_kla(step_size, omega2, friction):
    at_z, at_midpoint = stationary(KLA(step_size, friction), omega2, 250)
    assert agrees(at_z, 1 / omega2)
    assert agrees(at_midpoint, 1 / (omega2 * (1 - step_size * omega2)))


def test_klas_bias_falls_in_proportion_to_its_step():
    """On U = z⁴/4, where E z² = 2Γ(3/4)/Γ(1/4): zero on a Gaussian, the bias is first order in λ elsewhere."""
    exact, n, bias = 2 * math.gamma(0.75) / math.gamma(0.25), 400_000, {}
    for step_size in (0.02, 0.01):
        # No chain starts so far out that its step is unstable there.
        z0 = 0.7 * torch.randn(n, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).clamp(-2, 2)
        generator = torch.Generator().manual_seed(4)
        chain = sample_chain(
            KLA(step_size, 1.5), lambda z: 0.25 * z.pow(4).sum(1), z0, int(8 / step_size**0.5), generator=generator
        )
        bias[step_size] = chain.z.square().mean().item() - exact
    error = math.sqrt((1 - exact**2) / n)
    assert abs(bias[0.02]) > 9 * error, "too small to be seen"
    assert abs(bias[0.02] - 2 * bias[0.01]) < 4.5 * error * math.sqrt(5) + 0.1 * abs(bias[0.02])


class HalfNoise(ULA):
    """The bug of codes that write sqrt(step) noise beside a full gradient step."""

    def step(self, state, potential, generator):
        clean, info = super().step(state, potential, generator)
        drift = state.z - self.step_size * state.gradient
        z = drift + (clean.z - drift) / math.sqrt(2)
        return self.init(z, potential, generator), info


class WrongMidpoint(KLA):
    """The bug of taking the gradient at z instead of at the midpoint."""

    def step(self, state, potential, generator):
        return super().step(
            state, lambda half: potential(half.detach() * 0 + state.z + (half - half.detach())), generator
        )


def test_the_laws_catch_planted_bugs():
    value, _ = stationary(HalfNoise(0.1), 1.0, 120)
    assert not agrees(value, 1 / (1 - 0.05))
    value, _ = stationary(WrongMidpoint(0.1, 1.0), 1.0, 250)
    assert not agrees(value, 1.0)


def test_a_short_run_is_not_the_equilibrium():
    """KLA at step 1e-4 and friction 100 from z = 5 under N(0, 1): after 1000 steps the mean is still near 3.85."""
    z0 = torch.full((4000, 1), 5.0, dtype=torch.float64)
    chain = sample_chain(KLA(1e-4, 100.0), lambda z: 0.5 * z.square().sum(1), z0, 1000, generator=BlockNoise(0))
    assert chain.z.mean().item() == pytest.approx(3.85, abs=0.08)


@pytest.mark.parametrize("kernel", [ULA(0.05), KLA(0.05, 1.0)], ids=["ula", "kla"])
def test_on_a_box_chains_stay_inside_and_fill_it(kernel):
    prior = Uniform(2).double()

    class Flat:
        def __init__(self):
            self.prior = prior

        def __call__(self, z):
            return -prior.log_prob(z)

    chain = sample_chain(kernel, Flat(), prior.sample(20_000, BlockNoise(0)), 100, generator=BlockNoise(1))
    assert chain.z.abs().max() <= 1
    assert (chain.z.square().mean(0) - 1 / 3).abs().max() < 4.5 * math.sqrt((1 / 5 - 1 / 9) / 20_000)


def test_trace_warmup_thinning_and_info():
    z0 = torch.zeros(3, 2)
    states = {}
    chain = sample_chain(
        ULA(0.1),
        lambda z: z.square().sum(1),
        z0,
        10,
        generator=BlockNoise(0),
        thin=3,
        warmup=4,
        on_step=lambda step, state, info: states.__setitem__(step, state.z),
    )
    assert sorted(states) == list(range(1, 15))
    assert (
        chain.trace.shape == (3, 3, 2)
        and torch.equal(chain.trace[0], states[7])
        and torch.equal(chain.trace[2], states[13])
    )
    assert torch.equal(chain.z, states[14])
    assert chain.info["acceptance"].tolist() == [1.0] * 14 and chain.info["potential"].shape == (14,)
    assert sample_chain(ULA(0.1), lambda z: z.square().sum(1), z0, 2, generator=BlockNoise(0)).trace is None


def test_a_schedule_scales_the_step_size():
    schedule = StepDecay(0.1, 2)
    assert [schedule(i) for i in range(5)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    moved = []
    z0 = torch.zeros(1000, 1)

    def keep(step, state, info):
        moved.append(state.z)

    sample_chain(ULA(1e-2), lambda z: 0 * z.sum(1), z0, 4, generator=BlockNoise(0), schedule=schedule, on_step=keep)
    early, late = (moved[1] - moved[0]).std(), (moved[3] - moved[2]).std()
    assert (late / early).item() == pytest.approx(math.sqrt(0.1), rel=0.15)


def test_a_diverging_chain_is_an_error():
    with pytest.raises(UserError, match=r"step size 50.0 is too large"):
        sample_chain(ULA(50.0), lambda z: z.pow(4).sum(1), torch.ones(4, 2), 100, generator=BlockNoise(0))
