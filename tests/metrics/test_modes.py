"""Mode scores against hand-made samples and against the published rows of a GAN trained elsewhere."""

import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch

from gebm_lightning import UserError, build, compose
from gebm_lightning.data import Toy
from gebm_lightning.data.toys import gaussian_grid, pacgan_grid, ring, swiss_roll, three_rings
from gebm_lightning.gebm import estimate_log_partition
from gebm_lightning.metrics.modes import jensen_shannon, mode_histogram, mode_scores, total_variation, wasserstein1_2d
from gebm_lightning.networks.external import check
from gebm_lightning.noise import BlockNoise

MLP = "gebm_lightning.networks.external:mlp"


@pytest.mark.parametrize(
    ("law", "k", "sigma"), [(gaussian_grid, 25, 0.05 / 2.828), (pacgan_grid, 25, 0.05), (ring, 8, 0.01)]
)
def test_toys_know_their_modes(law, k, sigma):
    means, given = Toy(partial(law)).modes
    assert means.shape == (k, 2) and given == pytest.approx(sigma)
    x = Toy(law, num_train=20_000).split("train").x
    scores = mode_scores(x, means, given)
    assert scores["high_quality"] == pytest.approx(1 - math.exp(-8), abs=1e-3)
    assert scores["modes"] == k and scores["mode_js"] < 1e-3
    nearest = means[torch.cdist(x, means).argmin(1)]
    assert (x - nearest).std().item() == pytest.approx(sigma, rel=0.02)


def test_other_toys_have_none():
    assert Toy(swiss_roll).modes is None and Toy(three_rings).modes is None


def test_scores_of_samples_made_by_hand():
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.0, 0.01], [0.039, 0.0], [1.0, 0.041], [1.03, 0.0], [0.5, 0.5], [math.nan, 0.0]])
    histogram = mode_histogram(x, means, 0.01)
    torch.testing.assert_close(histogram, torch.tensor([2 / 6, 1 / 6, 0.0], dtype=torch.float64))
    scores = mode_scores(x, means, 0.01)
    p, m = (2 / 3, 1 / 3, 0), (1 / 2, 1 / 3, 1 / 6)
    js = 0.5 * sum(a * math.log(a / b) for a, b in zip(p, m, strict=True) if a) + 0.5 * sum(
        math.log(1 / (3 * b)) / 3 for b in m
    )
    # By the nearest mean, however far: 3 at the first (a tie among them), 2 at the second; the NaN is nowhere.
    kl = 0.6 * math.log(3 * 0.6) + 0.4 * math.log(3 * 0.4)
    expected = {"high_quality": 0.5, "modes": 2, "mode_js": js, "mode_reverse_kl": kl}
    assert scores == {key: pytest.approx(value) for key, value in expected.items()}
    assert mode_scores(x, means, 0.01, weights=torch.tensor([0, 0, 0, 1.0, 1.0, 0]))["high_quality"] == 0.5
    far = mode_scores(torch.full((2, 2), math.nan), means, 0.01)
    assert far == {"high_quality": 0, "modes": 0, "mode_js": math.log(2), "mode_reverse_kl": math.log(3)}
    for wrong in (torch.zeros(3, 3), torch.zeros(0, 2), torch.zeros(2)):
        with pytest.raises(UserError, match="modes in 2 dimensions"):
            mode_scores(wrong, means, 0.01)


def test_distances_of_histograms():
    p, q = torch.tensor([1.0, 3.0, 0.0]), torch.tensor([0.0, 0.0, 2.0])
    assert total_variation(p, q) == pytest.approx(1) and jensen_shannon(p, q) == pytest.approx(math.log(2))
    assert total_variation(p, 4 * p) == 0 and jensen_shannon(p, 4 * p) == pytest.approx(0)
    assert total_variation(p, torch.tensor([2.0, 2.0, 0.0])) == pytest.approx(0.25)


