"""What the `sampler` group builds: `refine(gebm, n, generator, y=None) -> Samples`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError
from ..gebm import GEBM, call_base
from ..noise import BLOCK, BlockNoise, Generator
from .gradients import sampling_mode


class Samples(NamedTuple):
    """n samples."""

    x: Tensor
    """(n, *shape)"""
    z: Tensor | None
    """(n, d) latents that the base maps to x, where there are such."""
    info: dict[str, Any]
    """Numbers about how they were drawn; among them `gradients` and `evaluations`, see `Refiner`."""


class Refiner(Protocol):
    """Anything that draws samples with the help of a GEBM.

    `Samples.info` tells what one sample cost: `gradients`, evaluations of the energy with its gradient, and `evaluations`,
    those without, both means per sample.
    """

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        """n samples; with `BlockNoise` the i-th depends on i and the seed alone."""


@runtime_checkable
class Fitted(Protocol):
    """A refiner that can learn something from held-out data first, such as a calibration or where its chains start.

    One whose settings leave nothing to learn says so by `needs_data`.
    """

    def fit(self, gebm: GEBM, real: Tensor, generator: Generator, y: Tensor | None = None) -> Refiner:
        """The same refiner with what it learned from real data (m, *shape), labels (m,), once for all samples."""


@dataclass(frozen=True)
class BaseSampler:
    """The base alone: x = B(z), z ~ η. With the same generator, the very latents that a chain starts from.

    Args:
        chunk: samples at a time.
        noise: False leaves out the noise that belongs to the base, as a VAE's decoder has it: x = μ(z), and no latents.

    Raises:
        UserError: a base without such noise is to leave it out.
    """

    chunk: int = 512
    noise: bool = True

    def refine(self, gebm: GEBM, n: int, generator: Generator, y: Tensor | None = None) -> Samples:
        base: Any = gebm.base if self.noise else getattr(gebm.base, "noiseless", None)
        if base is None:
            raise UserError(
                f"noise=false needs a base with noise of its own, as model=vae: not {type(gebm.base).__name__}"
            )
        parts = []
        with sampling_mode(gebm), torch.no_grad():
            for rows, noise in chunks(n, generator, self.chunk):
                z = gebm.prior.sample(rows.stop - rows.start, noise)
                parts.append((call_base(base, z, None if y is None else y[rows]), z))
        x, z = (torch.cat(part) for part in zip(*parts, strict=True))
        return Samples(x, z if self.noise else None, {})


def chunks(n: int, generator: Generator, size: int) -> Iterator[tuple[slice, Generator]]:
    """Slices of at most `size` samples (rounded up to whole blocks of 64) and the noise of each."""
    if n < 1:
        raise ValueError(f"at least one sample must be asked for, not {n}")
    size = -(-size // BLOCK) * BLOCK
    for start in range(0, n, size):
        noise = generator.shifted(start) if isinstance(generator, BlockNoise) else generator
        yield slice(start, min(start + size, n)), noise
