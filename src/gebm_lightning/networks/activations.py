"""A leaky ReLU that penalties of gradients need not differentiate twice for nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeakyReLU(nn.LeakyReLU):
    """`nn.LeakyReLU` to the bit, whose second derivative is not computed: it is zero where there is one.

    torch fills it with zeros, and sends them back through all layers before: of a critic with a gradient penalty, two passes
    in each energy update.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and input.requires_grad:
            return _Leaky.apply(input, self.negative_slope)
        return F.leaky_relu(input, self.negative_slope)


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, slope: float) -> Tensor:
        return F.leaky_relu(x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.slope = inputs
        ctx.save_for_backward(x)
        # Else a path without a gradient gets zeros of its own.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        (grad,) = grads
        if grad is None:
            return None, None
        (x,) = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(grad, x.detach(), ctx.slope, False), None
