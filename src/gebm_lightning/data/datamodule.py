"""The Lightning data module: any source, served as `Batch`es in [−1, 1]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from ..errors import UserError
from .batch import Batch, to_unit
from .datasets import BatchDataset, Mirrored, StepSampler

SPLITS = ("train", "val", "test")


class Source(Protocol):
    """Where data come from: three disjoint splits."""

    name: str

    def split(self, name: str) -> BatchDataset:
        """The split "train", "val" or "test"."""


def _as_is(batch: Batch) -> Batch:
    return batch


class ImageDataModule(pl.LightningDataModule):
    """Serves a source; uint8 images become floats in [−1, 1] here and nowhere else.

    Args:
        source: the data, with its splits.
        shape: (C, H, W) of an image or (d,) of a vector; checked against the source.
        batch_size: samples a device sees in one step.
        seed: fixes the order of batches.
        flip: add mirror images to the train split.
        num_workers: loader processes.
        settings: keys that the config's other parts refer to (size, root, …); not used here.
    """

    def __init__(
        self,
        source: Source,
        shape: Sequence[int],
        batch_size: int = 128,
        seed: int = 0,
        flip: bool = False,
        num_workers: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise UserError(f"data.batch_size must be at least 2, not {batch_size}")
        self.source, self.shape, self.batch_size = source, tuple(shape), batch_size
        self.seed, self.flip, self.num_workers = seed, flip, num_workers
        self._splits: dict[str, BatchDataset] = {}

    def dataset(self, split: str) -> BatchDataset:
        """A split of the source, loaded once.

        Raises:
            UserError: there is no such split, or its data have another shape than `shape`.
        """
        if split not in SPLITS:
            raise UserError(f"a split is one of {', '.join(SPLITS)}, not {split}")
        if split not in self._splits:
            data = self.source.split(split)
            if data.shape != self.shape:
                raise UserError(f"{self.source.name} has data of shape {data.shape}, not data.shape={self.shape}")
            self._splits[split] = data
        return self._splits[split]

    def setup(self, stage: str | None = None) -> None:
        self.dataset("train")

    def train_dataloader(self) -> DataLoader[Any]:
        data: BatchDataset = self.dataset("train")
        if self.flip:
            if len(self.shape) != 3:
                raise UserError("data.flip=true mirrors images: these data are vectors")
            data = Mirrored(data)
        trainer = self.trainer
        start = getattr(trainer.lightning_module, "steps", 0) if trainer is not None else 0
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        sampler = StepSampler(len(data), self.batch_size, self.seed, start, rank, world)
        return DataLoader(
            data,
            batch_sampler=sampler,
            collate_fn=_as_is,  # type: ignore[arg-type]
            num_workers=self.num_workers,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(to_unit(batch.x), batch.y)

    def batches(self, split: str, size: int = 512, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Samples `start` to `stop` of a split in order, as `Batch`es in [−1, 1] on the CPU."""
        data = self.dataset(split)
        stop = len(data) if stop is None else min(stop, len(data))
        for first in range(start, stop, size):
            batch = data.__getitems__(range(first, min(first + size, stop)))
            yield Batch(to_unit(batch.x), batch.y)
