"""Bases with a density: x = T⁻¹(z) for an invertible T, and the energy that is one flow against another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line


class Invertible(nn.Module):
    """A base whose latents can be had back: log q(x) = log η(T(x)) + log |det ∂T/∂x| for any prior η."""

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents z = T(x) (n, d) of x (n, d), and log |det ∂T/∂x| (n,)."""
        raise NotImplementedError


class Identity(Invertible):
    """B(z) = z: the model is an ordinary EBM on its data space, reweighting the prior.

    Args:
        shape: of a sample; latents are flat.
    """

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, z: Tensor) -> Tensor:
        return z.view(-1, *self.shape)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(len(x))


class DiagonalGaussian(Invertible):
    """B(z) = μ + σ·z, elementwise.

    Args:
        dim: of a sample.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor) -> Tensor:
        return self.loc + self.log_scale.exp() * z

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - self.loc) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(x))


class FlowBase(Invertible):
    """An unconditional flow of zuko over vectors; of the flow only its transform is used, the latents' law is the prior.

    Args:
        flow: such as `zuko.flows.RealNVP(11, transforms=5, hidden_features=[100])`.
        zero_init: begin at the identity, with the last layers of its networks at zero: a flow that begins elsewhere has outliers at
            which an energy, and with it exp(−E), is beyond all bounds.
        activation: "tanh" in its networks in place of ReLU: far from the data scales and shifts stay what they are near it,
            which tables with outliers need; None for the flow's own.

    Raises:
        UserError: it is no such flow, or has no good inverse; another activation, or no ReLU to take the place of.
    """

    def __init__(self, flow: nn.Module, zero_init: bool = True, activation: str | None = None) -> None:
        super().__init__()
        if activation not in (None, "tanh"):
            raise UserError(f"model.base.activation is tanh or null, not {activation}")
        if activation == "tanh":
            places = [
                (m, name) for m in flow.modules() for name, child in m.named_children() if isinstance(child, nn.ReLU)
            ]
            if not places:
                raise UserError(
                    "model.base.activation=tanh takes the place of ReLU, which this flow has nowhere: leave it null"
                )
            for module, name in places:
                setattr(module, name, nn.Tanh())
        try:
            law: Any = flow()
            (features,) = law.event_shape
            z = torch.randn(64, features, generator=torch.Generator().manual_seed(0))
            off = (law.transform(law.transform.inv(z)) - z).abs().amax(1)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"model.base.flow is no unconditional zuko flow over vectors: {first_line(error)}"
            ) from error
        if not off.quantile(0.9) < 1e-2:
            raise UserError("model.base.flow has no good inverse: take NSF, MAF, RealNVP or NICE")
        self.flow = flow
        if zero_init:
            hypers: list[Any] = [getattr(m, "hyper", None) for m in flow.modules()]
            for hyper in (h for h in hypers if isinstance(h, nn.Module)):
                # zuko's linear layers are not all torch's.
                layers = [m for m in hyper.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
                for p in layers[-1].parameters():
                    nn.init.zeros_(p)

    def forward(self, z: Tensor) -> Tensor:
        return self.flow().transform.inv(z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow().transform.call_and_ladj(x)


class FlowEnergy(nn.Module):
    """E = −log f + log g for a flow density f of its own and the base's density g, so that the model's density is f itself
    (Arbel, Zhou & Gretton, ICLR 2021, appendix on density estimation).

    The base's parameters are constants to it: as an energy it is a function of x, whatever made x.

    Args:
        flow: an `Invertible` base like the model's.
    """

    def __init__(self, flow: Invertible) -> None:
        super().__init__()
        self.flow = flow
        # In a list, that the base does not appear in the energy's state, nor among its parameters.
        self._of: list[Any] = []

    def attach(self, base: nn.Module, prior: nn.Module) -> None:
        """Take the base and prior of the model, once both are built."""
        self._of[:] = [base, prior]

    def normalised(self, base: nn.Module) -> bool:
        """Whether this base is the g of E = −log f + log g, so that the model's density is f and log Z = 0."""
        return bool(self._of) and self._of[0] is base

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if not self._of:
            raise RuntimeError("a FlowEnergy belongs to a model: attach(base, prior) was not called")
        base, prior = self._of
        frozen = {name: p.detach() for name, p in base.named_parameters()}
        z, log_det = torch.func.functional_call(_Inverse(base), {f"base.{k}": v for k, v in frozen.items()}, (x,))
        own, own_log_det = self.flow.inverse(x)
        return prior.log_prob(z) + log_det - prior.log_prob(own) - own_log_det


class _Inverse(nn.Module):
    """`base.inverse` as a forward, for functional_call."""

    def __init__(self, base: Invertible) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.inverse(x)
