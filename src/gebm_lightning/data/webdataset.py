"""WebDataset's tar shards, read by their members' places: nothing is extracted, and no member's name is ever a path."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, check_number, check_path, first_line
from .datasets import BatchDataset
from .images import EXTENSIONS, check_settings
from .patterns import split_files
from .shards import Raw, Recent, Sharded

NO_LABEL = -1


class TarShards(Sharded):
    """The images of uncompressed tar files: members `KEY.png`, `.jpg`, `.webp` …, with their class number in `KEY.cls`.

    A shard's headers are read when it is first needed, and the places of its images kept, as a (rows, 3) array of offset,
    size and label, in `cache`, under the hash of the shard's path, size and time. Other members, links among them, are
    passed over.

    Args:
        files: the shards.
        cache: folder for the places.

    Raises:
        UserError: a shard is damaged, compressed, cut off or without images, or only some of its images have labels.
    """

    def __init__(
        self, files: Sequence[str], size: int, channels: int, mixed: int, skip_corrupt: bool, cache: Path
    ) -> None:
        super().__init__(files, size, channels, mixed, skip_corrupt)
        self.cache = cache
        self._places = Recent(2 * mixed, self._index)
        self.check()

    def units(self, shard: int) -> list[int]:
        return [len(self._places[shard])]

    def labels_in(self, shard: int) -> Tensor:
        return torch.from_numpy(self._places[shard][:, 2])

    def raw(self, shard: int, row: int) -> Raw:
        path = self.shards[shard]
        offset, size, label = self._places[shard][row].tolist()
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise UserError(f"the shard {path} cannot be read any more: {first_line(error)}") from error
        return Raw(content, None if label == NO_LABEL else label, f"{row} of {path}")

    def _index(self, shard: int) -> np.ndarray:
        path = Path(self.shards[shard])
        try:
            stat = path.stat()
        except OSError as error:
            raise UserError(f"the shard {path} cannot be read: {first_line(error)}") from error
        key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:24]
        kept, problem = self.cache / f"{key}.npy", None
        try:
            places = np.load(kept, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            places, problem = read_places(path)
            if problem is None:
                _keep(places, kept)
            elif not self.skip_corrupt:
                raise UserError(
                    f"{problem}: copy it again, or take what is whole with data.skip_corrupt=true"
                ) from None
            elif str(path) not in self.skipped:
                self.skipped.add(str(path))
                print(f"{problem}: its first {len(places)} images are used", flush=True)
        # Labels of a whole data set or none: the first shard has decided.
        if problem is not None and self.labelled:
            # The label of the last image that is whole may be what was cut off.
            places = places[places[:, 2] != NO_LABEL]
        if self.labelled and (places[:, 2] == NO_LABEL).any():
            raise UserError(f"the shard {path} has no .cls members, and shards before it have")
        return places


def read_places(path: Path) -> tuple[np.ndarray, str | None]:
    """(rows, 3) int64 offset, size and label, or −1, of the images in a tar file, and what is wrong with the file, or None.

    Raises:
        UserError: only some images have a label, or one is no class number.
    """
    found: list[tuple[str, int, int]] = []
    labels: dict[str, int] = {}
    problem = None
    try:
        end = path.stat().st_size
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0 or member.offset_data + member.size > end:
                    raise tarfile.ReadError("unexpected end of data")
                folder, _, base = member.name.rpartition("/")
                key, _, extension = base.partition(".")
                if not member.isreg() or not key:
                    continue
                if f".{extension.lower()}" in EXTENSIONS:
                    found.append((f"{folder}/{key}", member.offset_data, member.size))
                elif extension == "cls":
                    labels[f"{folder}/{key}"] = _label(tar, member, path)
            # tarfile takes a file that was cut off between two members for a whole one; an archive ends in zeros.
            file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
            if any(file.read()):
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        problem = f"the shard {path} is no tar file, or compressed, damaged or cut off ({first_line(error)})"
    if not found and problem is None:
        problem = f"the shard {path} has no images in it"
    missing = sum(key not in labels for key, _, _ in found)
    if labels and missing and problem is None:
        raise UserError(
            f"{missing} of the {len(found)} images of the shard {path} have no .cls member, the others have"
        )
    rows = [(offset, size, labels.get(key, NO_LABEL)) for key, offset, size in found if not labels or key in labels]
    return np.array(rows, np.int64).reshape(-1, 3), problem


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    file = tar.extractfile(member)
    text = b"" if file is None else file.read(20).strip()
    if not re.fullmatch(rb"\d{1,18}", text):
        raise UserError(f"the member {member.name!a} of the shard {path} is no class number: {text!a}")
    return int(text)


def _keep(places: np.ndarray, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.save(file, places, allow_pickle=False)
        os.replace(temporary, path)
    except OSError:
        pass  # a cache that cannot be written: headers are read again when they are needed again


@dataclass(frozen=True)
class WebDataset:
    """Tar shards of images: streamed, in an order that is a function of (seed, step), whatever the ranks and workers.

    A stream cannot be cut by a permutation, so splits are shards: those that `val` and `test` name, else those of the folder
    `path` whose file names begin with val or test; all others of `path` are the train split.

    Args:
        path: a folder of .tar files, a pattern with `*`, or one with a range, `data-{000000..000123}.tar`.
        val, test: the same, for these splits.
        size: pixels of a side, from the central square.
        channels: 3 for RGB, 1 for grey.
        mixed: shards shuffled into each other at a time; the headers of as many are read before the first batch.
        skip_corrupt: pass over, and name, images that cannot be decoded and what is cut off.
        cache: folder for the places of images in shards; by default in `$GEBM_CACHE`.
    """

    path: str
    val: str | None = None
    test: str | None = None
    size: int = 64
    channels: int = 3
    mixed: int = 4
    skip_corrupt: bool = False
    cache: str | None = None
    name: ClassVar[str] = "webdataset"

    def __post_init__(self) -> None:
        check_settings(self.size, self.channels)
        check_number("data.source.mixed", self.mixed, low=1, integer=True)
        if self.cache is not None:
            check_path("data.source.cache", self.cache)

    def split(self, name: str) -> BatchDataset:
        for given in (self.path, self.val, self.test):
            if "://" in str(given):
                raise UserError(
                    f"data=webdataset reads files, and {given} is an address: copy the shards here; data=hf reads at addresses"
                )
        usual = os.environ.get("GEBM_CACHE", "~/.cache/gebm_lightning")
        root = Path(usual if self.cache is None else str(self.cache)).expanduser()
        files = split_files(name, self.path, self.val, self.test, ".tar")
        return TarShards(files, self.size, self.channels, self.mixed, self.skip_corrupt, root / "shards")
