"""Any generator, any critic: networks and weights from elsewhere as base and energy, refined without training anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import UserError, check_number, first_line
from ..gebm import GEBM, call_base, call_energy
from ..noise import BlockNoise
from .builders import build_network, mlp
from .pretrained import load_weights

__all__ = ["ExternalBase", "ExternalEnergy", "check", "mlp"]


class External(nn.Module):
    """What both networks share: building, weights, and errors of foreign code as one sentence. See `ExternalBase`."""

    key: ClassVar[str]
    takes: ClassVar[str]
    hint: ClassVar[str]

    # Keywords only: in a config that is not trusted it is by its key that the builder is found and checked.
    def __init__(
        self,
        *,
        builder: str | Callable[..., Any] | None,
        arguments: Mapping[str, Any] | None = None,
        weights: str | bool | None = None,
        prefix: str = "",
        match: str = "name",
    ) -> None:
        super().__init__()
        self.network = build_network(builder, arguments, self.key)
        if weights is None or weights is True:
            raise UserError(f"{self.key}.weights is not set: name the file, or false to keep what the builder returns")
        if weights is not False:
            load_weights(self.network, weights, prefix, match, f"{self.key}.weights")

    def call(self, x: Tensor, shape: Sequence[int] | None, y: Tensor | None) -> Tensor:
        """network(x) or network(x, y), with x of shape (n, ...) first brought to (n, *shape)."""
        try:
            given = x if shape is None else x.reshape(x.shape[0], *shape)
            out = self.network(given) if y is None else self.network(given, y)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            axes = ", ".join(map(str, ("n", *x.shape[1:])))
            raise UserError(
                f"{self.key}: the network does not take {self.takes} of shape ({axes}): {first_line(error)}; {self.hint}"
            ) from error
        if not isinstance(out, Tensor) or out.shape[:1] != x.shape[:1]:
            kind = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UserError(f"{self.key}: for {len(x)} inputs the network must return as many outputs, not {kind}")
        return out


class ExternalBase(External):
    """A generator trained elsewhere: latents (n, d) to data (n, *shape).

    Args:
        builder: "package.module:callable" (or the callable) that makes the network.
        arguments: its keyword arguments.
        weights: a file as of `pretrained.read_weights`; False keeps what the builder returns.
        prefix: of the tensors' names in the file, such as "generator.".
        match: "name", or "order" where names differ but the shapes agree in order.
        shape: of one datum; flat outputs are brought to it. None takes outputs as they are.
        latent_shape: of one latent if the network wants another than (d,), such as (d, 1, 1).

    Raises:
        UserError: a part is missing or does not fit the others; the forward pass raises it too.
    """

    key = "model.base"
    takes = "latents"
    hint = "see model.latent_dim and model.base.latent_shape"

    def __init__(
        self,
        *,
        builder: str | Callable[..., Any] | None,
        arguments: Mapping[str, Any] | None = None,
        weights: str | bool | None = None,
        prefix: str = "",
        match: str = "name",
        shape: Sequence[int] | None = None,
        latent_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(builder=builder, arguments=arguments, weights=weights, prefix=prefix, match=match)
        self.shape = None if shape is None else tuple(shape)
        self.latent_shape = None if latent_shape is None else tuple(latent_shape)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.call(z, self.latent_shape, y)
        if self.shape is None or x.shape[1:] == self.shape:
            return x
        # Of two shapes with several axes one may be the other transposed.
        if min(x.dim() - 1, len(self.shape)) > 1 or x[:1].numel() != math.prod(self.shape):
            raise UserError(
                f"model.base: the generator makes data of shape {tuple(x.shape[1:])}, but the data have {self.shape}"
            )
        return x.reshape(x.shape[0], *self.shape)


def _of_probability(v: Tensor) -> Tensor:
    if ((v < 0) | (v > 1)).any():
        raise UserError(
            f"model.energy.convention=probability: the critic returns {v.min():.3g} to {v.max():.3g}, which are no "
            "probabilities; is it a logit?"
        )
    v = v.clamp(torch.finfo(v.dtype).eps, 1 - torch.finfo(v.dtype).eps)
    return torch.log1p(-v) - torch.log(v)


CONVENTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "energy": torch.positive,
    "logit": torch.neg,
    "wasserstein": torch.neg,
    "probability": _of_probability,
}


def _convention(name: Any) -> Callable[[Tensor], Tensor]:
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    choices = [*CONVENTIONS, "f_gan:<divergence>"]
    if isinstance(name, str) and name.startswith("f_gan:"):
        from ..divergences import PHI

        if (key := name.removeprefix("f_gan:")) in PHI:
            return PHI[key].to_energy
        choices = [f"f_gan:{key}" for key in PHI]
    raise UserError(
        f"model.energy.convention says what the critic returns: it is one of {', '.join(choices)}, not {name!r}"
    )


class ExternalEnergy(External):
    """A critic v trained elsewhere as an energy (n,), low on real data: E = scale · e(v).

    e(v) by convention: `energy` v; `logit` −v, with σ(v) the probability of "real"; `wasserstein` −v; `probability`
    log(1 − v) − log v; `f_gan:<key>` the divergence's, of the output before its activation. The log-ratio −E of a
    Wasserstein critic is up to a factor, its `scale`.

    Args:
        convention: what the critic returns.
        scale: at least 0; 0 leaves the base as it is.
        input_shape: of one datum if the critic wants another than the data's, such as (784,).
        builder, arguments, weights, prefix, match: as of `ExternalBase`.

    Raises:
        UserError: a part is missing or does not fit the others; the forward pass raises it too.
    """

    key = "model.energy"
    takes = "data"
    hint = "see data.shape and model.energy.input_shape"

    def __init__(
        self,
        *,
        builder: str | Callable[..., Any] | None,
        convention: str | None,
        arguments: Mapping[str, Any] | None = None,
        weights: str | bool | None = None,
        prefix: str = "",
        match: str = "name",
        scale: float = 1.0,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        check_number("model.energy.scale", scale, low=0)
        to_energy = _convention(convention)
        super().__init__(builder=builder, arguments=arguments, weights=weights, prefix=prefix, match=match)
        self.to_energy, self.scale = to_energy, scale
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        v = self.call(x, self.input_shape, y)
        if v.numel() != len(x):
            raise UserError(
                f"model.energy: the critic must return one number a sample, (n,) or (n, 1), not {tuple(v.shape)}"
            )
        return self.scale * self.to_energy(v.reshape(len(x)))


@torch.no_grad()
def check(gebm: GEBM) -> None:
    """Run prior, base and energy once, on 16 samples.

    Raises:
        UserError: they do not fit together, or make numbers that are not finite.
    """
    from ..samplers import sampling_mode

    with sampling_mode(gebm):
        try:
            y = gebm.sample_labels(16, BlockNoise(0))
            x = call_base(gebm.base, gebm.prior.sample(16, BlockNoise(0)), y)
            energy = call_energy(gebm.energy, x, y)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"the parts of the model do not fit together: {first_line(error)}") from error
    if not (torch.isfinite(x).all() and torch.isfinite(energy).all()):
        raise UserError("the model makes numbers that are not finite: are its weights those of these networks?")
