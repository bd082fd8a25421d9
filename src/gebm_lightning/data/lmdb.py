"""LSUN's LMDB files: WebP or JPEG bytes under fixed-length keys, indexed once, opened in each process by itself."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..errors import UserError, check_path, first_line
from . import lmdb_scan
from .batch import Batch
from .datasets import BatchDataset, held_out
from .images import check_settings, decode


class LMDBImages(BatchDataset):
    """The images of one LMDB.

    A list of keys is made once, beside the database or else in `cache`, as a plain (n, length) uint8 array that is
    memory-mapped; it is written under another name and renamed, so that an interruption leaves none.

    An LMDB has no checksums, and is not looked through at the start. That the file is as long as its head says, that no
    value is longer, and, when the list is made, that its tree holds together, is checked; what LMDB refuses later is a
    UserError. What remains: a flipped bit in an image that can still be decoded, or in a place that leads to another one,
    is not seen; and one in a length or place near the file's end can make LMDB read beyond it, which ends the process with
    a signal. Of a loader's process a sentence tells that; with data.num_workers=0, and in an evaluation, the process is the
    command's own. lmdb 3 checks every page: `python -m lmdb verify -e FOLDER`.

    Args:
        path: the LMDB's folder.
        size: pixels of a side.
        channels: 1 or 3.
        cache: folder for the key list where the database's own cannot be written.

    Raises:
        UserError: the folder is missing, damaged, empty, or holds something else than images.
    """

    def __init__(self, path: Path, size: int, channels: int = 3, cache: Path | None = None) -> None:
        self.path, self.size, self.channels, self.cache = path, size, channels, cache
        self.shape = (channels, size, size)
        if not (path / "data.mdb").is_file():
            raise UserError(
                f"there is no LMDB at {path.absolute()}: unpack LSUN's zip there, or set data.root and data.category"
            )
        self._keys = self._index()
        decode(self._value(0), size, channels, name=f"0 of {path}")

    def _open(self) -> Any:
        return _environment(self.path.absolute())

    def _index(self) -> np.ndarray:
        entries = self._open().stat()["entries"]
        if entries == 0:
            raise UserError(f"the LMDB {self.path} is empty")
        places = [self.path, *([self.cache] if self.cache is not None else [])]
        for place in places:
            keys = _read_keys(place / "keys.npy", entries)
            if keys is not None:
                return keys
        keys = _list_keys(self.path)
        for place in places:
            try:
                place.mkdir(parents=True, exist_ok=True)
                temporary = place / f"keys.{os.getpid()}.tmp"
                with temporary.open("wb") as file:
                    np.save(file, keys, allow_pickle=False)
                os.replace(temporary, place / "keys.npy")
                return np.load(place / "keys.npy", mmap_mode="r", allow_pickle=False)
            except OSError:
                continue  # a read-only place: the next, or none; the list in memory serves
        return keys

    def __getstate__(self) -> dict[str, Any]:
        # For loader processes that are not forked: a memory map would be pickled as a copy of the whole list.
        keys = Path(str(self._keys.filename)) if isinstance(self._keys, np.memmap) else self._keys
        return self.__dict__ | {"_keys": keys}

    def __setstate__(self, state: dict[str, Any]) -> None:
        keys = state["_keys"]
        self.__dict__ |= state | {"_keys": np.load(keys, mmap_mode="r") if isinstance(keys, Path) else keys}

    def _value(self, index: int) -> bytes:
        import lmdb

        environment = self._open()
        try:
            with environment.begin(buffers=True) as transaction:
                value = transaction.get(self._keys[index].tobytes())
                # Before it is copied: a damaged length would lead beyond the file, and end the process.
                if value is not None and len(value) > (self.path / "data.mdb").stat().st_size:
                    raise lmdb.CorruptedError(f"the image {index} is longer than the file")
                content = None if value is None else bytes(value)
        except lmdb.Error as error:
            raise _damaged(self.path, first_line(error)) from error
        if content is None:
            raise UserError(
                f"the key list of {self.path} does not belong to it, or it is damaged: delete keys.npy there"
            )
        return content

    def __len__(self) -> int:
        return len(self._keys)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        images = [decode(self._value(i), self.size, self.channels, name=f"{i} of {self.path}") for i in indices]
        return Batch(torch.stack(images))


_ENVIRONMENTS: dict[Path, Any] = {}


def _close_environments() -> None:
    # LMDB environments must not cross a fork: closed before it, each process opens its own when it needs one.
    while _ENVIRONMENTS:
        _ENVIRONMENTS.popitem()[1].close()


os.register_at_fork(before=_close_environments)


def _environment(path: Path) -> Any:
    # Kept, because LMDB refuses to open one path twice in a process.
    if path not in _ENVIRONMENTS:
        _ENVIRONMENTS[path] = _open_environment(path)
    return _ENVIRONMENTS[path]


def _open_environment(path: Path) -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise UserError("data=lsun needs the package lmdb: pip install lmdb") from error
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise UserError(f"{path} is no LMDB, or a damaged one: {first_line(error)}") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < needed:
        # Reading past its end would kill the process without a word.
        environment.close()
        raise UserError(f"{path} is cut off: data.mdb has {size} bytes of {needed}; copy or unpack it again")
    return environment


def _list_keys(path: Path) -> np.ndarray:
    # -P: beside the script lies this file, which is not the package lmdb.
    command = [sys.executable, "-P", lmdb_scan.__file__, str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode == 0:
        keys: np.ndarray = np.load(io.BytesIO(done.stdout), allow_pickle=False)
        return keys
    if -done.returncode in (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV):
        raise _damaged(path, f"LMDB cannot go through its pages ({signal.Signals(-done.returncode).name})")
    if done.returncode < 0:
        raise UserError(f"the process that lists the keys of {path} was ended by signal {-done.returncode}")
    raise _damaged(path, (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1])


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"the LMDB {path} is damaged: {reason}; copy or unpack it again")


def _read_keys(path: Path, entries: int) -> np.ndarray | None:
    try:
        keys = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    # An archive of arrays is no array.
    return (
        keys
        if isinstance(keys, np.ndarray) and keys.ndim == 2 and keys.dtype == np.uint8 and len(keys) == entries
        else None
    )


@dataclass(frozen=True)
class LSUN:
    """One LSUN category: `root/<category>_train_lmdb` and `root/<category>_val_lmdb`, the latter being the test split.

    Args:
        root: the folder with both.
        category: bedroom, church_outdoor, …
        size: pixels of a side, from the central square.
        num_val: train images kept for validation.
    """

    root: str
    category: str = "bedroom"
    size: int = 64
    num_val: int = 1000
    cache: str | None = None

    name: ClassVar[str] = "lsun"

    def __post_init__(self) -> None:
        check_settings(self.size)

    def split(self, name: str) -> BatchDataset:
        root, part = check_path("data.root", self.root), "val" if name == "test" else "train"
        cache = None if self.cache is None else check_path("data.source.cache", self.cache) / f"{self.category}_{part}"
        data = LMDBImages(root / f"{self.category}_{part}_lmdb", self.size, 3, cache)
        return data if name == "test" else held_out(data, name, {"val": self.num_val})
