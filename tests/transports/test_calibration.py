"""Calibration finds the scale of a critic, refuses one of the wrong sign, and makes energies that samplers can use."""

import math

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, UserError
from gebm_lightning.noise import BlockNoise, randn
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import MALA, RWM, BaseSampler, LatentSampler
from gebm_lightning.transports import DOT, DRS, MHGAN, Calibrated, CalibratedEnergy, DGFlow, calibrate, calibrated

M, N = 1.2, 20_000


class Linear(nn.Module):
    """E = −k·(m·x − m²/2) + shift: k times the true energy of P = N(m, 1) over Q = N(0, 1)."""

    def __init__(self, k, shift=0.0):
        super().__init__()
        self.k, self.shift = k, shift

    def forward(self, x):
        return -self.k * (M * x[:, 0] - M**2 / 2) + self.shift


def toy(k, shift=0.0):
    return GEBM(nn.Identity(), Linear(k, shift), Gaussian(1)).double()


def real(n, seed=0):
    return M + randn((n, 1), BlockNoise(seed, stream="real"), dtype=torch.float64)


def standard_errors(n):
    """Of slope and intercept of the logistic regression at the truth, from Fisher's information."""
    x = torch.cat([real(50_000, 5), randn((50_000, 1), BlockNoise(6), dtype=torch.float64)])[:, 0]
    d = M * x - M**2 / 2
    p = torch.sigmoid(d)
    features = torch.stack([d, torch.ones_like(d)], 1)
    information = 2 * n * (features * (p * (1 - p))[:, None]).T @ features / len(d)
    return information.inverse().diagonal().sqrt().tolist()


@pytest.mark.parametrize(("k", "shift"), [(1.0, 0.0), (0.2, 3.0), (5.0, -40.0)])
def test_the_slope_of_a_critic_is_found(k, shift):
    model = toy(k, shift)
    found = calibrated(model, real(4000), BlockNoise(1))
    slope, intercept = standard_errors(4000)
    calibration = found.energy.calibration
    assert abs(calibration.slope.item() * k - 1) < 4.5 * slope
    at_truth = calibration.slope.item() * -shift + calibration.intercept.item()
    assert abs(at_truth) < 4.5 * intercept
    x = real(50)
    torch.testing.assert_close(found.energy(x), toy(1.0).energy(x), atol=0.5, rtol=0.2)
    # A log-ratio has Z = 1, and c says so.
    assert abs(found.log_partition.item()) < 0.15 and model.log_partition.item() == 0
    assert isinstance(found.energy, CalibratedEnergy) and model.energy is found.energy.energy


def test_unequal_numbers_leave_no_prior_in_the_logit():
    d = lambda x: M * x[:, 0] - M**2 / 2  # noqa: E731
    base = randn((20_000, 1), BlockNoise(2), dtype=torch.float64)
    for method in ("logistic", "isotonic"):
        calibration = calibrate(d(real(2000)), d(base), method)
        at = torch.tensor([-0.8, 0.0, 0.8], dtype=torch.float64)
        torch.testing.assert_close(calibration(at), at, atol=0.45, rtol=0.1)


def test_isotonic_increases_by_steps_and_stays_finite():
    d_real, d_base = real(500)[:, 0], randn((500, 1), BlockNoise(2), dtype=torch.float64)[:, 0]
    calibration = calibrate(d_real, d_base, "isotonic")
    at = torch.linspace(-20, 20, 4001)
    values = calibration(at)
    assert values.dtype == torch.float32 and torch.isfinite(values).all() and (values.diff() >= 0).all()
    assert 5 < len(values.unique()) < 200
    assert values.abs().max() <= math.log(500) + 1e-4
    assert calibration(torch.tensor([math.nan])).isnan()
    with pytest.raises(UserError, match="logistic"):
        torch.autograd.grad(calibration(at.requires_grad_()).sum(), at)


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_a_critic_of_the_wrong_sign_is_refused(method):
    with pytest.raises(UserError, match="sign"):
        calibrated(toy(-1.0), real(500), BlockNoise(1), method)
    with pytest.raises(UserError, match="sign"):
        calibrate(torch.zeros(10), torch.zeros(10), method)
    with pytest.raises(UserError, match="finite"):
        calibrate(torch.tensor([0.0, math.nan]), torch.zeros(10), method)
    with pytest.raises(UserError, match="two"):
        calibrate(torch.zeros(1), torch.zeros(10), method)
    with pytest.raises(UserError, match="logistic, isotonic"):
        calibrate(torch.zeros(10), torch.zeros(10), "beta")


