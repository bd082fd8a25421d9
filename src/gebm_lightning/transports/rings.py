"""The three rings of the KALE flow's experiment, point by point."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def three_rings(per_ring: int = 80, radius: float = 0.3, seed: int = 42) -> tuple[Tensor, Tensor]:
    """Particles and target of the published experiment (Glaser, Arbel & Gretton, NeurIPS 2021), float64, both (3·per_ring, 2).

    The target are three circles, evenly spaced points on each, centres 2.5 radii below one another. The particles are
    N((0, −radius), .01²), numpy's second draw from `seed`. Kernel of the experiment: exp(−‖x − y‖²/.1), which is
    `Gaussian(sqrt(.05))`; λ = 1e-3 with steps of 1e-4, and λ = 1e4 with steps of 1e-3.
    """
    angle = np.linspace(0, 2 * np.pi, per_ring + 1)[:-1]
    circle = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    target = np.concatenate([circle - [0, drop * radius] for drop in (0, 2.5, 5)])
    draws = np.random.RandomState(seed)
    draws.randn(3 * per_ring, 2)
    particles = draws.randn(3 * per_ring, 2) / 100 - [0, radius]
    return torch.from_numpy(particles), torch.from_numpy(target)
