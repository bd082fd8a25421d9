"""Images a second from a folder, an LMDB and tar shards against decoding alone: `python benchmarks/data.py`.

One process, random 64×64 PNG images, sources interleaved, the fastest of several rounds; only the ratios mean something.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import torch

from gebm_lightning.data import LSUN, Folder, ImageDataModule, WebDataset
from gebm_lightning.data.images import decode
from gebm_lightning.data.synthetic import numbered_image, write_tar

COUNT, SIZE, BATCH, ROUNDS = 1200, 64, 100, 5


def write(root: Path) -> list[bytes]:
    """The same images in every form."""
    images = [numbered_image(i, SIZE, "PNG") for i in range(COUNT)]
    for i, image in enumerate(images):
        (root / "folder").mkdir(exist_ok=True)
        (root / "folder" / f"{i}.png").write_bytes(image)
    (root / "x_train_lmdb").mkdir()
    with (
        lmdb.open(str(root / "x_train_lmdb"), map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        for i, image in enumerate(images):
            transaction.put(f"{i:040x}".encode(), image)
    for shard in range(8):
        write_tar(root / "tar" / f"{shard:03d}.tar", range(shard, COUNT, 8), SIZE)
    return images


def seconds(work: Callable[[], object]) -> float:
    """The time that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print a table of ratios."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["GEBM_CACHE"] = folder
        images = write(root)
        sources: dict[str, Any] = {
            "folder": Folder(str(root / "folder"), SIZE),
            "LMDB": LSUN(folder, "x", SIZE),
            "tar shards": WebDataset(str(root / "tar"), size=SIZE),
        }
        loaders = {n: ImageDataModule(s, [3, SIZE, SIZE], BATCH).train_dataloader() for n, s in sources.items()}
        best = dict.fromkeys(["decoding", *loaders], float("inf"))
        steps = COUNT // BATCH
        for _ in range(ROUNDS):
            best["decoding"] = min(best["decoding"], seconds(lambda: [decode(i, SIZE, 3) for i in images]))
            for name, loader in loaders.items():
                taken = seconds(lambda loader=loader: list(itertools.islice(loader, steps)))  # type: ignore[misc]
                best[name] = min(best[name], taken)
    print("| source | images a second, decoding alone = 1 |\n|---|---|")
    for name in loaders:
        print(f"| {name} | {best['decoding'] / best[name]:.2f} |")


if __name__ == "__main__":
    main()
