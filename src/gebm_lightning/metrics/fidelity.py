"""The other extractors that torch-fidelity has: VGG16, CLIP's and DINOv2's image encoders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import to_uint8
from ..errors import UserError, first_line


class Fidelity(nn.Module):
    """Features of one of torch-fidelity's extractors, in the layer that it takes for FID, KID, precision and recall.

    Args:
        extractor: torch-fidelity's name of it: "vgg16", "clip-vit-b-32", "dinov2-vit-b-14", …
        download: fetch the weights if torch.hub's cache has none. DINOv2 comes with its authors' code, which torch.hub
            fetches and runs; so it always asks for this.

    Raises:
        UserError: there is no such extractor, or its weights are missing or damaged.
    """

    costly = True
    resize = "bytes, TensorFlow 1's bilinear to the extractor's own size"

    def __init__(self, extractor: str, download: bool = False) -> None:
        super().__init__()
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as REGISTRY

        known = [name for name in REGISTRY if name.startswith(("vgg16", "clip-", "dinov2-"))]
        if extractor not in known:
            raise UserError(f"features.extractor={extractor}: torch-fidelity has {', '.join(known)}")
        kind: Any = REGISTRY[extractor]
        if not download:
            if extractor.startswith("dinov2-"):
                raise UserError(
                    f"features.extractor={extractor} runs code that torch.hub fetches: allow it with features.download=true"
                )
            path = _cached(extractor)
            if not path.is_file():
                raise UserError(
                    f"the weights of {extractor} are not at {path}: put them there, or take features.download=true"
                )
        try:
            if extractor == "vgg16" and _cached(extractor).is_file():
                # Read once without running any code of it: torch-fidelity's way would unpickle anything.
                torch.load(_cached(extractor), map_location="cpu", weights_only=True, mmap=True)
            self.network = kind(extractor, [kind.get_default_feature_layer_for_metric("fid")], verbose=False).eval()
        except Exception as error:
            raise UserError(f"the weights of {extractor} cannot be had: {first_line(error)}") from error
        self.name = extractor
        digest = hashlib.sha256()
        for key, value in sorted(self.network.state_dict().items()):
            digest.update(key.encode() + value.numpy().tobytes())
        self.digest = digest.hexdigest()[:16]

    def forward(self, x: Tensor) -> Tensor:
        """(n, f) features of images (n, 1 or 3, H, W) in [−1, 1]; grey is replicated to RGB.

        Raises:
            UserError: the data are no such images.
        """
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise UserError(
                f"features.extractor={self.name} scores grey or RGB images, not data of shape {tuple(x.shape[1:])}"
            )
        return self.network(to_uint8(x).expand(-1, 3, -1, -1))[0].flatten(1)


def _cached(extractor: str) -> Path:
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA
    from torchvision.models import VGG16_Weights

    if extractor == "vgg16":
        name = VGG16_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    else:
        name = f"{extractor}-{MODEL_METADATA[extractor]['hash']}.pt"
    return Path(torch.hub.get_dir()) / "checkpoints" / name
