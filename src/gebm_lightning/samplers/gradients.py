"""∇U by autograd, leaving no trace on parameters, buffers or modes, whatever grad or inference mode the caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .kernel import PotentialFn


def value_and_grad(potential: PotentialFn, z: Tensor) -> tuple[Tensor, Tensor]:
    """U(z) (n,) and ∇U(z) (n, d), detached; one evaluation of both."""
    with torch.inference_mode(False), torch.enable_grad():
        z = z.clone().detach().requires_grad_()
        u = potential(z)
        (gradient,) = torch.autograd.grad(u.sum(), z)
    return u.detach(), gradient


def value_of(function: PotentialFn, z: Tensor) -> Tensor:
    """U(z) (n,) without a graph."""
    with torch.inference_mode(False), torch.no_grad():
        return function(z.clone() if z.is_inference() else z)


@contextmanager
def sampling_mode(target: object, cached: bool = True) -> Iterator[None]:
    """Within, the modules behind a potential or model are in eval mode with frozen parameters; afterwards as they were.

    Spectrally normalised weights are computed once for all that happens within, unless not `cached`, as a program that is
    to be traced wants it. Eval mode matters for the numbers: in train mode batch norm mixes the chains and moves its
    statistics, and merely reading a spectrally normalised weight updates its power iteration.
    """
    module = getattr(target, "gebm", target)
    if not isinstance(module, nn.Module):
        yield
        return
    with torch.inference_mode(False):
        training = {m: m.training for m in module.modules()}
        requires_grad = {p: p.requires_grad for p in module.parameters()}
        module.eval().requires_grad_(False)
        try:
            with parametrize.cached() if cached else nullcontext():
                yield
        finally:
            for m, mode in training.items():
                m.training = mode
            for p, flag in requires_grad.items():
                p.requires_grad_(flag)