def test_a_perfect_critic_has_no_slope():
    with pytest.raises(UserError, match="isotonic"):
        calibrate(torch.arange(10.0) + 100, torch.arange(10.0))
    # Nor where the two only touch: the likelihood still grows for ever.
    with pytest.raises(UserError, match="isotonic"):
        calibrate(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 1.0]))
    assert torch.isfinite(
        calibrate(torch.arange(10.0) + 100, torch.arange(10.0), "isotonic")(torch.arange(200.0))
    ).all()


@pytest.mark.parametrize(
    ("inner", "method"),
    [
        (MHGAN(60, chunk=N), "logistic"),
        (MHGAN(60, chunk=N), "isotonic"),
        (DRS(percentile=None, chunk=N, num_burn_in=3000, max_rounds=20_000), "logistic"),
        (LatentSampler(RWM(1.5), num_steps=60, chunk=N), "isotonic"),
        (LatentSampler(MALA(0.5), num_steps=60, chunk=N), "logistic"),
    ],
    ids=["mhgan-logistic", "mhgan-isotonic", "drs-logistic", "rwm-isotonic", "mala-logistic"],
)
def test_a_calibrated_sampler_reaches_the_data(inner, method):
    """The critic is five times too steep; calibrated, the model's law is P = N(m, 1) up to the calibration's error."""
    refiner = Calibrated(inner, method).fit(toy(5.0), real(5000), BlockNoise(1))
    samples = refiner.refine(toy(5.0), N, BlockNoise(2))
    assert abs(samples.x.mean() - M) < 0.12 and abs(samples.x.var() - 1) < 0.15
    assert samples.info["calibrated"] == method and samples.info["evaluations"] >= 0
    if isinstance(inner, DRS):
        with pytest.raises(UserError, match="lower"):
            inner.refine(toy(5.0), 2000, BlockNoise(2))
    else:
        assert abs(inner.refine(toy(5.0), 2000, BlockNoise(2)).x.mean() - M) > 0.8


def test_calibrated_needs_data_and_a_fitting_method():
    with pytest.raises(UserError, match="held-out"):
        Calibrated(MHGAN(3)).refine(toy(1.0), 5, BlockNoise(0))
    for refiner in (DGFlow(), DOT()):
        with pytest.raises(UserError, match="gradient"):
            Calibrated(refiner, "isotonic")
    mala = Calibrated(LatentSampler(MALA(0.1), num_steps=2), "isotonic").fit(toy(1.0), real(500), BlockNoise(1))
    with pytest.raises(UserError, match="gradient"):
        mala.refine(toy(1.0), 5, BlockNoise(0))


def test_calibrated_fits_what_is_inside():
    refiner = Calibrated(MHGAN(40, start="real", chunk=N)).fit(toy(5.0), real(3000), BlockNoise(1))
    slope, intercept = (getattr(refiner.calibration, key).item() for key in ("slope", "intercept"))
    want = -(slope * -toy(5.0).energy(real(3000)) + intercept)
    torch.testing.assert_close(refiner.refiner.real_energies, want)
    assert abs(refiner.refine(toy(5.0), N, BlockNoise(2)).x.mean() - M) < 0.12


def test_the_models_networks_are_shared_not_changed(gebm):
    x = BaseSampler().refine(gebm.eval(), 300, BlockNoise(9)).x
    with torch.no_grad():
        best = x[gebm.energy(x).argsort()[:150]]
    before = {k: v.clone() for k, v in gebm.state_dict().items()}
    with torch.inference_mode():
        found = calibrated(gebm.train(), best, BlockNoise(1))
    assert found.base is gebm.base and gebm.training and found.energy.training
    assert all(torch.equal(v, before[k]) for k, v in gebm.state_dict().items())
    samples = DGFlow(num_steps=2).refine(found, 10, BlockNoise(0))
    assert torch.isfinite(samples.x).all() and gebm.training
