"""Hugging Face image data sets in parquet files, from a folder or straight from the hub, read a row group at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import UserError, check_number, first_line
from .datasets import BatchDataset
from .images import check_settings
from .patterns import split_files
from .shards import Raw, Recent, Sharded

ROW_GROUPS = 1 << 20


class ParquetShards(Sharded):
    """The images of parquet files: a column of bytes, or of structs with `bytes`, and one of class numbers, or none.

    A file's footer is read when it is first needed; row groups are read whole, and as many kept as are shuffled into each
    other.

    Args:
        files: paths, or addresses that fsspec opens.
        image, label: names of the columns; a label that no file has is none.

    Raises:
        UserError: a file is damaged or no parquet, or has not the columns.
    """

    def __init__(
        self,
        files: Sequence[str],
        size: int,
        channels: int,
        mixed: int,
        skip_corrupt: bool,
        image: str,
        label: str | None,
    ) -> None:
        super().__init__(files, size, channels, mixed, skip_corrupt)
        self.image, self.label = image, label
        self._group_sizes: dict[int, list[int]] = {}
        self._begin()
        self.check()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._open_files: Recent[Any] = Recent(2 * self.mixed, self._open)
        self._groups: Recent[Any] = Recent(self.mixed, self._read)

    def _file(self, shard: int) -> Any:
        # Open files stay in the process that opened them: two that read by one would move each other's place.
        if self._process != os.getpid():
            self._begin()
        return self._open_files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": -1, "_open_files": None, "_groups": None}

    def units(self, shard: int) -> list[int]:
        if shard not in self._group_sizes:
            meta = self._file(shard).metadata
            self._group_sizes[shard] = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        return self._group_sizes[shard]

    def labels_in(self, shard: int) -> Tensor:
        labels = self._columns(shard, None, [self.label])[self.label]
        if labels.null_count:
            raise self._no_label(shard)
        return torch.tensor(labels.to_pylist(), dtype=torch.int64)

    def _no_label(self, shard: int) -> UserError:
        return UserError(
            f"{self.shards[shard]} has images without a {self.label}, and others have one: leave them out, or take "
            "data.label=null to go without labels"
        )

    def raw(self, shard: int, row: int) -> Raw:
        name, group, first = f"{row} of {self.shards[shard]}", 0, 0
        while row >= first + self.units(shard)[group]:
            first += self.units(shard)[group]
            group += 1
        self._file(shard)
        table = self._groups[shard * ROW_GROUPS + group]
        cell = table[self.image][row - first].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None and self.skip_corrupt:
            content = b""
        if not isinstance(content, bytes):
            raise UserError(
                f"the image {name} has no bytes in the column {self.image}: it is a path, or of another kind"
            )
        label = table[self.label][row - first].as_py() if self.label in table.column_names else None
        if label is None and self.label in table.column_names:
            raise self._no_label(shard)
        return Raw(content, label, name)

    def _open(self, shard: int) -> Any:
        try:
            import fsspec
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UserError("data=hf reads parquet files: pip install 'gebm-lightning[hf]'") from error
        path = self.shards[shard]
        try:
            file = pq.ParquetFile(fsspec.open(path, "rb").open() if "://" in path else path)
        except Exception as error:
            raise UserError(f"{path} is no parquet file, or a damaged one: {first_line(error)}") from error
        if self.image not in file.schema_arrow.names:
            raise UserError(
                f"{path} has the columns {', '.join(file.schema_arrow.names)}: set data.image to that of the images"
            )
        if self.label in file.schema_arrow.names and not pa.types.is_integer(
            kind := file.schema_arrow.field(self.label).type
        ):
            raise UserError(
                f"the column {self.label} of {path} is of {kind}, not of class numbers: set data.label to one that is, or to "
                "null to go without labels"
            )
        # Labels of a whole data set or none: the first file has decided.
        if self.labelled and self.label not in file.schema_arrow.names:
            raise UserError(f"{path} has no column {self.label}, and files before it have")
        return file

    def _read(self, key: int) -> Any:
        shard, group = divmod(key, ROW_GROUPS)
        there = [n for n in (self.image, self.label) if n in self._file(shard).schema_arrow.names]
        return self._columns(shard, group, there)

    def _columns(self, shard: int, group: int | None, names: list[str | None]) -> Any:
        file = self._file(shard)
        try:
            return (
                file.read(columns=names, use_threads=False)
                if group is None
                else file.read_row_group(group, columns=names, use_threads=False)
            )
        except Exception as error:
            raise UserError(f"{self.shards[shard]} is damaged or out of reach: {first_line(error)}") from error


@dataclass(frozen=True)
class HuggingFace:
    """A Hugging Face data set of images in parquet files, streamed in an order that is a function of (seed, step).

    Splits are files, as with `WebDataset`: those that `val` and `test` name, else those whose names begin with val or test,
    as the hub has them. Nothing is asked of the hub unless the path says so.

    Args:
        path: a folder of .parquet files, a pattern with `*`, one with a range, or an address that fsspec opens, such as
            `hf://datasets/USER/NAME/data/*.parquet`.
        val, test: the same, for these splits.
        size: pixels of a side, from the central square.
        channels: 3 for RGB, 1 for grey.
        mixed: files, and row groups, shuffled into each other at a time.
        image, label: names of the columns; a label of None goes without.
        skip_corrupt: pass over, and name, images that cannot be decoded.
    """

    path: str
    val: str | None = None
    test: str | None = None
    size: int = 64
    channels: int = 3
    mixed: int = 4
    image: str = "image"
    label: str | None = "label"
    skip_corrupt: bool = False
    name: ClassVar[str] = "hf"

    def __post_init__(self) -> None:
        check_settings(self.size, self.channels)
        check_number("data.source.mixed", self.mixed, low=1, integer=True)
        for key, name in {"image": self.image, "label": self.label}.items():
            if not (isinstance(name, str) or (key == "label" and name is None)):
                raise UserError(f"data.{key} must be the name of a column, not {name!r}")

    def split(self, name: str) -> BatchDataset:
        files = split_files(name, self.path, self.val, self.test, ".parquet")
        return ParquetShards(files, self.size, self.channels, self.mixed, self.skip_corrupt, self.image, self.label)
