"""Explicit randomness: every draw takes a generator, and samples depend on their index alone, not on batches or devices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 64


def stable_seed(*parts: int | str) -> int:
    """A 63-bit seed from integers and names, the same on every machine and in every process (SHA-256 of their text)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class BlockNoise:
    """One random stream per fixed block of 64 samples.

    Row `i` of any draw belongs to global sample `64 * first_block + offset + i`, whose numbers come from its block's own
    stream; so the same N samples come out whatever the chunk, batch or rank. Draws are made on the CPU, hence equal on
    every device.

    Args:
        seed: the seed shared by all blocks.
        first_block: global index of the first row's block.
        stream: a name; streams of different names are independent.
        offset: rows of the first block that are passed over, 0 to 63.
    """

    def __init__(self, seed: int, first_block: int = 0, stream: str = "", offset: int = 0) -> None:
        self.seed, self.first_block, self.stream, self.offset = seed, first_block, stream, offset
        self._generators: list[torch.Generator] = []

    def _block(self, index: int) -> torch.Generator:
        while len(self._generators) <= index:
            generator = torch.Generator()
            block = self.first_block + len(self._generators)
            generator.manual_seed(stable_seed(self.seed, self.stream, block))
            self._generators.append(generator)
        return self._generators[index]

    def draw(self, sampler: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """`sampler` (torch.randn or torch.rand) applied block by block; shape (n, ...)."""
        blocks = -(-(self.offset + shape[0]) // BLOCK)
        size = (BLOCK, *shape[1:])
        parts = [sampler(size, generator=self._block(i), dtype=dtype) for i in range(blocks)]
        return torch.cat(parts)[self.offset : self.offset + shape[0]] if parts else torch.empty(shape, dtype=dtype)

    def shifted(self, samples: int) -> BlockNoise:
        """Fresh noise that starts `samples` further on."""
        start = self.first_block * BLOCK + self.offset + samples
        return BlockNoise(self.seed, start // BLOCK, self.stream, start % BLOCK)

    def substream(self, name: str) -> BlockNoise:
        """Independent noise shared by all samples of this seed, whatever the block it is asked from."""
        return BlockNoise(self.seed, 0, f"{self.stream}/{name}")


Generator = torch.Generator | BlockNoise


def shared(generator: Generator, name: str) -> Generator:
    """Noise for what is estimated once for all samples, or decided for all of them at once, under a name of its own."""
    return generator.substream(name) if isinstance(generator, BlockNoise) else generator


def is_first(generator: Generator) -> bool:
    """Whether the samples that this generator draws begin with the first block, whose chains are looked at more closely."""
    return not isinstance(generator, BlockNoise) or (generator.first_block == 0 and generator.offset == 0)


def _draw(
    sampler: Callable[..., Tensor],
    shape: tuple[int, ...],
    generator: Generator,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Tensor:
    dtype = dtype or torch.get_default_dtype()
    if isinstance(generator, BlockNoise):
        drawn = generator.draw(sampler, tuple(shape), dtype)
        if device is not None and torch.device(device).type == "cuda":
            # From pinned memory, so that the next draw does not wait for what the GPU is at.
            return drawn.pin_memory().to(device, non_blocking=True)
        return drawn.to(device or "cpu")
    return sampler(tuple(shape), generator=generator, dtype=dtype, device=generator.device).to(
        device or generator.device
    )


def randn(
    shape: tuple[int, ...],
    generator: Generator,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Standard normal numbers of `shape` (n, ...) from an explicit generator."""
    return _draw(torch.randn, shape, generator, device, dtype)


def rand(
    shape: tuple[int, ...],
    generator: Generator,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Uniform numbers in [0, 1) of `shape` (n, ...) from an explicit generator."""
    return _draw(torch.rand, shape, generator, device, dtype)
