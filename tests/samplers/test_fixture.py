"""A WGAN-GP of 25 Gaussians that was trained elsewhere, refined by exact chains: rows known by importance sampling."""

import os
from pathlib import Path

import pytest
import torch

from gebm_lightning import build, compose
from gebm_lightning.data.toys import gaussian_grid_modes
from gebm_lightning.metrics.modes import mode_histogram, total_variation
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import (
    HMC,
    IMH,
    MALA,
    DualAveraging,
    LatentSampler,
    ParallelTempering,
    ais_log_z,
    effective_sample_size,
    split_rhat,
)

PATH = Path(os.environ.get("GEBM_FIXTURES", ".")) / "wgan_gp_25gaussians.npz"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PATH.is_file(), reason=f"GEBM_FIXTURES names no folder with {PATH.name}"),
]
# s: share of high quality, E[x], log Z.
EXACT = {1.0: (0.452, (0.181, 0.093), 0.500), 2.9: (0.567, (0.437, 0.254), 1.667)}
MEANS, SIGMA = gaussian_grid_modes()


def wgan():
    mlp = "gebm_lightning.networks.external:mlp"
    overrides = ["model=external", "data=gaussian_grid", "model.latent_dim=2", "model.energy.convention=wasserstein"]
    overrides += ["model.prior._target_=gebm_lightning.priors.Uniform"]
    for part, prefix, sizes in (("base", "generator.", "2,256,256,256,2"), ("energy", "critic.", "2,512,512,512,1")):
        overrides += [f"model.{part}.builder={mlp}", f"model.{part}.arguments={{sizes:[{sizes}]}}"]
        overrides += [f"model.{part}.weights={PATH}", f"model.{part}.prefix={prefix}", f"model.{part}.match=order"]
    return build(compose(overrides)).eval()


@pytest.fixture(scope="module")
def gebm():
    return wgan()


@pytest.fixture(scope="module")
def reference(gebm):
    """The 25 masses of high-quality samples under e^{s·d}·p_G, by 200,000 weighted draws."""
    xs, energies = [], []
    with torch.no_grad():
        for start in range(0, 200_000, 8192):
            xs.append(gebm.sample_base(8192, BlockNoise(9).shifted(start)))
            energies.append(gebm.energy(xs[-1]).double())
    x, energy = torch.cat(xs), torch.cat(energies)
    return {s: mode_histogram(x, MEANS, SIGMA, weights=torch.softmax(-s * energy, 0)) for s in EXACT}


def ladder(s):
    return ParallelTempering(MALA(0.03), [0.0, 0.3 * s, s], swap_every=2)


# Kernel, target acceptance of its tuning, chains, steps, thinning.
RUNS = {
    ("imh", 1.0): (lambda s: IMH(), None, 256, 600, 2),
    ("imh", 2.9): (lambda s: IMH(), None, 256, 1000, 2),
    ("mala", 1.0): (lambda s: MALA(0.03), 0.574, 128, 9000, 5),
    ("mala bf16", 1.0): (lambda s: MALA(0.03), 0.574, 128, 9000, 5),
    ("hmc", 1.0): (lambda s: HMC(0.1, 5), 0.651, 256, 2300, 2),
    # Barriers are high here: long strides that are mostly refused mix best, and still take minutes.
    ("mala", 2.9): (lambda s: MALA(0.03), 0.3, 128, 22_000, 10),
    ("hmc", 2.9): (lambda s: HMC(0.1, 2), 0.35, 128, 26_000, 10),
    ("tempering", 1.0): (ladder, 0.574, 192, 1200, 1),
    ("tempering", 2.9): (ladder, 0.574, 192, 1200, 1),
}


@pytest.mark.parametrize(("name", "s"), RUNS)
def test_chains_reach_the_exact_rows(gebm, reference, name, s):
    make, target, chains, steps, thin = RUNS[name, s]
    tuning = None if target is None else DualAveraging(target, 200)
    precision = "bf16-mixed" if name.endswith("bf16") else "32-true"
    sampler = LatentSampler(
        make(s), beta=s, num_steps=steps, warmup=steps // 10, thin=thin, tuning=tuning, precision=precision
    )
    trace = sampler.refine(gebm, chains, BlockNoise(1)).info["trace"]
    with torch.no_grad():
        x = gebm.base(trace.flatten(0, 1))
    nearest = torch.cdist(x, MEANS).argmin(1).view(trace.shape[:2])
    # The masses of the centre and of the four corners, as functions along the chains.
    masses = torch.stack([(nearest == k).float() for k in (0, 4, 12, 20, 24)], 2)
    along = torch.cat([x.view(*trace.shape[:2], 2), masses], 2)
    assert split_rhat(along).max() < 1.01
    assert effective_sample_size(along[:, :, :2]).min() > 20_000
    share, mean, _ = EXACT[s]
    histogram = mode_histogram(x, MEANS, SIGMA)
    assert abs(histogram.sum().item() - share) < 0.015
    assert (x.mean(0) - torch.tensor(mean)).abs().max() < 0.03
    assert total_variation(histogram, reference[s]) < 0.03


@pytest.mark.parametrize("s", EXACT)
def test_ais_finds_log_z(gebm, s):
    log_z, error = ais_log_z(gebm, 4000, [s * k / 30 for k in range(1, 31)], HMC(0.05, 3), BlockNoise(3))
    assert abs(log_z - EXACT[s][2]) < 0.02 and error < 0.01
