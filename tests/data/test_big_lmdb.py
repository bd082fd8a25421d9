"""300,000 images in an LMDB: what it takes to start, to hold, to share out and to go on."""

import pickle
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gebm_lightning.data import LSUN, ImageDataModule
from gebm_lightning.data.lmdb import LMDBImages
from gebm_lightning.data.synthetic import numbers, write_lmdb

COUNT, HELD, BATCH, RANKS, WORKERS = 300_000, 1000, 100, 3, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """An LMDB of 300,000 images and one of 10, both with their key lists."""
    pytest.importorskip("lmdb")
    root = tmp_path_factory.mktemp("lsun")
    for part, count in (("train", COUNT), ("val", 10)):
        LMDBImages(write_lmdb(root / f"bedroom_{part}_lmdb", count), 4)
    return root


def loader(root, rank=0, world=1, step=0, workers=WORKERS):
    data = ImageDataModule(LSUN(str(root), size=4), [3, 4, 4], batch_size=BATCH, num_workers=workers)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(steps=step), global_rank=rank, world_size=world)
    return data.train_dataloader()


def private_bytes(root):
    """USS of this process and its children, but for pages of the database's files: those are the kernel's, and clean."""
    psutil = pytest.importorskip("psutil")
    me = psutil.Process()
    return sum(
        sum(m.private_dirty + m.private_clean for m in p.memory_maps() if not m.path.startswith(str(root)))
        for p in [me, *me.children()]
    )


def test_the_first_batch_comes_at_once(root, monkeypatch):
    monkeypatch.setattr(np, "save", lambda *_, **__: pytest.fail("the list of keys is made again"))
    start = time.process_time()
    batch = next(iter(loader(root)))
    assert time.process_time() - start < 3 and len(numbers(batch.x).unique()) == BATCH


def test_a_loader_process_that_is_not_forked_gets_no_copy_of_the_keys(root):
    data = LMDBImages(root / "bedroom_train_lmdb", 4)
    text = pickle.dumps(data)
    assert len(text) < 10_000
    assert numbers(pickle.loads(text).__getitems__([7, len(data) - 1]).x).tolist() == [7, len(data) - 1]


@pytest.mark.slow
def test_an_epoch_of_three_ranks_is_every_image_once_in_constant_memory(root):
    train = COUNT - HELD
    steps = -(-train // (BATCH * RANKS))
    # Filled, for pages of zeros would only become memory when they are written to.
    seen, memory = torch.full((steps, RANKS, BATCH), -1), []
    for step, batches in zip(
        range(steps), zip(*(loader(root, r, RANKS) for r in range(RANKS)), strict=True), strict=False
    ):
        seen[step] = torch.stack([numbers(batch.x) for batch in batches])
        if step % (steps // 8) == 0:
            memory.append(private_bytes(root))
    seen = seen.flatten()
    assert len(seen[:train].unique()) == train
    held = LSUN(str(root), size=4).split("val")
    apart = numbers(held.__getitems__(range(len(held))).x)
    assert len(apart) == HELD and len(torch.cat([seen[:train], apart]).unique()) == COUNT
    # In the first quarter forked processes part from pages that they shared, by counting references.
    settled = memory[2:]
    usual = sorted(settled)[len(settled) // 2]
    told = [f"{m / 1e6:.1f} MB" for m in memory]
    assert max(abs(m - usual) for m in settled) < 0.05 * usual, told
    step = steps // 2
    resumed = next(iter(loader(root, 1, RANKS, step)))
    assert torch.equal(numbers(resumed.x), seen[(step * RANKS + 1) * BATCH :][:BATCH])
