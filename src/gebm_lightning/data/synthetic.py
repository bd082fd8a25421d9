"""Big data in small: LMDBs, tar and parquet shards of numbered images, each of which tells its number when decoded."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def numbered_image(number: int, size: int = 4, form: str = "PPM") -> bytes:
    """A size×size RGB image, at least 2×2, whose first 8 bytes are its number; `form` is lossless: PPM (fast) or PNG."""
    raw = number.to_bytes(8, "little") + bytes((number * 31 + k) % 256 for k in range(3 * size * size - 8))
    if form == "PPM":
        return b"P6 %d %d 255\n" % (size, size) + raw
    buffer = io.BytesIO()
    Image.frombytes("RGB", (size, size), raw).save(buffer, form)
    return buffer.getvalue()


def numbers(x: Tensor) -> Tensor:
    """The numbers (n,) of decoded images (n, 3, size, size) uint8."""
    first = x.permute(0, 2, 3, 1).reshape(len(x), -1)[:, :8].contiguous()
    return torch.from_numpy(first.numpy().view(np.int64)[:, 0].copy())


def write_lmdb(path: Path, count: int, size: int = 4) -> Path:
    """An LMDB as LSUN's, with the images 0 to count − 1 under keys of 40 characters."""
    import lmdb

    path.mkdir(parents=True)
    with (
        lmdb.open(str(path), map_size=count * (3 * size * size + 400) + (1 << 20)) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number in range(count):
            transaction.put(f"{number:040x}".encode(), numbered_image(number, size), append=True)
    return path


def write_tar(path: Path, images: Iterable[int], size: int = 8, classes: int | None = None) -> Path:
    """A tar shard of PNG images with the given numbers and, if there are classes, `.cls` members, number mod classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in images:
            members = {"png": numbered_image(number, size, "PNG")}
            if classes is not None:
                members["cls"] = str(number % classes).encode()
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{number:09d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def write_parquet(
    path: Path, images: Iterable[int], size: int = 8, classes: int | None = None, row_group: int = 5
) -> Path:
    """A parquet shard as the Hugging Face hub has them: structs of PNG bytes and a path, and labels, number mod classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    given = list(images)
    columns: dict[str, object] = {
        "image": [{"bytes": numbered_image(number, size, "PNG"), "path": f"{number}.png"} for number in given]
    }
    if classes is not None:
        columns["label"] = [number % classes for number in given]
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path
