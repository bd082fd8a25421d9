"""Shapes, ranges, labels and the published parameter counts, over every pair of networks."""

import pytest
import torch

from gebm_lightning import UserError, networks
from gebm_lightning.networks import Clipped, DCGANEnergy, MLPBase, MLPEnergy
from gebm_lightning.networks.blocks import SIZES, ConditionalBatchNorm2d

PAIRS = {
    name: (getattr(networks, f"{name}Base"), getattr(networks, f"{name}Energy"))
    for name in ("DCGAN", "SNGAN", "ResNet", "MLP")
}
IMAGES = ["DCGAN", "SNGAN", "ResNet"]
COUNTS = {
    "DCGAN": (3_573_824, 2_759_424),
    "SNGAN": (3_584_003, 5_860_865),
    "ResNet": (1_097_603, 1_053_825),
}


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", IMAGES)
def test_parameter_counts_at_32_pixels(name):
    base, energy = PAIRS[name]
    assert (count(base(100, (3, 32, 32))), count(energy((3, 32, 32)))) == COUNTS[name]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("num_classes", [None, 3])
def test_pairs_fit_at_every_size(name, size, spectral, num_classes):
    base, energy = (
        make(*args, width=2, spectral=spectral, num_classes=num_classes)
        for make, args in zip(PAIRS[name], [(7, (2, size, size)), ((2, size, size),)], strict=True)
    )
    y = None if num_classes is None else torch.tensor([0, 2])
    x = base(torch.randn(2, 7), y)
    assert x.shape == (2, 2, size, size) and x.abs().max() <= 1
    assert energy(x, y).shape == (2,)


@pytest.mark.parametrize("name", PAIRS)
def test_labels_matter_where_there_are_classes(name):
    torch.manual_seed(0)
    base, energy = (
        PAIRS[name][0](5, (1, 8, 8), width=4, num_classes=3),
        PAIRS[name][1]((1, 8, 8), width=4, num_classes=3),
    )
    for module in base.modules():
        if isinstance(module, ConditionalBatchNorm2d):
            torch.nn.init.normal_(module.bias.weight)
    z, y, other = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 2, 0, 1, 2, 0])
    x = base(z, y)
    assert not torch.allclose(x, base(z, other)) and not torch.allclose(energy(x, y), energy(x, other))


@pytest.mark.parametrize("name", PAIRS)
def test_unconditional_networks_take_no_labels_and_ignore_none(name):
    base, energy = PAIRS[name][0](5, (1, 8, 8), width=4), PAIRS[name][1]((1, 8, 8), width=4)
    base.eval(), energy.eval()
    z = torch.randn(3, 5)
    assert torch.equal(energy(base(z)), energy(base(z, None), None))


@pytest.mark.parametrize("name", PAIRS)
def test_latents_of_the_wrong_size_are_named(name):
    with pytest.raises(ValueError, match=r"latents of shape \(n, 4\), not \(3, 5\)"):
        PAIRS[name][0](4, (1, 8, 8), width=4)(torch.zeros(3, 5))


@pytest.mark.parametrize("shape", [(2,), (1, 12, 12), (1, 8, 16), (1, 256, 256)])
@pytest.mark.parametrize("name", IMAGES)
def test_a_shape_that_no_network_is_built_for(name, shape):
    for make in (lambda: PAIRS[name][0](4, shape), lambda: PAIRS[name][1](shape)):
        with pytest.raises(UserError, match="is not built for data of shape"):
            make()


def test_mlp_pairs_fit_vectors():
    x = MLPBase(3, (2,), width=8)(10 * torch.randn(5, 3))
    assert x.shape == (5, 2) and MLPEnergy((2,), width=8)(x).shape == (5,)


@pytest.mark.parametrize("name", PAIRS)
def test_spectral_norm_bounds_every_linear_map(name):
    torch.manual_seed(0)
    energy = PAIRS[name][1]((1, 8, 8), width=4, spectral=True)
    for _ in range(60):
        energy(torch.randn(4, 1, 8, 8))
    energy.eval()
    layers = [m for m in energy.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert layers
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)


def test_clipping_floors_the_energy_and_its_gradient():
    energy = DCGANEnergy((1, 8, 8), width=4, norm="none")
    x = torch.randn(64, 1, 8, 8, requires_grad=True)
    plain = energy(x)
    low = plain.median().item()
    clipped = Clipped(energy, low)(x)
    torch.testing.assert_close(clipped, plain.clamp(min=low))
    (gradient,) = torch.autograd.grad(clipped.sum(), x)
    assert (gradient[plain < low] == 0).all() and (gradient[plain > low] != 0).any()
    assert Clipped(energy, None)(x).equal(plain)