def test_the_wasserstein_distance_is_exact():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator)
    assert wasserstein1_2d(x, x.flip(0)) == pytest.approx(0, abs=1e-9)
    assert wasserstein1_2d(x, x + torch.tensor([3.0, 4.0])) == pytest.approx(5, rel=1e-6)
    line, other = torch.zeros(100, 2), torch.zeros(100, 2)
    line[:, 0], other[:, 0] = torch.randn(100, generator=generator), 1 + torch.randn(100, generator=generator)
    expected = (line[:, 0].sort().values - other[:, 0].sort().values).abs().mean().item()
    assert wasserstein1_2d(line, other) == pytest.approx(expected, rel=1e-6)
    assert wasserstein1_2d(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, 1.0]])) == pytest.approx(1)
    assert wasserstein1_2d(torch.cat([x, x + 9]), x, n=300) == pytest.approx(0, abs=1e-9)
    with pytest.raises(UserError, match="finite points"):
        wasserstein1_2d(x, x * math.nan)


def wgan(scale):
    folder = os.environ.get("GEBM_FIXTURES")
    if folder is None or not (Path(folder) / "wgan_gp_25gaussians.npz").is_file():
        pytest.skip("GEBM_FIXTURES names no folder with wgan_gp_25gaussians.npz")
    overrides = ["model=external", "data=gaussian_grid", "model.latent_dim=2"]
    overrides += ["model.prior._target_=gebm_lightning.priors.Uniform", "model.energy.convention=wasserstein"]
    for part, prefix, sizes in (
        ("base", "generator.", [2, 256, 256, 256, 2]),
        ("energy", "critic.", [2, 512, 512, 512, 1]),
    ):
        overrides += [f"model.{part}.builder={MLP}", f"+model.{part}.arguments.sizes={sizes}".replace(" ", "")]
        overrides += [f"model.{part}.weights={folder}/wgan_gp_25gaussians.npz", f"model.{part}.prefix={prefix}"]
        overrides += [f"model.{part}.match=order"]
    gebm = build(compose([*overrides, f"model.energy.scale={scale}"])).eval()
    check(gebm)
    return gebm


@pytest.fixture(scope="module")
def pool():
    """300,000 draws of the generator and the critic's log-ratio at scale 1."""
    gebm = wgan(1.0)
    xs, ratios = [], []
    with torch.no_grad():
        for start in range(0, 300_000, 8192):
            x = gebm.sample_base(min(8192, 300_000 - start), BlockNoise(0).shifted(start))
            xs.append(x)
            ratios.append(-gebm.energy(x).double())
    return torch.cat(xs), torch.cat(ratios)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "high_quality", "js", "log_z", "mean"),
    [
        (0.0, 0.384, 0.033, 0.0, (0.013, 0.023)),
        (1.0, 0.452, 0.036, 0.500, (0.181, 0.093)),
        (2.9, 0.567, 0.066, 1.667, (0.437, 0.254)),
    ],
)
def test_a_gan_from_elsewhere_has_its_published_rows(pool, scale, high_quality, js, log_z, mean):
    x, ratio = pool
    weights = torch.softmax(scale * ratio, 0)
    scores = mode_scores(x, *Toy(gaussian_grid).modes, weights=weights)
    assert scores["high_quality"] == pytest.approx(high_quality, abs=3e-3)
    assert scores["mode_js"] == pytest.approx(js, abs=2e-3)
    log_mean = (torch.logsumexp(scale * ratio, 0) - math.log(len(x))).item()
    assert log_mean == pytest.approx(log_z, abs=8e-3)
    torch.testing.assert_close((weights[:, None] * x).sum(0), torch.tensor(mean).double(), atol=6e-3, rtol=0)
    gebm = wgan(scale)
    torch.testing.assert_close(gebm.energy(x[:100]).double(), -scale * ratio[:100], atol=1e-4, rtol=1e-4)
    estimate = estimate_log_partition(gebm, BlockNoise(1), num_samples=20_000)
    assert estimate.item() == pytest.approx(log_z, abs=0.05)
