"""What a step costs, what the driver tells of it, and what it refuses."""

import itertools

import pytest
import torch
from targets import TARGETS

from gebm_lightning.errors import UserError
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import (
    AIS,
    HMC,
    IMH,
    KLA,
    MALA,
    RWM,
    ULA,
    Constant,
    DualAveraging,
    LatentSampler,
    ParallelTempering,
    Ramp,
    ais_log_z,
    sample_chain,
)

STEPS = 20
# Evaluations with and without a gradient: one more than steps, for the first state.
COST = {
    "ula": (ULA(0.01), STEPS + 1, 0),
    "kla": (KLA(0.01, 1.0), STEPS, 0),
    "mala": (MALA(0.01), STEPS + 1, 0),
    "hmc": (HMC(0.1, 7, 0.0), 7 * STEPS + 1, 0),
    "rwm": (RWM(0.1), 0, STEPS + 1),
    "imh": (IMH(), 0, STEPS + 1),
}


class Calls:
    """A model's potential that counts its own calls and how many backward passes go through it."""

    def __init__(self, potential):
        self.potential, self.prior = potential, potential.prior
        self.calls = self.backward = 0

    def __call__(self, z):
        self.calls += 1
        u = self.potential(z)
        if u.requires_grad:
            u.register_hook(lambda g: setattr(self, "backward", self.backward + 1))
        return u


@pytest.mark.parametrize("name", COST)
def test_evaluations_of_the_gradient(name):
    kernel, gradients, evaluations = COST[name]
    potential = Calls(TARGETS["mixture"].gebm.potential())
    z0 = torch.zeros(5, 2, dtype=torch.float64)
    chain = sample_chain(kernel, potential, z0, STEPS, generator=BlockNoise(0))
    assert (potential.backward, potential.calls) == (gradients, gradients + evaluations)
    assert (chain.info["gradients"], chain.info["evaluations"]) == (gradients, evaluations)


def test_hmc_draws_its_length_anew_for_all_chains_at_once():
    lengths = []
    for first in (0, 3):
        potential = Calls(TARGETS["mixture"].gebm.potential())
        counts = [0]
        z0 = torch.zeros(5, 2, dtype=torch.float64)
        sample_chain(
            HMC(0.1, 4, 0.5),
            potential,
            z0,
            200,
            generator=BlockNoise(0, first),
            on_step=lambda step, state, info, p=potential, c=counts: c.append(p.backward),
        )
        lengths.append([b - a for a, b in itertools.pairwise(counts)][1:])
    assert lengths[0] == lengths[1] and set(lengths[0]) == {2, 3, 4, 5, 6}
    assert abs(sum(lengths[0]) / 199 - 4) < 4.5 * (2 / 199) ** 0.5


@pytest.mark.parametrize(
    ("kernel", "target"), [(MALA(1.0), 0.574), (HMC(2.0, 5), 0.651), (RWM(9.0), 0.234)], ids=["mala", "hmc", "rwm"]
)
def test_tuning_arrives_at_its_target(kernel, target):
    gebm, exact = TARGETS["gaussian"].gebm, TARGETS["gaussian"].sample(64, torch.Generator().manual_seed(0))
    tuned = DualAveraging(target, 400).tune(kernel, gebm.potential(), exact, BlockNoise(1))
    z0 = TARGETS["gaussian"].sample(2000, torch.Generator().manual_seed(2))
    chain = sample_chain(tuned, gebm.potential(), z0, 50, generator=BlockNoise(3))
    assert chain.info["acceptance"].mean().item() == pytest.approx(target, abs=0.06)


def test_tuning_is_the_same_for_all_samples_and_frozen():
    gebm = TARGETS["gaussian"].gebm
    sampler = LatentSampler(MALA(1.0), num_steps=5, tuning=DualAveraging(0.574, 50))
    sizes = {
        sampler.refine(gebm, n, BlockNoise(0).shifted(s)).info["step_size"] for n, s in ((64, 0), (300, 0), (64, 640))
    }
    assert len(sizes) == 1 and sizes != {1.0}
    plain = LatentSampler(MALA(sizes.pop()), num_steps=5).refine(gebm, 64, BlockNoise(0))
    assert torch.equal(plain.z, sampler.refine(gebm, 64, BlockNoise(0)).z)


def test_what_cannot_be_tuned():
    gebm, z0 = TARGETS["gaussian"].gebm, torch.zeros(8, 10, dtype=torch.float64)
    for kernel, text in ((IMH(), "has none"), (ULA(1e-3), "never rejects")):
        with pytest.raises(UserError, match=text):
            DualAveraging().tune(kernel, gebm.potential(), z0, BlockNoise(0))

    def wall(z):
        return torch.where(z.detach().abs().sum(1) == 0, z.sum(1), z.sum(1) + torch.nan)

    with pytest.raises(UserError, match="no move of MALA was accepted"):
        DualAveraging().tune(MALA(1.0), wall, z0, BlockNoise(0))


