"""Shapes, ranges and the published parameter counts."""

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.networks import DCGANBase, DCGANEnergy, MLPBase, MLPEnergy


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_at_32_pixels():
    assert count(DCGANBase(100, (3, 32, 32))) == 3_573_824
    assert count(DCGANEnergy((3, 32, 32))) == 2_759_424


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("spectral", [False, True])
def test_dcgan_pairs_fit(size, norm, spectral):
    x = DCGANBase(7, (2, size, size), width=4)(torch.randn(5, 7))
    assert x.shape == (5, 2, size, size) and x.abs().max() <= 1
    assert DCGANEnergy((2, size, size), 4, norm, spectral)(x).shape == (5,)


@pytest.mark.parametrize("shape", [(2,), (1, 12, 12)])
def test_mlp_pairs_fit_any_shape(shape):
    x = MLPBase(3, shape, width=8)(10 * torch.randn(5, 3))
    assert x.shape == (5, *shape) and (len(shape) == 1 or x.abs().max() <= 1)
    assert MLPEnergy(shape, width=8, spectral=True)(x).shape == (5,)


@pytest.mark.parametrize("shape", [(2,), (1, 12, 12), (1, 8, 16)])
@pytest.mark.parametrize("network", [lambda s: DCGANBase(4, s), DCGANEnergy], ids=["base", "energy"])
def test_a_shape_that_no_network_is_built_for(network, shape):
    with pytest.raises(UserError, match="dcgan is not built for data of shape"):
        network(shape)


@pytest.mark.parametrize("base", [DCGANBase(4, (1, 8, 8), 4), MLPBase(4, (2,), 8)], ids=["dcgan", "mlp"])
def test_latents_of_the_wrong_size_are_named(base):
    with pytest.raises(ValueError, match=r"latents of shape \(n, 4\), not \(3, 5\)"):
        base(torch.zeros(3, 5))


def test_spectral_norm_bounds_the_layers():
    energy = MLPEnergy((4,), width=16, spectral=True)
    for _ in range(30):
        energy(torch.randn(8, 4))
    for layer in energy.layers[::2]:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)
