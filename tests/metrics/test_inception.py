"""The Inception extractor: its errors, its cache, and with real weights the figures of torch-fidelity."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import metric_fid

from gebm_lightning import UserError
from gebm_lightning.data import ImageDataModule, Npz
from gebm_lightning.data.batch import to_unit
from gebm_lightning.metrics import Inception, Scorer
from gebm_lightning.metrics import scores as scores_module
from gebm_lightning.metrics.compare import real_scorers
from gebm_lightning.metrics.features import extract
from gebm_lightning.metrics.kept import Kept
from gebm_lightning.metrics.reference import real_features
from gebm_lightning.metrics.scores import density_and_coverage

REAL = Path(os.environ.get("GEBM_REAL_DATA", "/nowhere"))
WEIGHTS = REAL / "inception-2015-12-05-nofc.pth"
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="GEBM_REAL_DATA names no folder with the Inception weights"
)


@pytest.mark.parametrize("kind", ["missing", "other", "text", "code"])
def test_weights_that_are_not_right(tmp_path, kind):
    path = tmp_path / "weights.pth"
    if kind == "other":
        torch.save({"a": torch.zeros(2)}, path)
    if kind == "text":
        path.write_text("no weights")
    if kind == "code":
        import pickle

        class Code:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "broken-in"),)

        path.write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match=str(path)):
        Inception(path)
    assert not (tmp_path / "broken-in").exists()


def test_without_weights_nothing_is_fetched_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"features\.download=true"):
        Inception()


def test_density_and_coverage_by_loops():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, generator=generator).double(), torch.randn(30, 3, generator=generator).double()
    inside, covered = 0, set()
    for j in range(30):
        radius = sorted((y[j] - other).norm().item() for other in y)[5]
        for i in range(40):
            if (x[i] - y[j]).norm().item() < radius:
                inside += 1
                covered.add(j)
    assert density_and_coverage(x, y) == pytest.approx({"density": inside / (5 * 40), "coverage": len(covered) / 30})


class Counting(torch.nn.Module):
    """A costly extractor that counts what it sees."""

    name, digest, costly = "counting", "0", True

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return x.flatten(1)[:, :4]


def test_the_real_side_is_extracted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GEBM_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=generator.integers(0, 256, (50, 8, 8), dtype=np.uint8))
    features = Counting()

    def get(name, split, **settings):
        return real_features(
            ImageDataModule(Npz(str(tmp_path / f"{name}.npz"), 8, num_val=5), [1, 8, 8]), features, split, **settings
        )

    first = get("a", "train")
    assert features.seen == 40
    assert torch.equal(get("a", "train"), first) and features.seen == 40
    get("a", "test"), get("b", "train"), get("a", "train", max_real=10)
    assert features.seen == 40 + 5 + 40 + 10
    for file in (tmp_path / "cache").rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(get("a", "train"), first) and features.seen == 40 + 5 + 40 + 10 + 40


def test_a_second_evaluation_does_no_work_on_the_real_set(tmp_path, monkeypatch):
    monkeypatch.setenv("GEBM_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8))
    generated, features = torch.rand(30, 4, dtype=torch.float64), Counting()
    seen = []

    def evaluate():
        data = ImageDataModule(Npz(str(tmp_path / "a.npz"), 8, num_val=5), [1, 8, 8])
        return real_scorers(data, features, ["train"], 0, kid_subsets=2)["train"](generated)

    first = evaluate()
    for module, name in ((metric_fid, "fid_features_to_statistics"), (scores_module, "neighbour_radii")):
        work = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, *rest, work=work: seen.append(len(x)) or work(x, *rest))
    assert evaluate() == first and features.seen == 40
    assert seen == [30], "moments of the generated samples alone"
    for file in (tmp_path / "cache").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:50])
    assert evaluate() == first and sorted(seen[1:]) == [30, 30, 40]


def test_a_cache_that_cannot_be_written_ends_no_evaluation(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    arrays = Kept(tmp_path / "file" / "a.npy").get("moments", lambda: {"mu": np.zeros(2)}, ("mu",))
    assert arrays["mu"].shape == (2,) and "cannot be kept for the next evaluation" in capsys.readouterr().err
    kept = Kept(tmp_path / "b.npy")
    assert kept.get("moments", lambda: {"mu": np.zeros(2)}, ("mu",))["mu"].shape == (2,)
    assert kept.get("moments", lambda: {"mu": np.ones(2)}, ("mu",))["mu"].sum() == 0
    assert kept.get("moments", lambda: {"sigma": np.ones(2)}, ("sigma",))["sigma"].sum() == 2, "a file without the key"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.moments.npz", "file"]


@pytest.mark.slow
@needs_weights
def test_cifar10_figures_of_torch_fidelity():
    """400 train against 400 test images of CIFAR-10: FID 89.31, KID −.0001 (10 subsets of 100), precision .697, recall .702."""
    arrays = np.load(REAL / "cifar10.npz")
    network = Inception(WEIGHTS)
    sides = []
    for key in ("train_x", "test_x"):
        x = to_unit(torch.from_numpy(arrays[key][:400]).permute(0, 3, 1, 2))
        sides.append(extract(network, x.split(50)))
    scores = Scorer("inception", sides[1], seed=2020, kid_subsets=10, kid_subset_size=100)(sides[0])
    assert scores["fid_inception"] == pytest.approx(89.31, abs=0.01)
    assert scores["kid"] == pytest.approx(-0.0001, abs=5e-5)
    assert scores["precision"] == pytest.approx(0.697, abs=1e-3) and scores["recall"] == pytest.approx(0.702, abs=1e-3)
    assert network.logits(sides[0]) is None
    grey = torch.rand(2, 1, 32, 32) * 2 - 1
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(UserError, match="grey or RGB"):
        network(torch.zeros(2, 2))
