"""Every exact kernel leaves known posteriors as they are; detailed balance, energy errors; and each law catches planted bugs."""

import math

import pytest
import torch
from targets import TARGETS, departures

from gebm_lightning.samplers import HMC, IMH, MALA, RWM, ParallelTempering, sample_chain
from gebm_lightning.samplers.gradients import value_and_grad
from gebm_lightning.samplers.hmc import HMCState, Phase, hamiltonian
from gebm_lightning.samplers.kernel import Info, metropolis
from gebm_lightning.samplers.mala import MALAState

N = 20_000
P_LIMIT, Z_LIMIT = 6.8e-6, 4.5  # both are 4.5 standard deviations of a normal
SCALE = {"gaussian": 0.45, "mixture": 1.0, "pushforward": 1.0, "box": 0.3}
KERNELS = {
    "mala": lambda s: MALA(0.35 * s**2),
    "hmc": lambda s: HMC(0.9 * s, 4),
    "rwm": lambda s: RWM(0.9 * s),
    "imh": lambda s: IMH(),
    "tempering": lambda s: ParallelTempering(MALA(0.35 * s**2), [0.0, 0.5, 1.0]),
}


def after(kernel, target, steps=30, seed=0):
    """N independent chains that start at exact samples, some steps later, and their mean acceptance."""
    z0 = target.sample(N, torch.Generator().manual_seed(seed + 1))
    generator = torch.Generator().manual_seed(seed + 2)
    chain = sample_chain(kernel, target.gebm.potential(), z0, steps, generator=generator)
    return chain.z, chain.info["acceptance"].mean().item()


def invariant(kernel, target, steps=30):
    p, score = departures(after(kernel, target, steps)[0], target)
    return p > P_LIMIT and score < Z_LIMIT


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_leaves_the_posterior_as_it_is(kernel, target):
    # A ladder's other replicas start from the target's law, which is not theirs.
    steps = 150 if kernel == "tempering" else 30
    z, acceptance = after(KERNELS[kernel](SCALE[target]), TARGETS[target], steps)
    p, score = departures(z, TARGETS[target])
    assert p > P_LIMIT and score < Z_LIMIT
    assert 0.02 < acceptance < 0.98, "a law that is never put to the test"


class WrongCorrection(MALA):
    """(γ/4)‖·‖² where ‖·‖²/(4γ) is meant."""

    def log_ratio(self, old, new):
        forth = new.z - old.z + self.step_size * old.gradient
        back = old.z - new.z + self.step_size * new.gradient
        moved = (forth.square() - back.square()).sum(1) * self.step_size / 4
        return old.potential - new.potential + moved


class StaleGradient(HMC):
    """The gradient of the proposal is kept when the proposal is not."""

    def step(self, state, potential, generator):
        momentum = torch.randn(state.z.shape, generator=generator, dtype=state.z.dtype)
        start = Phase(state.z, state.potential, state.gradient, momentum)
        end = self.trajectory(start, potential, self.num_leapfrog)
        kept, probability, accepted = metropolis(start, end, hamiltonian(start) - hamiltonian(end), generator)
        return HMCState(kept.z, kept.potential, end.gradient), Info(probability, accepted, kept.potential)


class OnlyAccepted(MALA):
    """Rejected moves are tried again, so that only accepted states are stored."""

    def step(self, state, potential, generator):
        new, info = super().step(state, potential, generator)
        for _ in range(20):
            again, other = super().step(state, potential, generator)
            new = MALAState(
                *(
                    torch.where(info.accepted.view(-1, *[1] * (a.dim() - 1)), a, b)
                    for a, b in zip(new, again, strict=True)
                )
            )
            info = Info(info.accept_prob, info.accepted | other.accepted, info.potential)
        return new, info


class AccumulatedGradients(MALA):
    """∇U is added to the one of the step before, as `.backward()` does when nobody zeroes."""

    def step(self, state, potential, generator):
        new, info = super().step(state, potential, generator)
        return new._replace(gradient=new.gradient + 0.5 * state.gradient), info


