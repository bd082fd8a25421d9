"""What the trainers of the small classifiers share: the loop, and the accuracy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.batch import to_unit
from .features import Classifier


@torch.no_grad()
def accuracy(network: Classifier, x: Tensor, y: Tensor) -> float:
    """Share of uint8 images (n, 1, h, h) whose class (n,) the network tells."""
    right = [
        (network.logits(to_unit(part)).argmax(1) == of).sum()
        for part, of in zip(x.split(500), y.split(500), strict=True)
    ]
    return sum(int(count) for count in right) / len(x)


def fit(
    kind: type[Classifier], x: Tensor, y: Tensor, seed: int, epochs: int, batch_size: int, decay: float = 1e-2
) -> Classifier:
    """A network of this kind after `epochs` of AdamW (2e-3, cosine schedule) on uint8 images (n, 1, h, h) of classes (n,)."""
    torch.manual_seed(seed)
    x = to_unit(x)
    network = kind(weights=False).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=decay)
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
