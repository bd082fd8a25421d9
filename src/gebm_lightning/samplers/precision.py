"""U_β by faster arithmetic: E∘B compiled, in bfloat16, in the memory format that convolutions like best, the state in full."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import UserError, first_line
from ..gebm import GEBM, Potential, call_base, call_energy

PRECISIONS = ("32-true", "bf16-mixed")
MODES = (False, True, "reduce-overhead", "max-autotune")


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
        compiled: of `MODES`: True for `torch.compile`, or the name of one of its modes.
    """

    def __init__(
        self,
        gebm: GEBM,
        beta: float = 1.0,
        y: Tensor | None = None,
        half: bool = True,
        channels_last: bool = False,
        exact: bool = True,
        compiled: bool | str = False,
    ) -> None:
        super().__init__(gebm, beta, y)
        self.half, self.exact, self.compiled = half, exact, compiled
        networks = [_copied(network, channels_last) for network in (gebm.base, gebm.energy)]
        self._pushed: Any = _Pushed(*networks)
        if compiled:
            allow_variants()
            self._pushed = torch.compile(self._pushed, mode=compiled if isinstance(compiled, str) else None)

    def energy(self, z: Tensor) -> Tensor:
        if not self.exact:
            return self._energy(z, self.half)
        with torch.no_grad():
            value = self._energy(z, half=False)
        gradient = torch.is_grad_enabled() and z.requires_grad
        return _Value.apply(self._energy(z, self.half), value) if gradient else value

    def _energy(self, z: Tensor, half: bool) -> Tensor:
        if not self.compiled:
            return self._pushed(z, self.y, half)
        torch.compiler.cudagraph_mark_step_begin()
        try:
            # A CUDA graph writes to the same memory each time.
            return self._pushed(_Owned.apply(z), self.y, half).clone()
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UserError(
                f"sampler.compile={str(self.compiled).lower()}: torch.compile cannot compile these networks here: "
                f"{first_line(error)}; leave it false"
            ) from error


class _Pushed(nn.Module):
    """E∘B as one module, for the compiler."""

    def __init__(self, base: nn.Module, energy: nn.Module) -> None:
        super().__init__()
        self.base, self.energy = base, energy

    def forward(self, z: Tensor, y: Tensor | None, half: bool) -> Tensor:
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            return call_energy(self.energy, call_base(self.base, z, y), y).to(z.dtype)


class _Owned(torch.autograd.Function):
    """The same tensor, whose gradient is a copy of its own."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].clone()


class _Value(torch.autograd.Function):
    """One tensor's value with another's gradient."""

    @staticmethod
    def forward(ctx: Any, fast: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _copied(network: nn.Module, channels_last: bool) -> nn.Module:
    with torch.inference_mode(False):
        copied = copy.deepcopy(network).eval().requires_grad_(False)
        for module in copied.modules():
            if parametrize.is_parametrized(module):
                # A class of its own: the copy shares that which holds the original's property, and removal would delete it there.
                kind = type(module)
                module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
                for name in list(module.parametrizations):  # type: ignore[arg-type]
                    parametrize.remove_parametrizations(module, name)
        return copied.to(memory_format=torch.channels_last) if channels_last else copied


def check_precision(key: str, precision: str) -> None:
    """Raise a UserError that names `key` unless `precision` is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise UserError(f"{key} is one of {', '.join(PRECISIONS)}, not {precision}")


def check_mode(key: str, mode: bool | str) -> None:
    """Raise a UserError that names `key` unless `mode` is one of `MODES`."""
    if mode not in MODES or isinstance(mode, int) is not isinstance(mode, bool):
        raise UserError(f"{key} is one of false, true, {', '.join(map(str, MODES[2:]))}, not {mode}")


def allow_variants() -> None:
    """Let networks be compiled for more combinations of modes, sizes and precisions than torch's eight, after which it stops."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
