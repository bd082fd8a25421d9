"""Trains the classifier behind `features=digits`, on the train split only: `python -m gebm_lightning.metrics.train_digits OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from torch.nn import functional as F

from ..data.batch import to_unit
from ..data.digits import Digits as DigitsData
from .features import DIGITS_WEIGHTS, Digits


def accuracy(network: Digits, split: str) -> float:
    """Share of a split's images whose class the network tells."""
    data = DigitsData().split(split)
    assert data.y is not None
    with torch.no_grad():
        return (network.logits(to_unit(data.x)).argmax(1) == data.y).float().mean().item()


def train(seed: int = 0, epochs: int = 40, batch_size: int = 64) -> Digits:
    """40 epochs of AdamW (2e-3, decay 1e-2, cosine schedule) on the 1,197 train images."""
    torch.manual_seed(seed)
    data = DigitsData().split("train")
    assert data.y is not None
    x, y = to_unit(data.x), data.y
    network = Digits(weights=False).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * (len(x) // batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size)[: len(x) // batch_size]:
            loss = F.cross_entropy(network.logits(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return network.eval().requires_grad_(False)


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else DIGITS_WEIGHTS
    network = train()
    safetensors.torch.save_file(network.state_dict(), out)
    print(
        f"accuracy: train {accuracy(network, 'train'):.4f}, val {accuracy(network, 'val'):.4f}, test {accuracy(network, 'test'):.4f}"
    )
    print(out)
