"""The small classifiers behind features=digits and features=fashion_mnist: what they take, and what they were trained to."""

import pytest
import torch

from gebm_lightning import UserError, compose
from gebm_lightning.config import instantiate
from gebm_lightning.metrics import Digits, FashionMNIST
from gebm_lightning.metrics.classifiers import accuracy, fit


def test_the_fashion_extractor_takes_images_of_16_and_28_pixels():
    network = instantiate(compose(["features=fashion_mnist"]).features)
    assert isinstance(network, FashionMNIST) and network.name == "fashion_mnist" and network.digest != "untrained"
    assert network.weights().stat().st_size < 1e6 and not any(p.requires_grad for p in network.parameters())
    x = torch.rand(3, 1, 14, 14, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert network(x.repeat_interleave(2, 2).repeat_interleave(2, 3)).shape == (3, 128)
    image = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(network(image), network(image.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    for shape in ((3, 1, 14, 14), (3, 3, 16, 16)):
        with pytest.raises(UserError, match="features=fashion_mnist"):
            network(torch.zeros(shape))


def test_fit_learns_and_is_a_function_of_the_seed():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(10).repeat(20)
    x = (torch.rand(200, 1, 8, 8, generator=generator) * 64).to(torch.uint8)
    x.flatten(1)[torch.arange(200), 6 * y + 3] = 255
    torch.manual_seed(5)
    first = fit(Digits, x, y, seed=0, epochs=30, batch_size=50)
    assert accuracy(first, x, y) > 0.9 and not first.training
    second = fit(Digits, x, y, seed=0, epochs=30, batch_size=50)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
