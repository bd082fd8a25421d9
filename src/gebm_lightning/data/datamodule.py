"""The Lightning data module: any source, served as `Batch`es in [−1, 1]."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import UserError, check_number
from ..noise import stable_seed
from .batch import Batch, to_unit
from .datasets import BatchDataset

SPLITS = ("train", "val", "test")
SETTINGS = set("size channels root path category table download skip_corrupt val test image label".split())


class Source(Protocol):
    """Where data come from: three disjoint splits."""

    name: str

    def split(self, name: str) -> BatchDataset:
        """The split "train", "val" or "test"."""


def _as_is(batch: Batch) -> Batch:
    return batch


def _leave_signals_to_the_run(worker: int) -> None:
    # Ctrl-C and schedulers signal whole groups of processes: a loader's that died of it would break the last update.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


class ImageDataModule(pl.LightningDataModule):
    """Serves a source; uint8 images become floats in [−1, 1] here and nowhere else.

    Args:
        source: the data, with its splits.
        shape: (C, H, W) of an image or (d,) of a vector; checked against the source.
        batch_size: samples a device sees in one step.
        seed: fixes the order of batches.
        flip: add mirror images to the train split.
        num_workers: loader processes.
        on_device: hold the train split on the device that trains, as the bytes that it is; for data in memory.
        settings: keys that the config's other parts refer to, those of `SETTINGS`; not used here.

    Raises:
        UserError: a value that makes no sense, or another key.
    """

    def __init__(
        self,
        source: Source,
        shape: Sequence[int],
        batch_size: int = 128,
        seed: int = 0,
        flip: bool = False,
        num_workers: int = 0,
        on_device: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        check_number("data.batch_size", batch_size, low=2, integer=True)
        check_number("data.num_workers", num_workers, low=0, integer=True)
        if not isinstance(flip, bool):
            raise UserError(f"data.flip must be true or false, not {flip}")
        if not isinstance(on_device, bool):
            raise UserError(f"data.on_device must be true or false, not {on_device}")
        if on_device and num_workers:
            raise UserError("data.on_device=true leaves nothing for loader processes to do: take data.num_workers=0")
        unknown = sorted(set(settings) - SETTINGS)
        if unknown:
            raise UserError(f"data.{unknown[0]}: there is no such key; keys of the source are data.source.…")
        self.source, self.shape, self.batch_size = source, tuple(shape), batch_size
        self.seed, self.flip, self.num_workers, self.on_device = seed, flip, num_workers, on_device
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
        if self.on_device:
            data = data.to("cpu" if self.trainer is None else self.trainer.strategy.root_device)
        if self.flip:
            if len(self.shape) != 3:
                raise UserError("data.flip=true mirrors images: these data are vectors")
            data = data.mirrored()
        trainer = self.trainer
        start = getattr(trainer.lightning_module, "steps", 0) if trainer is not None else 0
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        sampler = data.sampler(self.batch_size, self.seed, start, rank, world)
        return DataLoader(
            data,
            batch_sampler=sampler,
            collate_fn=_as_is,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            worker_init_fn=_leave_signals_to_the_run,
            # Its own, so that starting the loader leaves everybody else's numbers as they are.
            generator=torch.Generator().manual_seed(stable_seed(self.seed, "loader")),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(to_unit(batch.x), batch.y)

    def order(self, split: str, start: int = 0, stop: int | None = None) -> Tensor:
        """(m,) the indices of samples `start` to `stop` in the order in which `batches` yields them."""
        data = self.dataset(split)
        return data.fixed_order(start, len(data) if stop is None else data.count(stop))

    def labels(self, split: str, stop: int | None = None) -> Tensor | None:
        """Labels of the first `stop` samples that `batches` yields, (m,), or None."""
        return self.dataset(split).labels_of(self.order(split, 0, stop))

    def batches(self, split: str, size: int = 512, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Samples `start` to `stop` of a split, in a fixed order, as `Batch`es in [−1, 1] on the CPU."""
        data, order = self.dataset(split), self.order(split, start, stop)
        for first in range(0, len(order), size):
            batch = data.__getitems__(order[first : first + size].tolist())
            yield Batch(to_unit(batch.x), batch.y)