def test_schedules_of_beta():
    gebm = TARGETS["mixture"].gebm
    assert [Ramp(0.0, 1.0, 4)(i) for i in (0, 2, 4, 9)] == [0, 0.5, 1, 1]
    z0 = gebm.prior.sample(64, BlockNoise(0))
    plain = sample_chain(MALA(0.3), gebm.potential(0.5), z0, 10, generator=BlockNoise(1))
    halved = sample_chain(MALA(0.3), gebm.potential(1.0), z0, 10, generator=BlockNoise(1), beta_schedule=Constant(0.5))
    assert torch.equal(plain.z, halved.z)
    target, n = TARGETS["mixture"], 20_000
    annealed = LatentSampler(MALA(0.3), num_steps=60, beta_schedule=Ramp(0.0, 1.0, 30)).refine(gebm, n, BlockNoise(3))
    right, exact = (z[:, 0] > 0.1 for z in (annealed.z, target.sample(n, torch.Generator().manual_seed(0))))
    assert abs(right.double().mean() - exact.double().mean()) < 4.5 * (2 * 0.25 / n) ** 0.5
    with pytest.raises(UserError, match="beta needs a potential"):
        sample_chain(MALA(0.3), lambda z: z.sum(1), z0, 1, generator=BlockNoise(0), beta_schedule=Constant())


def test_ais_on_a_known_normalising_constant():
    """The tilt integrates to 1 under the prior: log Z = 0 at β = 1; at β = 0 without error."""
    for target in ("mixture", "gaussian"):
        gebm = TARGETS[target].gebm
        log_z, error = ais_log_z(gebm, 4000, [k / 30 for k in range(1, 31)], HMC(0.3, 3), BlockNoise(0))
        assert abs(log_z) < 4.5 * error < 0.15
        wrong, error = ais_log_z(gebm, 4000, [1.0], MALA(1e-3), BlockNoise(0))
        assert abs(wrong) < 5 * error or error > 0.1
    with pytest.raises(UserError, match="ascend"):
        ais_log_z(gebm, 10, [0.5, 0.2], HMC(0.3, 3), BlockNoise(0))


def test_ais_as_a_refiner_draws_from_the_model():
    target, n = TARGETS["mixture"], 4000
    samples = AIS(pool=8000, num_betas=20, kernel=HMC(0.3, 3)).refine(target.gebm, n, BlockNoise(0))
    exact = target.sample(100_000, torch.Generator().manual_seed(0))
    assert samples.info["ess_share"] > 0.5 and samples.info["gradients"] > 0
    error = (exact.var(0) * (1 / n + 1 / samples.info["ess"])).sqrt()
    assert ((samples.z.mean(0) - exact.mean(0)).abs() < 4.5 * error).all()


def test_bad_input():
    gebm, z0 = TARGETS["mixture"].gebm, torch.zeros(4, 2, dtype=torch.float64)
    box = TARGETS["box"].gebm.potential()
    noise = BlockNoise(0)
    for text, kernel, potential, settings in (
        ("no finite value at 4", MALA(0.1), lambda z: z.sum(1) * torch.nan, {}),
        ("no finite value at 4", RWM(0.1), lambda z: box(z + 3), {}),
        ("needs a proposal", IMH(), lambda z: z.sum(1), {}),
        ("with a temperature", ParallelTempering(MALA(0.1), [0.5, 1]), lambda z: z.sum(1), {}),
        ("none of the ladder", ParallelTempering(MALA(0.1), [0.5, 1]), gebm.potential(2.0), {}),
        ("IMH has none", IMH(), gebm.potential(), {"schedule": Constant(0.5)}),
    ):
        with pytest.raises(UserError, match=text):
            sample_chain(kernel, potential, z0, 2, generator=noise, **settings)
    for make in (
        lambda: HMC(0.1, 0),
        lambda: HMC(0.1, 3, 1.0),
        lambda: MALA(0.0),
        lambda: RWM(-1.0),
        lambda: ParallelTempering(MALA(0.1), [1.0]),
        lambda: ParallelTempering(MALA(0.1), [0.5, -1.0]),
        lambda: DualAveraging(1.0),
        lambda: AIS(num_betas=0),
    ):
        with pytest.raises(UserError):
            make()


def test_a_metropolis_kernel_survives_where_the_energy_has_no_value():
    """Proposals into a region of NaN are rejected: the chain stays in the rest, and finite."""

    def half(z):
        return 0.5 * z.square().sum(1) + 0 * z[:, 0].sqrt()

    z0 = torch.ones(4000, 2, dtype=torch.float64)
    for kernel in (MALA(0.2), HMC(0.4, 3), RWM(0.7)):
        chain = sample_chain(kernel, half, z0, 60, generator=BlockNoise(0))
        assert (chain.z[:, 0] > 0).all() and torch.isfinite(chain.z).all()
        assert abs(chain.z[:, 0].mean() - (2 / torch.pi) ** 0.5) < 4.5 * (0.37 / 4000) ** 0.5
