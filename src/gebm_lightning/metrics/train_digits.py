"""Trains the classifier behind `features=digits`, on the train split only: `python -m gebm_lightning.metrics.train_digits OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch

from ..data.digits import Digits as DigitsData
from . import classifiers
from .features import Classifier, Digits


def accuracy(network: Classifier, split: str) -> float:
    """Share of a split's images whose class the network tells."""
    data = DigitsData().split(split)
    assert data.y is not None
    return classifiers.accuracy(network, data.x, data.y)


def train(seed: int = 0, epochs: int = 40, batch_size: int = 64) -> Classifier:
    """40 epochs of AdamW (2e-3, decay 1e-2, cosine schedule) on the 1,197 train images."""
    data = DigitsData().split("train")
    assert data.y is not None
    return classifiers.fit(Digits, data.x, data.y, seed, epochs, batch_size)


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Digits.weights()
    network = train()
    safetensors.torch.save_file(network.state_dict(), out)
    print(
        f"accuracy: train {accuracy(network, 'train'):.4f}, val {accuracy(network, 'val'):.4f}, test {accuracy(network, 'test'):.4f}"
    )
    print(out)
