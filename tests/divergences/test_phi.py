"""Every φ against its definition: conjugacy both ways, Fenchel's equality, and the log-ratio by autograd."""

import math

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.divergences import PHI
from gebm_lightning.divergences._phi import _log_lambert

KEYS = [
    "kl",
    "reverse_kl",
    "pearson",
    "neyman",
    "squared_hellinger",
    "jeffreys",
    "js",
    "gan",
    "total_variation",
]
RATIOS = torch.logspace(-3, 2, 26, dtype=torch.float64)
CRITICS = torch.linspace(-6, 6, 49, dtype=torch.float64)


def gradient(function, at):
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at).sum(), at)[0]


def test_the_members():
    assert sorted(PHI) == sorted(KEYS) and all(PHI[key].name == key for key in KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_the_conjugate_is_the_supremum_over_all_ratios(key):
    """φ*(t) = sup_{u ≥ 0} ut − φ(u), by brute force, also where the supremum is at u = 0 or infinite."""
    u = torch.cat([torch.zeros(1, dtype=torch.float64), torch.logspace(-9, 6, 600_001, dtype=torch.float64)])
    values = PHI[key].phi(u)
    for t in (-30.0, -5.0, -2.5, -2.0, -1.0, -0.6, -0.4, 0.0, 0.3, 0.5, 0.69, 0.95, 1.5, 3.0):
        brute = (u * t - values).max().item()
        exact = PHI[key].conjugate(torch.tensor(t, dtype=torch.float64)).item()
        at_the_edge = brute == (u[-1] * t - values[-1]).item()
        if math.isinf(exact):
            assert t >= PHI[key].top and at_the_edge, t
        else:
            assert abs(brute - exact) < 1e-6 * max(1, abs(exact)), t


@pytest.mark.parametrize("key", KEYS)
def test_twice_the_conjugate_is_phi_itself(key):
    phi = PHI[key]
    end = min(phi.top, 250.0)
    t = torch.cat([end - torch.logspace(-12, 7, 400_001, dtype=torch.float64), phi.derivative(RATIOS)])
    values = phi.conjugate(t)
    for u in RATIOS:
        assert abs((u * t - values).max() - phi.phi(u)) < 1e-9 * max(1, abs(phi.phi(u))) + 1e-9, u


@pytest.mark.parametrize("key", KEYS)
def test_fenchels_equality_and_the_derivative(key):
    phi = PHI[key]
    slope = phi.derivative(RATIOS)
    torch.testing.assert_close(phi.conjugate(slope), RATIOS * slope - phi.phi(RATIOS), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(gradient(phi.phi, RATIOS), slope, rtol=1e-9, atol=1e-9)
    assert phi.phi(torch.ones(1)).abs() < 1e-6 or key == "gan"
    assert phi.phi(torch.tensor(-0.1)) == math.inf


@pytest.mark.parametrize("key", KEYS)
def test_the_activation_stays_in_the_domain(key):
    phi = PHI[key]
    assert (phi.activation(CRITICS) <= phi.top).all() and torch.isfinite(phi.conjugate(phi.activation(CRITICS))).all()
    assert (phi.activation(CRITICS).diff() > 0).all()
    torch.testing.assert_close(phi.dual(CRITICS), phi.conjugate(phi.activation(CRITICS)), rtol=1e-9, atol=1e-9)
    wide = torch.linspace(-80, 80, 33)
    assert (phi.activation(wide) <= torch.tensor(phi.top)).all()
    assert torch.isfinite(phi.dual(wide)).all() and torch.isfinite(gradient(phi.dual, wide)).all()


@pytest.mark.parametrize("key", [k for k in KEYS if k != "total_variation"])
def test_the_energy_is_minus_the_log_of_the_conjugates_slope(key):
    phi = PHI[key]
    v = CRITICS[CRITICS > -1.9] if key == "pearson" else CRITICS
    log_ratio = gradient(phi.conjugate, phi.activation(v)).log()
    torch.testing.assert_close(phi.to_energy(v), -log_ratio, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(phi.log_ratio(v), log_ratio, rtol=1e-9, atol=1e-9)
    assert (gradient(phi.to_energy, v) < 0).all(), "a critic is high on real data, an energy low"
    # At the optimum g(v) = φ'(r), and the energy must be −log r.
    r = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    target = phi.derivative(r)
    low, high = torch.full_like(r, -50.0), torch.full_like(r, 50.0)
    for _ in range(100):
        middle = (low + high) / 2
        below = phi.activation(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    torch.testing.assert_close(phi.to_energy(low), -r.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("key", KEYS)
def test_single_precision(key):
    phi = PHI[key]
    for function, at in ((phi.phi, RATIOS), (phi.derivative, RATIOS), (phi.dual, CRITICS), (phi.activation, CRITICS)):
        single = function(at.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), function(at.float().double()), rtol=1e-5, atol=1e-6)
    if key != "total_variation":
        assert phi.to_energy(CRITICS.float()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_and_vanishing_ratios_of_the_gan(dtype):
    u = torch.tensor([0.0, 1e6, 1e8, 1e12, 1e16], dtype=dtype)
    expected = torch.cat([u[:1], -u[1:].log() - 1])  # up to 1/2u
    torch.testing.assert_close(PHI["gan"].phi(u), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(PHI["js"].phi(u), expected + (u + 1) * math.log(2), rtol=1e-6, atol=0)


def test_pearson_below_its_support_and_its_floor():
    t = torch.tensor([-2.0, -3.0, -100.0], dtype=torch.float64)
    assert (PHI["pearson"].conjugate(t) == -1).all() and (gradient(PHI["pearson"].conjugate, t - 1) == 0).all()
    assert torch.isfinite(PHI["pearson"].to_energy(t)).all()


def test_jeffreys_far_out():
    v = torch.tensor([-1e30, -1e6, -50.0, 50.0, 1e6, 1e30])
    energy = PHI["jeffreys"].to_energy(v)
    torch.testing.assert_close(energy[:3], (1 - v[:3]).log(), rtol=0.1, atol=0)
    torch.testing.assert_close(energy[3:], 1 - v[3:])
    assert torch.isfinite(gradient(PHI["jeffreys"].to_energy, v)).all()
    a = torch.linspace(-40, 40, 801, dtype=torch.float64)
    root = _log_lambert(a)
    torch.testing.assert_close(root.exp() + root, a, rtol=1e-14, atol=1e-14)
    assert torch.autograd.gradcheck(_log_lambert, (a[::50].clone().requires_grad_(),))
    assert torch.autograd.gradgradcheck(_log_lambert, (a[200:600:50].clone().requires_grad_(),))


def test_total_variation_has_no_log_ratio():
    for function in (PHI["total_variation"].to_energy, PHI["total_variation"].log_ratio):
        with pytest.raises(UserError, match="calibrated"):
            function(torch.zeros(3))
