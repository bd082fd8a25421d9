"""Feature extractors: modules with a name and the hash of their weights, from data to features (n, f)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.batch import to_uint8, to_unit
from ..errors import UserError, first_line

WEIGHTS = Path(__file__).parent / "weights"


class Identity(nn.Module):
    """The data themselves, flattened: for toys in two dimensions."""

    name = "identity"
    digest = "none"
    resize = "none"

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Classifier(nn.Module):
    """A small convolutional classifier of grey images in ten classes; its features are the means of its last maps.

    Args:
        weights: a safetensors file as the subclass's trainer writes it; None for the one that comes with the package,
            or False for untrained weights.

    Raises:
        UserError: the file is missing or of another network.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    """Of the weights that come with the package."""
    resize: ClassVar[str]
    trainer: ClassVar[str]
    stages: ClassVar[tuple[tuple[int, ...], ...]]
    digest = "untrained"

    def __init__(self, weights: str | Path | bool | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for number, widths in enumerate(self.stages):
            if number:
                layers.append(nn.MaxPool2d(2))
            for outputs in widths:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inputs, 10)
        if weights is not False:
            self._load(Path(weights) if isinstance(weights, (str, Path)) else self.weights())
        self.eval().requires_grad_(False)

    @classmethod
    def weights(cls) -> Path:
        """The file that comes with the package."""
        return WEIGHTS / cls.file

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"the {self.name} classifier's weights are not at {path}: make them with "
                f"`python -m {self.trainer} {path}`, or set features.weights=null for those of the package"
            )
        try:
            self.load_state_dict(safetensors.torch.load_file(path))
        except Exception as error:
            raise UserError(
                f"{path} does not hold the weights of the {self.name} classifier: {first_line(error)}"
            ) from error
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    def _resized(self, x: Tensor) -> Tensor:
        """Images (n, 1, h, h) at the size that the network was trained on."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self._resized(x))

    def class_scores(self, features: Tensor) -> Tensor:
        """(n, 10) class scores of features (n, f), as of `extract`."""
        return self.head(features.to(self.head.weight)).cpu()

    def logits(self, x: Tensor) -> Tensor:
        """(n, 10) class scores of images (n, 1, h, h) in [−1, 1]."""
        return self.head(self(x))


class Digits(Classifier):
    """64 features of a small convolutional classifier of scikit-learn's digits, trained on their train split only."""

    name = "digits"
    file = "digits.safetensors"
    resize = "bytes, averaged to 8 pixels"
    trainer = "gebm_lightning.metrics.train_digits"
    stages = ((32, 64), (64,))

    def _resized(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1 or x.shape[2] % 8:
            raise UserError(
                f"features=digits scores grey images of 8 pixels or a multiple, not shape {tuple(x.shape[1:])}"
            )
        return F.avg_pool2d(x, x.shape[2] // 8)


class FashionMNIST(Classifier):
    """128 features of a small convolutional classifier of Fashion-MNIST at 16 pixels, trained on its train split only.

    Larger images, such as those of 28 pixels, are brought to 16 by adaptive average pooling.
    """

    name = "fashion_mnist"
    file = "fashion_mnist.safetensors"
    resize = "bytes, averaged to 16 pixels"
    trainer = "gebm_lightning.metrics.train_fashion"
    stages = ((32,), (64,), (128,))

    def _resized(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1 or min(x.shape[2:]) < 16:
            raise UserError(
                f"features=fashion_mnist scores grey images of 16 pixels or more, not shape {tuple(x.shape[1:])}"
            )
        return x if x.shape[2:] == (16, 16) else F.adaptive_avg_pool2d(x, 16)


@torch.no_grad()
def extract(
    features: nn.Module, batches: Iterable[Tensor], device: torch.device | str = "cpu", n: int | None = None
) -> Tensor:
    """(n, f) float64 features of batches of data, on the CPU; images are rounded to bytes first, as they would be stored.

    With `n`, how many there will be, they are written where they stay: at no time are they there twice.
    """
    parts: list[Tensor] = []
    whole, start = None, 0
    for x in batches:
        x = to_unit(to_uint8(x)) if x.dim() == 4 else x
        part = features(x.to(device, torch.float32)).double().cpu()
        if n is None:
            parts.append(part)
            continue
        whole = part.new_empty(n, *part.shape[1:]) if whole is None else whole
        whole[start : start + len(part)] = part
        start += len(part)
    if whole is not None:
        return whole[:start]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)
