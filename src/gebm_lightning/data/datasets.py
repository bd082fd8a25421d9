"""Map-style data fetched a batch at a time, and their order as a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..errors import UserError, check_number
from ..noise import stable_seed
from .batch import Batch


class BatchDataset(Dataset[Batch]):
    """The contract: `len`, the shape of one datum, and `__getitems__(indices) -> Batch` of uint8 images or floats.

    `y` holds the labels of all, (n,), or None. The rest is there for data whose length is not known before they are looked
    through.
    """

    shape: tuple[int, ...]
    y: Tensor | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        raise NotImplementedError

    def count(self, at_most: int) -> int:
        """The length, or `at_most` if that is less."""
        return min(len(self), at_most)

    def extent(self) -> str:
        """What tells this data set from a longer or shorter one of its kind."""
        return str(len(self))

    def fixed_order(self, start: int, stop: int) -> Tensor:
        """(m,) the indices at positions `start` to `stop` of a fixed permutation: files on disk are often sorted by class, and a
        part should be like the whole."""
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(1))[start:stop]

    def labels_of(self, indices: Tensor) -> Tensor | None:
        """(m,) labels, or None."""
        return None if self.y is None else self.y[indices]

    def to(self, device: torch.device | str) -> BatchDataset:
        """This data set with all that it holds on a device.

        Raises:
            UserError: it is not in memory.
        """
        raise UserError("data.on_device=true holds data on the device: these are read as they are needed")

    def mirrored(self) -> BatchDataset:
        """This data set and its mirror images."""
        return Mirrored(self)

    def sampler(self, batch_size: int, seed: int, start: int, rank: int, world: int) -> Sampler[list[int]]:
        """The endless batches of one rank, from step `start` on."""
        return StepSampler(len(self), batch_size, seed, start, rank, world)


class ArrayDataset(BatchDataset):
    """Tensors in memory: x (n, *shape) uint8 images or floats, y (n,) labels or None."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y = x, y
        self.shape = tuple(x.shape[1:])

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> ArrayDataset:
        return ArrayDataset(self.x.to(device), None if self.y is None else self.y.to(device))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices)
        if self.x.is_cuda:
            index = index.pin_memory().to(self.x.device, non_blocking=True)
        return Batch(self.x[index], None if self.y is None else self.y[index])


class Part(BatchDataset):
    """Those samples of a dataset that `index` (m,) names, in its order."""

    def __init__(self, dataset: BatchDataset, index: Tensor) -> None:
        self.dataset, self.index, self.shape = dataset, index, dataset.shape
        self.y = None if dataset.y is None else dataset.y[index]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> ArrayDataset:
        # Only its own: the device holds no more than it trains on.
        return ArrayDataset(*self.dataset.__getitems__(self.index.tolist())).to(device)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.dataset.__getitems__(self.index[torch.as_tensor(indices)].tolist())


class Mirrored(BatchDataset):
    """A dataset and its mirror images: index i + n is image i flipped left to right."""

    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset, self.shape = dataset, dataset.shape
        self.y = None if dataset.y is None else dataset.y.repeat(2)

    def __len__(self) -> int:
        return 2 * len(self.dataset)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        n = len(self.dataset)
        x, y = self.dataset.__getitems__([i % n for i in indices])
        flipped = torch.as_tensor([i >= n for i in indices])
        if x.is_cuda:
            flipped = flipped.pin_memory()
        flipped = flipped.to(x.device, non_blocking=x.is_cuda)
        return Batch(torch.where(flipped.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x), y)


def held_out(dataset: BatchDataset, name: str, counts: dict[str, int]) -> BatchDataset:
    """The part `name` of one dataset cut by a fixed permutation into parts of `counts`, each at most a tenth of the whole,
    and "train", which is what is left.

    Raises:
        UserError: a count is negative, or the dataset is too small to be cut.
    """
    n = len(dataset)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    start = 0
    for part, count in counts.items():
        check_number(f"data.source.num_{part}", count, low=0, integer=True)
        count = min(count, n // 10)
        if part == name:
            if count == 0:
                raise UserError(
                    f"there is no {name} split: it was to be cut from only {n} images, or data.source.num_{name}=0"
                )
            return Part(dataset, order[start : start + count])
        start += count
    return Part(dataset, order[start:])


class StepSampler(Sampler[list[int]]):
    """An endless sequence of batches; the one at `step` depends on (seed, step) alone: resuming needs no loader state.

    Position p = step · batch · world + rank · batch + j of the stream is entry p mod n of the permutation of epoch p // n.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.start_step, self.rank, self.world_size = start_step, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0)
        step = self.start_step
        while True:
            first = (step * self.world_size + self.rank) * self.batch_size
            batch: list[int] = []
            while len(batch) < self.batch_size:
                position = first + len(batch)
                if position // self.size != epoch:
                    epoch = position // self.size
                    order = torch.empty(0)  # the old one goes before the new one comes
                    generator = torch.Generator().manual_seed(stable_seed(self.seed, "data", epoch))
                    order = torch.randperm(self.size, generator=generator)
                at = position % self.size
                batch += order[at : at + self.batch_size - len(batch)].tolist()
            yield batch
            step += 1
