"""Parquet shards, from a folder and from an address: every image once an epoch whoever reads, splits, labels, damage."""

import pickle
from types import SimpleNamespace

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.data import HuggingFace, ImageDataModule
from gebm_lightning.data.shards import ShardSampler
from gebm_lightning.data.synthetic import numbered_image, numbers, write_parquet

fsspec = pytest.importorskip("fsspec")
pq = pytest.importorskip("pyarrow.parquet")

SIZES = (7, 20, 1, 13, 9, 30, 4)
COUNT = sum(SIZES)


def write(folder, classes=3):
    first = 0
    for i, size in enumerate((*SIZES, 6, 5)):
        split = {7: "validation", 8: "test"}.get(i, "train")
        write_parquet(folder / f"{split}-{i:05d}-of-00009.parquet", range(first, first + size), classes=classes)
        first += size
    return folder


@pytest.fixture(params=["folder", "address"])
def source(tmp_path, request):
    """The same shards in a folder, and at an address that only fsspec knows."""
    place = str(write(tmp_path / "data"))
    if request.param == "address":
        memory = fsspec.filesystem("memory")
        memory.put(place, f"/{tmp_path.name}", recursive=True)
        place = f"memory://{tmp_path.name}"
    return lambda **settings: HuggingFace(**{"path": place, "size": 8, "mixed": 2} | settings)


def loader(source, batch, rank=0, world=1, step=0, workers=0):
    data = ImageDataModule(source, [3, 8, 8], batch_size=batch, num_workers=workers)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(steps=step), global_rank=rank, world_size=world)
    return data.train_dataloader()


def test_three_ranks_see_every_image_once_an_epoch_and_go_on_where_they_were(source):
    batch, world = 4, 3
    loaders = [loader(source(), batch, rank, world) for rank in range(world)]
    seen = torch.cat([numbers(b.x) for row, _ in zip(zip(*loaders, strict=True), range(15), strict=False) for b in row])
    for epoch in seen[: 2 * COUNT].view(2, COUNT):
        assert epoch.sort().values.tolist() == list(range(COUNT))
    assert not torch.equal(seen[:COUNT], seen[COUNT : 2 * COUNT])
    resumed = next(iter(loader(source(), batch, 1, world, step=9)))
    assert torch.equal(numbers(resumed.x), seen[(9 * world + 1) * batch :][:batch])


def test_loader_processes_read_files_of_their_own(tmp_path):
    source = HuggingFace(str(write(tmp_path / "data")), size=8, mixed=2)
    alone, shared = (
        [numbers(b.x).tolist() for b, _ in zip(loader(source, 6, workers=n), range(14), strict=False)] for n in (0, 2)
    )
    assert alone == shared


def test_what_is_pickled_opens_its_files_again(source):
    data = source().split("train")
    there = pickle.loads(pickle.dumps(data))
    index = next(iter(ShardSampler(data, 5, 0)))
    assert torch.equal(there.__getitems__(index).x, data.__getitems__(index).x)


def test_splits_are_files_and_labels_are_theirs(source):
    parts = {name: source().split(name) for name in ("train", "val", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": COUNT, "val": 6, "test": 5}
    for part in parts.values():
        batch = part.__getitems__(part.fixed_order(0, len(part)).tolist())
        assert torch.equal(batch.y, numbers(batch.x) % 3)
        assert torch.equal(part.y.bincount(minlength=3), batch.y.bincount(minlength=3))


def test_footers_are_read_when_they_are_needed(source, monkeypatch):
    opened = []
    real = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda *a, **k: opened.append(a) or real(*a, **k))
    next(iter(loader(source(mixed=1), 2)))
    assert 0 < len(opened) <= 3


def test_other_columns_and_no_labels(tmp_path):
    write_parquet(tmp_path / "a.parquet", range(9))
    assert HuggingFace(str(tmp_path), size=8).split("train").y is None
    with pytest.raises(UserError, match=r"a\.parquet has the columns image: set data\.image to that of the images"):
        HuggingFace(str(tmp_path), size=8, image="img").split("train")
    write_parquet(tmp_path / "b.parquet", range(9), classes=2)
    with pytest.raises(UserError, match=r"a\.parquet has no column label, and files before it have"):
        data = HuggingFace(str(tmp_path / "*.parquet"), size=8, test=str(tmp_path / "b*")).split("test")
        data.shards.append(str(tmp_path / "a.parquet"))
        data.units(1)


def test_damaged_and_missing_files(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", range(40))
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[: len(content) // 2], content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.parquet is no parquet file, or a damaged one"):
            HuggingFace(str(tmp_path), size=8).split("train")
    with pytest.raises(UserError, match="cannot be reached"):
        HuggingFace("nosuch://place/data", size=8).split("train")
    with pytest.raises(UserError, match="there are no shards memory://empty: an address ends in"):
        HuggingFace("memory://empty", size=8).split("train")


def write_columns(folder, **columns):
    pa = pytest.importorskip("pyarrow")
    images = [{"bytes": numbered_image(n, 8, "PNG"), "path": f"{n}.png"} for n in range(4)]
    folder.mkdir()
    pq.write_table(pa.table({"image": images} | columns), folder / "train.parquet")
    return lambda **settings: HuggingFace(str(folder), size=8, **settings).split("train")


def test_an_image_that_is_null_is_skipped_where_corrupt_ones_are(tmp_path, capsys):
    images = [{"bytes": numbered_image(n, 8, "PNG"), "path": None} for n in range(4)]
    for i, null in enumerate((None, {"bytes": None, "path": "2.png"})):
        train = write_columns(tmp_path / f"a{i}", image=[*images[:2], null, images[3]])
        with pytest.raises(UserError, match=r"the image 2 of .* has no bytes in the column image"):
            train().__getitems__([2])
        data = train(skip_corrupt=True)
        assert numbers(data.__getitems__([0, 2]).x).tolist() == [0, 3] and len(data.skipped) == 1
        assert "skipped, as number 1 of this process: the image 2 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, None, 2], "has images without a label"),
        ([None, 1, 0, 2], "has images without a label"),
        (["cat", "dog", "cat", "cow"], "is of string, not of class numbers"),
        ([0.0, 1.5, 2.0, 0.0], "is of double, not of class numbers"),
        ([[0], [1], [0, 1], []], "is of list.*, not of class numbers"),
    ],
)
def test_labels_that_are_no_class_numbers(tmp_path, labels, words):
    train = write_columns(tmp_path / "a", label=labels)
    with pytest.raises(UserError, match=words):
        train().y  # noqa: B018
    with pytest.raises(UserError, match=words):
        train().__getitems__([0, 1, 2, 3])
    data = train(label=None)
    assert data.y is None and data.__getitems__([0, 3]).y is None
