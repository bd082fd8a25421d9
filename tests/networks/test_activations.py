"""The leaky ReLU is torch's to the bit, in value and all derivatives, at fewer operations."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gebm_lightning import build, compose
from gebm_lightning.networks.activations import LeakyReLU


def native(module):
    """The network with torch's own instead."""
    for inner in module.modules():
        if isinstance(inner, LeakyReLU):
            inner.__class__ = nn.LeakyReLU
    return module


def penalised(critic, x):
    """A loss with a gradient penalty: its value, and the gradients of all weights and of the images."""
    # No leaves: the counter of operations cannot see gradients to those.
    x, between = (part.requires_grad_().view_as(part) for part in (x.clone(), 0.5 * x))
    with nn.utils.parametrize.cached():
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        loss = critic(x).square().mean() + (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return [loss, *torch.autograd.grad(loss, [x, *critic.parameters()], materialize_grads=True)]


IMAGES = ["data=digits", "data.size=16", "model.width=8"]
CRITICS = {
    "dcgan": ["model=dcgan", *IMAGES],
    "sngan": ["model=sngan", *IMAGES],
    "labels": ["model=sngan", "model.num_classes=10", *IMAGES],
    "mlp": ["model=mlp", "data=ring"],
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", CRITICS)
def test_it_is_torchs_to_the_bit_with_fewer_operations(name, train):
    cfg = compose(CRITICS[name])
    critic = build(cfg).energy.train(train)
    theirs = native(build(cfg).energy.train(train))
    assert any(type(m) is LeakyReLU for m in critic.modules()) and not any(
        type(m) is LeakyReLU for m in theirs.modules()
    )
    x = torch.rand(4, *cfg.data.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    if name == "labels":
        critic, theirs = Labelled(critic), Labelled(theirs)
    for ours, expected in zip(penalised(critic, x), penalised(theirs, x), strict=True):
        assert torch.equal(ours, expected)
    counts = []
    for network in (critic, theirs):
        # The counter cannot see gradients to weights that are made of others either.
        for module in network.modules():
            if nn.utils.parametrize.is_parametrized(module):
                nn.utils.parametrize.remove_parametrizations(module, "weight")
        with FlopCounterMode(display=False) as counter:
            penalised(network, x)
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.9 * counts[1] if train else counts[0] == counts[1]


class Labelled(nn.Module):
    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, x):
        return self.critic(x, torch.arange(len(x)))


def test_derivatives_of_a_smooth_loss_behind_it():
    layer = LeakyReLU(0.1).double()
    x = torch.tensor([-2.0, -0.5, 0.25, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x) and torch.autograd.gradgradcheck(lambda x: layer(x) ** 3, x)
