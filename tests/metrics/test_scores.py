"""Scores against independent formulas; the shipped extractor against the data it is for."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from gebm_lightning import UserError
from gebm_lightning.config import compose, instantiate
from gebm_lightning.metrics import Digits, Identity, Scorer
from gebm_lightning.metrics.compare import compare, real_scorers
from gebm_lightning.metrics.curve import sampling_curve
from gebm_lightning.metrics.features import extract
from gebm_lightning.metrics.scores import inception_score
from gebm_lightning.metrics.train_digits import accuracy
from gebm_lightning.samplers import SIR, ULA, LatentSampler


def two_samples(n=400, d=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x @ torch.diag(torch.linspace(0.5, 2, d, dtype=torch.float64)) + 0.3, torch.randn(
        n, d, generator=generator, dtype=torch.float64
    )


def test_fid_is_the_frechet_distance():
    x, y = (t.numpy() for t in two_samples())
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert Scorer("test", torch.from_numpy(y)).fid(torch.from_numpy(x)) == pytest.approx(expected, rel=1e-6)


def test_kid_is_the_mean_of_unbiased_cubic_mmds():
    x, y = two_samples(60)
    scores = Scorer("test", y, seed=3, kid_subsets=2, kid_subset_size=1000)(x)
    rng, values = np.random.RandomState(3), []
    for _ in range(2):
        a, b = (t[rng.choice(60, 30, replace=False)] for t in (x, y))
        kernel = lambda s, t: (s @ t.T / 6 + 1) ** 3  # noqa: E731
        total = -2 * kernel(a, b).mean().item()
        for i in range(30):
            for j in range(30):
                if i != j:
                    total += (kernel(a, a)[i, j] + kernel(b, b)[i, j]).item() / (30 * 29)
        values.append(total)
    assert scores["kid"] == pytest.approx(np.mean(values), rel=1e-6)
    assert scores["kid_std"] == pytest.approx(np.std(values), rel=1e-6) and scores["kid_std"] > 0


def test_precision_and_recall_by_nearest_neighbours():
    x, y = two_samples(80, 2)
    x = 0.2 * x
    scores = Scorer("test", y)(x)

    def covered(points, support):
        radius = torch.cdist(support, support).sort(1).values[:, 3]
        return (torch.cdist(points, support) <= radius).any(1).double().mean().item()

    assert scores["precision"] == pytest.approx(covered(x, y)) and scores["recall"] == pytest.approx(covered(y, x))
    assert scores["recall"] < scores["precision"]


def test_the_digits_extractor_knows_held_out_digits():
    network = Digits()
    assert accuracy(network, "test") >= 0.97 and accuracy(network, "val") >= 0.97
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_the_digits_extractor_sees_the_same_at_twice_the_size():
    from gebm_lightning.data import Digits as Data
    from gebm_lightning.data.batch import to_unit

    small, large = Data(8).split("test").x, Data(16).split("test").x
    torch.testing.assert_close(Digits()(to_unit(small)), Digits()(to_unit(large)))


@pytest.mark.parametrize("make", ["missing", "other", "text"])
def test_missing_and_foreign_weights_are_named(tmp_path, make):
    import safetensors.torch

    path = tmp_path / "w.safetensors"
    if make == "other":
        safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    if make == "text":
        path.write_text("no weights")
    with pytest.raises(UserError, match=str(path)):
        Digits(path)


def test_images_are_scored_as_stored():
    x = torch.rand(10, 1, 8, 8) * 2 - 1
    rounded = ((x * 127.5 + 127.5).round() / 127.5 - 1).clamp(-1, 1)
    torch.testing.assert_close(extract(Digits(), [x]), extract(Digits(), [rounded]))
    assert extract(Identity(), [torch.rand(5, 2)]).shape == (5, 2)


def test_a_comparison_starts_from_the_same_latents(gebm):
    data = instantiate(compose().data)
    features = Digits()
    scorers = real_scorers(data, features, ["train", "test"], 0)
    still = LatentSampler(ULA(1e-2), num_steps=0)
    rows = compare(gebm, {"still": still, "sir": SIR(pool=200)}, features, scorers, 128, 0)
    assert [row["method"] for row in rows] == ["base", "still", "sir"]
    for split in ("train", "test"):
        assert rows[0]["scores"][split]["relative_fid"] == 1
        assert rows[1]["scores"][split]["relative_fid"] == pytest.approx(1, rel=1e-4)
        assert rows[2]["scores"][split]["relative_fid"] != 1
    curve = sampling_curve(gebm, LatentSampler(ULA(1e-2)), features, scorers, 128, 0, [2, 3])
    three = compare(gebm, {"three": LatentSampler(ULA(1e-2), num_steps=3)}, features, scorers, 128, 0)[1]
    assert curve["step"] == [0, 2, 3] and curve["test"][0] == 1
    assert curve["test"][2] == pytest.approx(three["scores"]["test"]["relative_fid"], rel=1e-4)


def test_a_perfect_sample_has_a_small_fid():
    generator = torch.Generator().manual_seed(0)
    n, d = 20_000, 4
    x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    # E FID of two samples of one Gaussian is about (d + d(d+1)/4) · 2/(2n) · 2.
    assert 0 <= Scorer("test", y).fid(x) < 5 * (d + d * (d + 1) / 4) * 2 / n
    assert math.isfinite(Scorer("test", y[:10])(x[:10])["kid"])


def test_inception_score_by_its_definition():
    logits = 3 * torch.randn(60, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(1)
    marginal = p.mean(0)
    expected = math.exp(sum((row * (row / marginal).log()).sum().item() for row in p) / 60)
    mean, std = inception_score(logits, splits=1)
    assert mean == pytest.approx(expected, rel=1e-9) and std == 0
    assert inception_score(torch.zeros(20, 5))[0] == pytest.approx(1)
    # One sure and different class each: as many as there are classes in a split.
    assert inception_score(1000 * torch.eye(5).repeat(4, 1), splits=1)[0] == pytest.approx(5)


def test_scores_within_classes():
    x, y = two_samples(40)
    mine, theirs = torch.arange(40) % 3, torch.arange(40) % 4
    scores = Scorer("test", y, labels=theirs).by_class(x, mine)
    assert sorted(scores) == [0, 1, 2]
    for k, found in scores.items():
        alone = Scorer("test", y[theirs == k])(x[mine == k])
        assert found == alone | {"num_generated": (mine == k).sum().item(), "num_real": 10}
    few = Scorer("test", y, labels=torch.tensor([0] * 37 + [1] * 3)).by_class(x, torch.tensor([0] * 20 + [1] * 20))
    assert sorted(few) == [0]
