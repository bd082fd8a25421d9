"""Real images and real Inception weights, where `GEBM_REAL_DATA` names a folder that has them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm_lightning.cli import evaluate, sample, train

REAL = Path(os.environ.get("GEBM_REAL_DATA", "/nowhere"))
WEIGHTS = REAL / "inception-2015-12-05-nofc.pth"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.is_file(), reason="GEBM_REAL_DATA names no folder with data and Inception weights"),
]


def cli(smoke):
    """The smoke overrides without those of evaluation, and few samples at the end."""
    return [
        *(s for s in smoke if not s.startswith(("callbacks.evaluation.num", "callbacks.evaluation.curve"))),
        f"features.weights={WEIGHTS}",
        "callbacks.evaluation.num_samples=16",
        "callbacks.evaluation.max_real=16",
        "callbacks.evaluation.splits=[test]",
        "callbacks.evaluation.curve_steps=[]",
    ]


class Images(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]).permute(2, 0, 1)


@pytest.mark.parametrize("model", ["sngan", "resnet"])
def test_cifar10_trains_and_is_scored_as_by_torch_fidelity(command, smoke, tmp_path, model):
    torch_fidelity = pytest.importorskip("torch_fidelity")
    status, _, err = command(
        train, *cli(smoke), "data=npz", f"data.path={REAL / 'cifar10.npz'}", f"model={model}", "run_dir=run"
    )
    assert status == 0, err
    if model == "resnet":
        return
    assert (
        command(
            evaluate,
            "ckpt=run",
            "compare=[base]",
            "num_samples=256",
            "max_real=256",
            "splits=[test]",
            "scores.kid_subset_size=100",
            "out=scores.json",
        )[0]
        == 0
    )
    assert command(sample, "ckpt=run", "sampler=base", "num_samples=256", "out=x.npz")[0] == 0
    ours = json.loads((tmp_path / "scores.json").read_text())["rows"][0]["scores"]["test"]
    order = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:256].numpy()
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(np.load(tmp_path / "x.npz")["x"]),
        input2=Images(np.load(REAL / "cifar10.npz")["test_x"][order]),
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=100,
        rng_seed=0,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(WEIGHTS),
        cuda=False,
        verbose=False,
    )
    assert ours["fid_inception"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert ours["precision"] == theirs["precision"] and ours["recall"] == theirs["recall"]


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist"])
def test_torchvisions_layout(command, smoke, data):
    status, _, err = command(train, *cli(smoke), f"data={data}", f"data.root={REAL}", "data.size=16", "run_dir=run")
    assert status == 0, err
    rows = json.loads(Path("run/summary.json").read_text())["rows"]
    assert all(np.isfinite(row["scores"]["test"]["fid_inception"]) for row in rows)


def test_inception_score_with_a_classifier(tmp_path):
    """With weights that have one, equal to torch-fidelity's; the classifier here is a random matrix."""
    import torch_fidelity

    from gebm_lightning.metrics import Inception
    from gebm_lightning.metrics.features import extract
    from gebm_lightning.metrics.scores import inception_score

    weights = torch.load(WEIGHTS, weights_only=True)
    weights["fc.weight"] = torch.randn(weights["fc.weight"].shape, generator=torch.Generator().manual_seed(0))
    torch.save(weights, tmp_path / "w.pth")
    x = np.load(REAL / "cifar10.npz")["test_x"][:40]
    network = Inception(tmp_path / "w.pth")
    features = extract(network, [torch.from_numpy(x).permute(0, 3, 1, 2)])
    logits = network.logits(features)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(x),
        isc=True,
        isc_splits=5,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(tmp_path / "w.pth"),
        cuda=False,
        verbose=False,
    )
    mean, std = inception_score(logits, seed=2020, splits=5)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-3)
