"""Trains the classifier behind `features=fashion_mnist`: `python -m gebm_lightning.metrics.train_fashion DATA_ROOT OUT`.

DATA_ROOT is where torchvision keeps Fashion-MNIST. Only the train split is learnt from, at 16 pixels, without its
1,000 validation images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torchvision

from ..data import Torchvision
from . import classifiers
from .features import Classifier, FashionMNIST


def accuracy(network: Classifier, split: str, root: str, size: int = 16) -> float:
    """Share of a split's images, at `size` pixels, whose class the network tells."""
    data = Torchvision(torchvision.datasets.FashionMNIST, root, size).split(split)
    batch = data.__getitems__(range(len(data)))
    assert batch.y is not None
    return classifiers.accuracy(network, batch.x, batch.y)


def train(root: str, seed: int = 0, epochs: int = 8, batch_size: int = 128) -> Classifier:
    """8 epochs of AdamW (2e-3, decay 1e-2, cosine schedule) on the 59,000 train images."""
    data = Torchvision(torchvision.datasets.FashionMNIST, root, 16).split("train")
    batch = data.__getitems__(range(len(data)))
    assert batch.y is not None
    return classifiers.fit(FashionMNIST, batch.x, batch.y, seed, epochs, batch_size)


if __name__ == "__main__":
    root = sys.argv[1]
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else FashionMNIST.weights()
    network = train(root)
    safetensors.torch.save_file(network.state_dict(), out)
    print(", ".join(f"{split} {accuracy(network, split, root):.4f}" for split in ("train", "val", "test")))
    print(f"test, from 28 pixels: {accuracy(network, 'test', root, 28):.4f}")
    print(out)
