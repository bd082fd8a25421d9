"""The FID Inception network, as torch-fidelity has it, with weights by path, from torch.hub's cache, or downloaded."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import to_uint8
from ..errors import UserError, first_line

HASH_PREFIX = "6726825d"


class Inception(nn.Module):
    """The 2,048 pooled features of the Inception-v3 of 2015-12-05, over TensorFlow 1's bilinear resize to 299 pixels.

    Args:
        weights: a state dict with torch-fidelity's names; None for torch.hub's cached file.
        download: fetch that file if it is not there.

    Raises:
        UserError: the weights are missing, damaged or of another network.
    """

    name = "inception"
    costly = True
    resize = "bytes, TensorFlow 1's bilinear to 299 pixels"

    def __init__(self, weights: str | Path | None = None, download: bool = False) -> None:
        super().__init__()
        from torch_fidelity import feature_extractor_inceptionv3 as fidelity

        path = Path(weights) if weights is not None else _hub_file(fidelity.URL_INCEPTION_V3, download)
        if not path.is_file():
            raise UserError(
                f"the Inception weights are not at {path.absolute()}: give features.weights=PATH (torch-fidelity's "
                "weights-inception-2015-12-05-6726825d.pth), or features.download=true to fetch them"
            )
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        try:
            self.network = _network(str(path), self.digest)
        except Exception as error:
            raise UserError(
                f"{path} does not hold the weights of torch-fidelity's Inception-v3: {first_line(error)}"
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        """(n, 2048) features of images (n, 1 or 3, H, W) in [−1, 1]; grey is replicated to RGB.

        Raises:
            UserError: the data are no such images.
        """
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise UserError(f"features=inception scores grey or RGB images, not data of shape {tuple(x.shape[1:])}")
        return self.network(to_uint8(x).expand(-1, 3, -1, -1))[0]

    def logits(self, features: Tensor) -> Tensor | None:
        """Class scores without bias, from features (n, 2048); None where the weights have no classifier (all zero)."""
        weight: Any = self.network.fc.weight
        return None if not bool(weight.any()) else features @ weight.to(features).T


@functools.lru_cache(maxsize=1)
def _network(path: str, digest: str) -> Any:
    """The network itself, shared by all that ask for the same file."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    # Read once without running any code of it: torch-fidelity itself would unpickle anything.
    torch.load(path, map_location="cpu", weights_only=True)
    return fidelity.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)


def _hub_file(url: str, download: bool) -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rsplit("/", 1)[1]
    if download and not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{path.name}.{os.getpid()}.tmp"
        try:
            torch.hub.download_url_to_file(url, str(temporary), HASH_PREFIX, progress=False)
            os.replace(temporary, path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the Inception weights cannot be downloaded: {first_line(error)}; give features.weights=PATH"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    return path
