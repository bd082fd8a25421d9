"""torch-fidelity's other extractors, on random weights in the formats that they come in."""

import os
from urllib.error import URLError

import pytest
import torch
from torch import nn

from gebm_lightning import UserError
from gebm_lightning.config import compose, instantiate
from gebm_lightning.metrics import Fidelity
from gebm_lightning.metrics.fidelity import _cached


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub"


def check(extractor, width):
    """What is promised of every extractor."""
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = extractor(x)
    assert features.shape == (2, width) and torch.isfinite(features).all()
    torch.testing.assert_close(extractor(x.expand(-1, 3, -1, -1)), features)
    assert (features[0] != features[1]).any() and len(extractor.digest) == 16 and extractor.costly
    with pytest.raises(UserError, match="grey or RGB"):
        extractor(torch.zeros(2, 2))


class Clip(nn.Module):
    """What the authors' archive holds besides the image encoder does not matter; the encoder's sizes are read from it."""

    def __init__(self):
        super().__init__()
        from torch_fidelity.feature_extractor_clip import VisionTransformer

        self.visual = VisionTransformer(input_resolution=32, patch_size=16, width=64, layers=1, heads=1, output_dim=12)
        self.text_projection = nn.Parameter(torch.zeros(3, 12))

    def forward(self, x):
        return self.visual(x) + 0 * self.text_projection.sum()


@pytest.mark.filterwarnings("ignore")
def test_clip(hub):
    torch.manual_seed(0)
    torch.jit.save(torch.jit.trace(Clip().eval(), torch.zeros(1, 3, 32, 32)), str(_cached("clip-vit-b-32")))
    extractor = instantiate(compose(["features=clip"]).features)
    check(extractor, 12)
    assert extractor.name == "clip-vit-b-32"
    torch.manual_seed(1)
    torch.jit.save(torch.jit.trace(Clip().eval(), torch.zeros(1, 3, 32, 32)), str(_cached("clip-vit-b-32")))
    assert Fidelity("clip-vit-b-32").digest != extractor.digest


@pytest.mark.slow
def test_vgg16(hub):
    import torchvision

    with torch.device("meta"):
        network = torchvision.models.vgg16()
    generator = torch.Generator().manual_seed(0)
    weights = {k: 0.02 * torch.randn(v.shape, generator=generator) for k, v in network.state_dict().items()}
    torch.save(weights, _cached("vgg16"))
    check(instantiate(compose(["features=vgg16"]).features), 4096)


def test_dinov2_runs_its_authors_code_and_so_must_be_allowed(hub, monkeypatch):
    repository = hub / "facebookresearch_dinov2_main"
    repository.mkdir()
    (repository / "hubconf.py").write_text(
        "import torch\n\n\ndef dinov2_vitb14():\n"
        "    return torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Flatten(), torch.nn.Linear(48, 7))\n"
    )
    with pytest.raises(UserError, match=r"features\.download=true"):
        Fidelity("dinov2-vit-b-14")

    def offline(*args, **kwargs):
        raise URLError("no network in tests")

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    torch.manual_seed(0)
    check(instantiate(compose(["features=dinov2", "features.download=true"]).features), 7)


@pytest.mark.parametrize("extractor", ["vgg16", "clip-vit-l-14"])
def test_missing_weights_are_named_and_not_fetched(hub, extractor):
    with pytest.raises(UserError, match=r"features\.download=true"):
        Fidelity(extractor)


@pytest.mark.parametrize("extractor", ["vgg16", "clip-vit-b-32"])
def test_damaged_weights(hub, extractor):
    _cached(extractor).write_bytes(b"no weights")
    with pytest.raises(UserError, match=extractor):
        Fidelity(extractor)


def test_weights_run_no_code(hub, tmp_path):
    import pickle

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "broken-in"),)

    _cached("vgg16").write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match="vgg16"):
        Fidelity("vgg16")
    assert not (tmp_path / "broken-in").exists()


def test_unknown_extractor():
    with pytest.raises(UserError, match="dinov2-vit-b-14"):
        Fidelity("resnet-50")
