"""Models whose law is known in closed form, and every transport under a name."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gebm_lightning import GEBM, build, compose
from gebm_lightning.noise import BlockNoise
from gebm_lightning.priors import Gaussian
from gebm_lightning.samplers import BaseSampler
from gebm_lightning.transports import DOT, DRS, MHGAN, Calibrated, DGFlow

REFINERS = {
    "dgflow": DGFlow(num_steps=3, step_size=0.1, noise=0.01, divergence="js"),
    "dgflow-data": DGFlow(num_steps=3, step_size=0.1, noise=0.01, space="data"),
    "dot": DOT(num_steps=3),
    "dot-data": DOT(num_steps=3, space="data"),
    "mhgan": MHGAN(num_proposals=5),
    "mhgan-real": MHGAN(num_proposals=2, start="real"),
    "drs": DRS(num_burn_in=640),
    "calibrated-mhgan": Calibrated(MHGAN(num_proposals=3), method="isotonic"),
    "calibrated-dgflow": Calibrated(DGFlow(num_steps=2)),
}


class Quadratic(nn.Module):
    """E(x) = a/2 ‖x − m‖²."""

    def __init__(self, a, m):
        super().__init__()
        self.a, self.m = a, m

    def forward(self, x):
        return self.a / 2 * (x - self.m).square().sum(1)


@pytest.fixture
def quadratic():
    """(model, mean, variance of each coordinate): N(0, I) tilted by a quadratic energy."""

    def make(a=1.0, m=1.0, dim=1):
        return GEBM(nn.Identity(), Quadratic(a, m), Gaussian(dim)).double(), a * m / (1 + a), 1 / (1 + a)

    return make


@pytest.fixture
def distance():
    """How many Monte-Carlo errors the mean and variance of x (n, d), a Gaussian's, are off: the worst."""

    def worst(x, mean, variance):
        n = len(x)
        off = (x.mean(0) - mean).abs() / math.sqrt(variance / n)
        return torch.cat([off, (x.var(0) - variance).abs() / (variance * math.sqrt(2 / n))]).max().item()

    return worst


@pytest.fixture
def conditional():
    """A small untrained model with ten classes."""
    return build(compose(["model.num_classes=10", "model.width=4", "model.latent_dim=6"]))


def _rows(classes):
    return [(classes == label).nonzero().squeeze(1) for label in classes.unique()]


@pytest.fixture(params=REFINERS)
def fitted(request):
    """A function model -> transport, fitted to base samples of low energy where it needs real ones."""

    def fit(gebm, y=None, **changes):
        refiner = REFINERS[request.param]
        inner = isinstance(refiner, Calibrated)
        refiner = (
            replace(refiner, refiner=replace(refiner.refiner, **changes)) if inner else replace(refiner, **changes)
        )
        if not hasattr(refiner, "fit"):
            return refiner
        real = BaseSampler().refine(gebm, 600, BlockNoise(9, stream="real"), y).x
        training = gebm.training
        with torch.no_grad():
            energy = gebm.eval().energy(real) if y is None else gebm.eval().energy(real, y)
        gebm.train(training)
        classes = torch.zeros(len(real), dtype=torch.long) if y is None else y
        order = torch.cat([rows[energy[rows].argsort()][: len(rows) // 2] for rows in _rows(classes)])
        return refiner.fit(gebm, real[order], BlockNoise(9, stream="fit"), None if y is None else y[order])

    return fit
