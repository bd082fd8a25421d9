"""Where a transport moves its samples, latents or data, and what all transports share: the logit, starts, and merging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..gebm import GEBM, call_base, call_energy
from ..noise import Generator
from ..samplers.refiner import Samples, chunks


class Space(NamedTuple):
    """n points to be moved, and what they are to the model."""

    start: Tensor
    """(n, *point): the latents z, or x = B(z)."""
    logit: Callable[[Tensor], Tensor]
    """Points to d = −β·E of their data, (n,): high where the critic takes them for real."""
    finish: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    """Points to data x (n, *shape) and latents z (n, d), None where there are none."""


def latent(gebm: GEBM, beta: float, z: Tensor, y: Tensor | None) -> Space:
    """z itself moves: d∘B, and x = B(z) at the end."""

    def logit(z: Tensor) -> Tensor:
        return -beta * call_energy(gebm.energy, call_base(gebm.base, z, y), y)

    return Space(z, logit, lambda z: (call_base(gebm.base, z, y), z))


def data(gebm: GEBM, beta: float, z: Tensor, y: Tensor | None) -> Space:
    """x moves away from B(z): no latents belong to it any more."""
    return Space(
        call_base(gebm.base, z, y), lambda x: -beta * call_energy(gebm.energy, x, y), lambda x: (x.clone(), None)
    )


SPACES: dict[str, Callable[[GEBM, float, Tensor, Tensor | None], Space]] = {"latent": latent, "data": data}


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Raise a UserError unless `value` is one of the choices."""
    names = list(choices)
    if value not in names:
        raise UserError(f"{key} must be one of {', '.join(names)}, not {value!r}")


def check_finite(method: str, advice: str, *tensors: Tensor | None) -> None:
    """Raise a UserError if any number is NaN or infinite."""
    bad = sum(int((~torch.isfinite(t)).flatten(1).any(1).sum()) for t in tensors if t is not None)
    if bad:
        raise UserError(f"{method} left the finite numbers in {bad} samples: {advice}")


def starts(
    gebm: GEBM, n: int, generator: Generator, chunk: int, y: Tensor | None
) -> Iterator[tuple[Generator, Tensor, Tensor | None]]:
    """For each chunk its noise, the base's own latents (m, d), and labels (m,)."""
    for rows, noise in chunks(n, generator, chunk):
        # A caller's inference tensor could not be used under autograd; a clone made outside of that mode can.
        yield noise, gebm.prior.sample(rows.stop - rows.start, noise), None if y is None else y[rows].clone()


def labels_of(gebm: GEBM, y: Tensor | None) -> list[int | None]:
    """The labels that something must be estimated for, one by one; [None] for an unconditional model."""
    return [None] if y is None else [int(label) for label in y.unique()]


def filled(label: int | None, n: int, device: torch.device) -> Tensor | None:
    """(n,) times one label."""
    return None if label is None else torch.full((n,), label, device=device)


def per_sample(values: dict[int | None, float], y: Tensor | None, like: Tensor) -> Tensor:
    """What was estimated for each label, as a tensor of `like`'s kind: (n,) with labels, otherwise a scalar."""
    if y is None:
        return like.new_tensor(values[None])
    return like.new_tensor([values[int(label)] for label in y])


def spread(values: Tensor, points: Tensor) -> Tensor:
    """(n,) values in the shape that multiplies points (n, ...)."""
    return values.view(-1, *[1] * (points.dim() - 1))


def merge(parts: Sequence[Samples], **info: Any) -> Samples:
    """One Samples of several, their infos averaged over samples, with `info` besides."""
    n = sum(len(part.x) for part in parts)
    means = {key: sum(part.info[key] * len(part.x) for part in parts) / n for key in parts[0].info}
    latents = [part.z for part in parts if part.z is not None]
    return Samples(torch.cat([part.x for part in parts]), torch.cat(latents) if latents else None, means | info)
