"""Data in shards that are too many to look through first, in an order that is a function of (seed, step) all the same."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ..errors import UserError
from ..noise import stable_seed
from .batch import Batch
from .datasets import BatchDataset
from .images import decode

ROW_BITS = 32
FLIPPED = 1 << 62

T = TypeVar("T")


class Raw(NamedTuple):
    """An image as it lies in its shard: encoded bytes, class number or None, and how to name it in a sentence."""

    content: bytes
    label: int | None
    name: str


class Recent(OrderedDict[int, T]):
    """The `size` values used last, made when they are asked for: what bounds the memory of a pass over all shards."""

    def __init__(self, size: int, make: Callable[[int], T]) -> None:
        super().__init__()
        self.size, self.make = size, make

    def __missing__(self, key: int) -> T:
        value = self[key] = self.make(key)
        while len(self) > self.size:
            self.popitem(last=False)
        return value


class Sharded(BatchDataset):
    """Shards of images; one is first opened when its samples, or its place in the order, are needed.

    A sample's index is shard · 2^32 + row, so that no index needs the sizes of other shards. Subclasses have `units` and
    `raw`, and call `check` when they are made.

    Args:
        shards: their names.
        size: pixels of a side.
        channels: 1 or 3.
        mixed: how many shards are shuffled into each other at a time.
        skip_corrupt: read the next good image of the shard in place of one that cannot be decoded, and say so.

    Attributes:
        skipped: names of what was skipped in this process.
    """

    def __init__(self, shards: Sequence[str], size: int, channels: int, mixed: int, skip_corrupt: bool) -> None:
        self.shards, self.size, self.channels, self.mixed = list(shards), size, channels, mixed
        self.skip_corrupt, self.flip, self.labelled = skip_corrupt, False, False
        self.shape = (channels, size, size)
        self.skipped: set[str] = set()
        self._sizes: dict[int, int] = {}

    def units(self, shard: int) -> list[int]:
        """Sizes of the runs of rows of a shard that are read together: one for a tar file, row groups of parquet."""
        raise NotImplementedError

    def raw(self, shard: int, row: int) -> Raw:
        """One image, not yet decoded."""
        raise NotImplementedError

    def labels_in(self, shard: int) -> Tensor:
        """(rows,) labels of a shard."""
        raise NotImplementedError

    def check(self) -> None:
        """Decode the first image that there is, and see whether there are labels."""
        shard = next((i for i in range(len(self.shards)) if self._size(i)), None)
        if shard is None:
            raise UserError(f"there is no image in {self.shards[0]} nor in the other {len(self.shards) - 1} shards")
        self.labelled = self._image(shard << ROW_BITS)[1] is not None

    def _size(self, shard: int) -> int:
        if shard not in self._sizes:
            self._sizes[shard] = sum(self.units(shard))
        return self._sizes[shard]

    def __len__(self) -> int:
        return sum(map(self._size, range(len(self.shards))))

    def count(self, at_most: int) -> int:
        total = 0
        for shard in range(len(self.shards)):
            if total >= at_most:
                break
            total += self._size(shard)
        return min(total, at_most)

    def extent(self) -> str:
        return f"{len(self.shards)} shards from {self.shards[0]}"

    @property
    def y(self) -> Tensor | None:  # type: ignore[override]
        """(n,) the labels of all, for which every shard has to be opened; None if there are none."""
        return torch.cat([self.labels_in(i) for i in range(len(self.shards))]) if self.labelled else None

    def labels_of(self, indices: Tensor) -> Tensor | None:
        if not self.labelled:
            return None
        return torch.stack([self.labels_in(i >> ROW_BITS)[i & (1 << ROW_BITS) - 1] for i in indices.tolist()])

    def mirrored(self) -> BatchDataset:
        data = copy.copy(self)
        data.flip = True
        return data

    def sampler(self, batch_size: int, seed: int, start: int, rank: int, world: int) -> Sampler[list[int]]:
        return ShardSampler(self, batch_size, seed, start, rank, world)

    def fixed_order(self, start: int, stop: int) -> Tensor:
        return ShardOrder(self, seed=1).take(start, max(0, stop - start))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        found = [self._image(index & ~FLIPPED) for index in indices]
        x = torch.stack([x.flip(-1) if i & FLIPPED else x for i, (x, _) in zip(indices, found, strict=True)])
        return Batch(x, torch.tensor([y for _, y in found]) if self.labelled else None)

    def _image(self, index: int) -> tuple[Tensor, int | None]:
        shard, first = index >> ROW_BITS, index & (1 << ROW_BITS) - 1
        rows = self._size(shard)
        for offset in range(rows):
            raw = self.raw(shard, (first + offset) % rows)
            try:
                return decode(raw.content, self.size, self.channels, name=raw.name), raw.label
            except UserError as error:
                if not self.skip_corrupt:
                    raise UserError(f"{error}; data.skip_corrupt=true goes on without it") from error
                if raw.name not in self.skipped:
                    self.skipped.add(raw.name)
                    print(f"skipped, as number {len(self.skipped)} of this process: {error}", flush=True)
        raise UserError(f"none of the {rows} images of {self.shards[shard]} can be used")


class ShardOrder:
    """An endless stream of indices, every sample once an epoch; what is at a position depends on (seed, position) alone.

    In each epoch the shards are permuted and taken `mixed` at a time; their units are permuted and taken `mixed` at a time;
    the rows of these are permuted. What has to be known for a position is the sizes of the shards before it, not more.
    """

    def __init__(self, data: Sharded, seed: int) -> None:
        self.data, self.seed = data, seed
        self._begin(0, 0)

    def take(self, first: int, count: int) -> Tensor:
        """(count,) the indices at the positions from `first` on."""
        taken, position = [torch.empty(0, dtype=torch.int64)], first
        while position < first + count:
            self._find(position)
            taken.append(self._rows[position - self._start :][: first + count - position])
            position += len(taken[-1])
        return torch.cat(taken)

    def _begin(self, epoch: int, start: int) -> None:
        self._epoch, self._start, self._rows = epoch, start, torch.empty(0, dtype=torch.int64)
        self._parts = self._permuted(epoch)

    def _find(self, position: int) -> None:
        if position < self._start:
            self._begin(0, 0)
        while position >= self._start + len(self._rows):
            self._start += len(self._rows)
            # The old rows go before the new ones come.
            self._rows = torch.empty(0, dtype=torch.int64)
            rows = next(self._parts, None)
            if rows is not None:
                self._rows = rows
                continue
            whole = len(self.data) * (1 + self.data.flip)
            skipped = (position - self._start) // whole
            self._begin(self._epoch + 1 + skipped, self._start + skipped * whole)

    def _permuted(self, epoch: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(stable_seed(self.seed, "shards", epoch))
        mixed, data = self.data.mixed, self.data
        shards = torch.randperm(len(data.shards), generator=generator).tolist()
        for first in range(0, len(shards), mixed):
            units = [unit for shard in shards[first : first + mixed] for unit in self._units(shard)]
            units = [units[i] for i in torch.randperm(len(units), generator=generator).tolist()]
            for k in range(0, len(units), mixed):
                rows = torch.cat([torch.arange(begin, end) for begin, end in units[k : k + mixed]])
                if data.flip:
                    rows = torch.cat([rows, rows | FLIPPED])
                yield rows[torch.randperm(len(rows), generator=generator)]

    def _units(self, shard: int) -> Iterator[tuple[int, int]]:
        begin = shard << ROW_BITS
        for size in self.data.units(shard):
            yield begin, begin + size
            begin += size


class ShardSampler(Sampler[list[int]]):
    """An endless sequence of batches: that of `rank` at `step` begins at position (step · world + rank) · batch of the
    `ShardOrder`, as in `StepSampler`. So ranks and workers share an epoch out exactly, however they are divided into shards,
    and resuming needs no loader state.
    """

    def __init__(
        self, data: Sharded, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.start_step, self.rank, self.world_size = start_step, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        order, step = ShardOrder(self.data, self.seed), self.start_step
        while True:
            yield order.take((step * self.world_size + self.rank) * self.batch_size, self.batch_size).tolist()
            step += 1
