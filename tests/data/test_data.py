"""Sources have true splits; batches are a pure function of (seed, step)."""

import itertools
import math

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.config import compose, instantiate
from gebm_lightning.data import Batch, Digits, ImageDataModule
from gebm_lightning.data.batch import to_uint8, to_unit
from gebm_lightning.data.datasets import ArrayDataset, Mirrored, StepSampler
from gebm_lightning.data.lmdb import LMDBImages
from gebm_lightning.data.toys import gaussian_grid, ring, swiss_roll, three_rings


def take(sampler, n):
    iterator = iter(sampler)
    return [next(iterator) for _ in range(n)]


def test_bytes_become_numbers_and_come_back():
    every = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(every)
    assert unit.min() == -1 and unit.max() == 1
    assert torch.equal(to_uint8(unit), every)
    assert torch.equal(to_uint8(torch.tensor([-9.0, 9.0])), torch.tensor([0, 255], dtype=torch.uint8))


def test_digits_splits_are_disjoint_and_complete():
    from sklearn.datasets import load_digits

    splits = [Digits().split(name) for name in ("train", "val", "test")]
    assert [len(s) for s in splits] == [1197, 200, 400]
    images = torch.cat([s.x for s in splits]).flatten(1)
    assert sorted(map(bytes, images.numpy())) == sorted(
        map(bytes, (torch.from_numpy(load_digits().data) * (255 / 16)).float().round().to(torch.uint8).numpy())
    )
    larger = Digits(16).split("test").x
    assert larger.shape[-1] == 16 and torch.equal(larger[:, :, ::2, 1::2], splits[2].x)


def test_batch_order_depends_on_seed_and_step_alone():
    whole = take(StepSampler(10, 4, seed=1), 12)
    assert take(StepSampler(10, 4, seed=1, start_step=5), 7) == whole[5:]
    flat = [i for batch in whole for i in batch][:40]
    assert all(sorted(flat[k : k + 10]) == list(range(10)) for k in range(0, 40, 10))
    assert take(StepSampler(10, 4, seed=2), 12) != whole


def test_two_ranks_together_are_one_process():
    whole = take(StepSampler(10, 4, seed=1), 5)
    ranks = [take(StepSampler(10, 2, 1, rank=r, world_size=2), 5) for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole


def test_mirrored_images():
    data = ArrayDataset(torch.arange(8).view(2, 1, 2, 2))
    x = Mirrored(data).__getitems__([0, 2, 3]).x
    assert (
        torch.equal(x[0], data.x[0]) and torch.equal(x[1], data.x[0].flip(-1)) and torch.equal(x[2], data.x[1].flip(-1))
    )


def test_the_module_serves_numbers_in_range_from_any_worker():
    plain = ImageDataModule(Digits(), [1, 8, 8], batch_size=32)
    workers = ImageDataModule(Digits(), [1, 8, 8], batch_size=32, num_workers=2)
    for a, b, _ in zip(plain.train_dataloader(), workers.train_dataloader(), range(4), strict=False):
        assert torch.equal(a.x, b.x) and a.x.dtype == torch.uint8
        served = plain.on_after_batch_transfer(Batch(a.x, a.y), 0)
        assert served.x.dtype == torch.float32 and served.x.min() >= -1 and served.x.max() <= 1
    assert sum(len(b.x) for b in plain.batches("test")) == 400
    assert sum(len(b.x) for b in plain.batches("test", stop=30)) == 30


def test_data_held_on_the_device_are_the_same_batches():
    """In train_dataloader; on the meta device, where tensors have no values, all of a batch is on it."""
    plain, held = (ImageDataModule(Digits(), [1, 8, 8], batch_size=32, flip=True, on_device=on) for on in (False, True))
    for ours, theirs in itertools.islice(zip(held.train_dataloader(), plain.train_dataloader(), strict=False), 50):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.y, theirs.y)
    train = plain.dataset("train")
    moved = train.to("meta")
    assert len(moved) == len(moved.x) == len(train), "more on the device than is trained on"
    elsewhere = moved.mirrored().__getitems__([0, 5, len(train) + 1])
    assert elsewhere.x.device.type == elsewhere.y.device.type == "meta" and elsewhere.x.dtype == torch.uint8


def test_bad_data_settings_are_named():
    with pytest.raises(UserError, match=r"data\.size=12"):
        Digits(12)
    with pytest.raises(UserError, match=r"data\.shape"):
        ImageDataModule(Digits(), [3, 8, 8]).setup()
    with pytest.raises(UserError, match="batch_size"):
        ImageDataModule(Digits(), [1, 8, 8], batch_size=1)
    with pytest.raises(UserError, match=r"data\.on_device must be true or false"):
        ImageDataModule(Digits(), [1, 8, 8], on_device="yes")
    with pytest.raises(UserError, match=r"take data\.num_workers=0"):
        ImageDataModule(Digits(), [1, 8, 8], on_device=True, num_workers=2)
    with pytest.raises(UserError, match=r"data\.on_device=true holds data"):
        LMDBImages.to(None, "cpu")
    with pytest.raises(UserError, match="mirrors images"):
        module = instantiate(compose(["data=ring", "data.flip=true"]).data)
        module.setup()
        module.train_dataloader()


def test_toys_have_the_published_shapes():
    generator = torch.Generator().manual_seed(0)
    grid = gaussian_grid(20_000, generator) * 2.828
    nearest = (grid / 2).round() * 2
    assert nearest.abs().max() == 4 and len(torch.unique(nearest, dim=0)) == 25
    assert (grid - nearest).std().item() == pytest.approx(0.05, rel=4.5 / math.sqrt(80_000))
    points = ring(20_000, generator)
    assert points.norm(dim=1).mean().item() == pytest.approx(1, abs=0.001)
    assert len(torch.unique((torch.atan2(points[:, 1], points[:, 0]) / (math.pi / 4)).round() % 8)) == 8
    rings = three_rings(9_000, generator)
    centre = (rings[:, 1] / -0.75).round().clamp(0, 2) * -0.75
    torch.testing.assert_close(
        torch.stack([rings[:, 0], rings[:, 1] - centre], 1).norm(dim=1), torch.full((9_000,), 0.3)
    )
    assert swiss_roll(100, generator).shape == (100, 2)


def test_toy_splits_differ_and_repeat():
    source = instantiate(compose(["data=swiss_roll"]).data).source
    assert torch.equal(source.split("val").x, source.split("val").x)
    assert not torch.equal(source.split("val").x, source.split("test").x)
