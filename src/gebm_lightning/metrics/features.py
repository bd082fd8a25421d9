"""Feature extractors: modules with a name and the hash of their weights, from data to features (n, f)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.batch import to_uint8, to_unit
from ..errors import UserError, first_line

DIGITS_WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"


class Identity(nn.Module):
    """The data themselves, flattened: for toys in two dimensions."""

    name = "identity"
    digest = "none"
    resize = "none"

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Digits(nn.Module):
    """64 features of a small convolutional classifier of scikit-learn's digits, trained on their train split only.

    Args:
        weights: a safetensors file as `python -m gebm_lightning.metrics.train_digits` writes it; None for the one that
            comes with the package, or False for untrained weights.

    Raises:
        UserError: the file is missing or of another network.
    """

    name = "digits"
    digest = "untrained"
    resize = "bytes, averaged to 8 pixels"

    def __init__(self, weights: str | Path | bool | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 10)
        if weights is not False:
            self._load(Path(weights) if isinstance(weights, (str, Path)) else DIGITS_WEIGHTS)
        self.eval().requires_grad_(False)

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"the digits classifier's weights are not at {path}: make them with "
                f"`python -m gebm_lightning.metrics.train_digits {path}`, or set features.weights=null for those of the package"
            )
        try:
            self.load_state_dict(safetensors.torch.load_file(path))
        except Exception as error:
            raise UserError(
                f"{path} does not hold the weights of the digits classifier: {first_line(error)}"
            ) from error
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1 or x.shape[2] % 8:
            raise UserError(
                f"features=digits scores grey images of 8 pixels or a multiple, not shape {tuple(x.shape[1:])}"
            )
        return self.features(F.avg_pool2d(x, x.shape[2] // 8))

    def class_scores(self, features: Tensor) -> Tensor:
        """(n, 10) class scores of features (n, 64), as of `extract`."""
        return self.head(features.to(self.head.weight)).cpu()

    def logits(self, x: Tensor) -> Tensor:
        """(n, 10) class scores of images (n, 1, 8k, 8k) in [−1, 1]."""
        return self.head(self(x))


@torch.no_grad()
def extract(features: nn.Module, batches: Iterable[Tensor], device: torch.device | str = "cpu") -> Tensor:
    """(n, f) float64 features of batches of data, on the CPU; images are rounded to bytes first, as they would be stored."""
    parts = []
    for x in batches:
        x = to_unit(to_uint8(x)) if x.dim() == 4 else x
        parts.append(features(x.to(device, torch.float32)).double().cpu())
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)