BUGS = {
    "wrong correction": WrongCorrection(0.5),
    "stale gradient": StaleGradient(0.6, 4, 0.0),
    "only accepted": OnlyAccepted(0.5),
    "accumulated gradients": AccumulatedGradients(0.3),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_law_catches(bug):
    assert not invariant(BUGS[bug], TARGETS["mixture"])


def test_detailed_balance_of_a_mala_step():
    """π(z) q(z → z') α(z → z') = π(z') q(z' → z) α(z' → z), with q written down anew."""
    potential, kernel = TARGETS["mixture"].gebm.potential(), MALA(0.3)
    generator = torch.Generator().manual_seed(0)
    pair = [1.5 * torch.randn(200, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    a, b = (MALAState(z, *value_and_grad(potential, z)) for z in pair)

    def flow(old, new):
        proposal = torch.distributions.Normal(old.z - 0.3 * old.gradient, math.sqrt(0.6))
        return -old.potential + proposal.log_prob(new.z).sum(1) + kernel.log_ratio(old, new).clamp(max=0)

    torch.testing.assert_close(flow(a, b), flow(b, a), rtol=1e-10, atol=1e-10)
    wrong = WrongCorrection(0.3)
    assert (wrong.log_ratio(a, b) - kernel.log_ratio(a, b)).abs().max() > 0.1


def test_detailed_balance_of_an_hmc_step():
    """The leapfrog map is its own inverse once momenta are turned, and keeps volume: so min(1, e^{H − H'}) balances."""
    potential, kernel = TARGETS["pushforward"].gebm.potential(), HMC(0.3, 5, 0.0)
    generator = torch.Generator().manual_seed(0)
    z, p = (torch.randn(50, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    start = Phase(z, *value_and_grad(potential, z), p)
    end = kernel.trajectory(start, potential, 5)
    back = kernel.trajectory(end._replace(momentum=-end.momentum), potential, 5)
    torch.testing.assert_close(back.z, z)
    torch.testing.assert_close(back.momentum, -p)
    assert (hamiltonian(end) - hamiltonian(start)).abs().max() > 1e-3
    step = 1e-5
    columns = []
    for i in range(4):
        moved = [torch.cat([z[:1], p[:1]], 1) for _ in range(2)]
        for sign, m in zip((1, -1), moved, strict=True):
            m[0, i] += sign * step
        ends = []
        for m in moved:
            first = Phase(m[:, :2], *value_and_grad(potential, m[:, :2]), m[:, 2:])
            last = kernel.trajectory(first, potential, 5)
            ends.append(torch.cat([last.z, last.momentum], 1)[0])
        columns.append((ends[0] - ends[1]) / (2 * step))
    assert torch.linalg.det(torch.stack(columns, 1)).item() == pytest.approx(1, abs=1e-7)


def test_hmcs_energy_error_falls_with_the_square_of_the_step():
    target = TARGETS["mixture"]
    potential = target.gebm.potential()
    z = target.sample(2000, torch.Generator().manual_seed(0))
    p = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = Phase(z, *value_and_grad(potential, z), p)
    errors = []
    for length in (8, 16, 32):
        end = HMC(1.6 / length, length, 0.0).trajectory(start, potential, length)
        errors.append((hamiltonian(end) - hamiltonian(start)).abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.05)


def test_swaps_are_needed_to_cross():
    """Two far modes: tempering visits both from one, its kernel alone does not."""

    class Far(torch.nn.Module):
        def forward(self, x):
            return -torch.logaddexp(-8 * (x[:, 0] - 2).square(), -8 * (x[:, 0] + 2).square())

    gebm = TARGETS["mixture"].gebm
    gebm = type(gebm)(gebm.base, Far(), gebm.prior)
    z0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(500, 2)
    share = {}
    for name, kernel in {"alone": MALA(0.02), "swaps": ParallelTempering(MALA(0.02), [0, 0.1, 0.3, 1.0])}.items():
        chain = sample_chain(kernel, gebm.potential(), z0, 300, generator=torch.Generator().manual_seed(0))
        share[name] = (chain.z[:, 0] < 0).double().mean().item()
    rates = chain.info["swap_prob"].nanmean(0)
    assert share["alone"] < 0.01 and abs(share["swaps"] - 0.5) < 4.5 * math.sqrt(0.25 / 500)
    assert rates.shape == (3,) and (rates > 0.1).all()
