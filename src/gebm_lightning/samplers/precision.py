"""U_β by faster arithmetic: E∘B in bfloat16, in the memory format that convolutions like best, the chain's state in full."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..gebm import GEBM, Potential, call_base, call_energy

PRECISIONS = ("32-true", "bf16-mixed")


class Fast(Potential):
    """U_β with the gradient of copies of the networks, in bfloat16 (`half`) and in `channels_last` where asked for.

    The value is the same pass's, for kernels that do not test it. With `exact` it is that of full precision, at the price of
    one more forward pass: a Metropolis test on it leaves exp(−U_β) as it is whatever the drift, as long as this is a
    function of z.

    Args:
        gebm: the model.
        beta: inverse temperature of the energy.
        y: None, or labels (n,) of the chains.
        half: autocast to bfloat16.
        channels_last: hold weights of convolutions, and with them images, as (n, H, W, C).
        exact: give the value in full precision.
    """

    def __init__(
        self,
        gebm: GEBM,
        beta: float = 1.0,
        y: Tensor | None = None,
        half: bool = True,
        channels_last: bool = False,
        exact: bool = True,
    ) -> None:
        super().__init__(gebm, beta, y)
        self.half, self.exact = half, exact
        self._networks = [_copied(network, channels_last) for network in (gebm.base, gebm.energy)]

    def tempered(self, beta: float) -> Fast:
        other = copy.copy(self)
        other.beta = beta
        return other

    def energy(self, z: Tensor) -> Tensor:
        if not self.exact:
            return self._energy(z, self.half)
        with torch.no_grad():
            value = self._energy(z, half=False)
        gradient = torch.is_grad_enabled() and z.requires_grad
        return _Value.apply(self._energy(z, self.half), value) if gradient else value

    def _energy(self, z: Tensor, half: bool) -> Tensor:
        base, energy = self._networks
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            return call_energy(energy, call_base(base, z, self.y), self.y).to(z.dtype)


class _Value(torch.autograd.Function):
    """One tensor's value with another's gradient."""

    @staticmethod
    def forward(ctx: Any, fast: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _copied(network: nn.Module, channels_last: bool) -> nn.Module:
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    return copied.to(memory_format=torch.channels_last) if channels_last else copied


def check_precision(key: str, precision: str) -> None:
    """Raise a UserError that names `key` unless `precision` is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise UserError(f"{key} is one of {', '.join(PRECISIONS)}, not {precision}")
