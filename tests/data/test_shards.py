"""Tar shards: every image once an epoch whoever reads, a place in the stream that is a function of (seed, step), damage."""

import io
import tarfile
from types import SimpleNamespace

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.data import ImageDataModule, WebDataset
from gebm_lightning.data.shards import ShardOrder, ShardSampler
from gebm_lightning.data.synthetic import numbered_image, numbers, write_tar

SIZES = (7, 20, 1, 13, 9, 30, 4)
COUNT = sum(SIZES)


def write(folder, sizes=SIZES, classes=3, prefix="data"):
    first = 0
    for i, size in enumerate(sizes):
        write_tar(folder / f"{prefix}-{i:03d}.tar", range(first, first + size), classes=classes)
        first += size
    return folder


@pytest.fixture
def source(tmp_path):
    write(tmp_path / "shards")
    write(tmp_path / "shards", (5,), prefix="val")

    def make(**settings):
        given = {"path": str(tmp_path / "shards"), "size": 8, "mixed": 2, "cache": str(tmp_path / "cache")}
        return WebDataset(**given | settings)

    return make


def members(path, *contents):
    with tarfile.open(path, "w") as tar:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def loader(source, batch, rank=0, world=1, step=0, workers=0, **settings):
    data = ImageDataModule(source, [3, 8, 8], batch_size=batch, num_workers=workers, **settings)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(steps=step), global_rank=rank, world_size=world)
    return data.train_dataloader()


def take(sampler, steps):
    return [batch for batch, _ in zip(sampler, range(steps), strict=False)]


def test_three_ranks_with_two_workers_see_every_image_once_an_epoch(source):
    batch, world = 4, 3
    loaders = [loader(source(), batch, rank, world, workers=2) for rank in range(world)]
    seen = torch.cat([numbers(b.x) for row, _ in zip(zip(*loaders, strict=True), range(15), strict=False) for b in row])
    for epoch in seen[: 2 * COUNT].view(2, COUNT):
        assert epoch.sort().values.tolist() == list(range(COUNT))
    assert not torch.equal(seen[:COUNT], seen[COUNT : 2 * COUNT])


def test_the_place_in_the_stream_depends_on_seed_and_step_alone(source):
    data = source().split("train")
    whole = take(ShardSampler(data, 6, 1), 60)
    fresh = source().split("train")
    for step in (0, 3, 14, 15, 41):
        assert take(ShardSampler(fresh, 6, 1, step), 5) == whole[step : step + 5]
    ranks = [take(ShardSampler(data, 3, 1, rank=r, world_size=2), 60) for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == whole
    assert take(ShardSampler(data, 6, 2), 60) != whole


def test_images_come_with_their_labels_and_mirrors(source):
    batch = next(iter(loader(source(), COUNT)))
    assert torch.equal(batch.y, numbers(batch.x) % 3)
    assert torch.equal(source().split("train").y.bincount(), (torch.arange(COUNT) % 3).bincount())
    x = next(iter(loader(source(), 2 * COUNT, flip=True))).x
    assert len(x.flatten(1).unique(dim=0)) == 2 * COUNT
    both = torch.cat([x, x.flip(-1)]).flatten(1).unique(dim=0)
    assert torch.equal(both, x.flatten(1).unique(dim=0))


def test_shards_are_opened_when_they_are_needed(source, monkeypatch):
    data = source().split("train")
    opened = []
    units = type(data).units
    monkeypatch.setattr(type(data), "units", lambda self, shard: opened.append(shard) or units(self, shard))
    ShardOrder(data, 0).take(0, 3)
    assert len(set(opened)) <= 2
    assert data.count(10) == 10 and data.count(10**9) == len(data) == COUNT


def test_places_are_kept_and_belong_to_one_file(source, tmp_path):
    source().split("train").count(10**9)
    kept = sorted((tmp_path / "cache").rglob("*"))
    assert len([p for p in kept if p.suffix == ".npy"]) == len(SIZES) and not [p for p in kept if p.suffix == ".tmp"]
    write_tar(tmp_path / "shards" / "data-000.tar", range(500, 503), classes=3)
    assert len(source().split("train")) == COUNT - SIZES[0] + 3


def test_splits_are_shards(source, tmp_path):
    folder = str(tmp_path / "shards")
    assert len(source().split("val")) == 5 and len(source().split("train")) == COUNT
    with pytest.raises(UserError, match=r"test split: name some with data\.test="):
        source().split("test")
    held = {"val": f"{folder}/data-{{000..001}}.tar", "test": f"{folder}/data-002.tar"}
    sizes = [len(source(**held).split(name)) for name in ("train", "val", "test")]
    assert sizes == [COUNT - 28 + 5, 27, 1]
    with pytest.raises(UserError, match="in the val split and in the test split"):
        source(val=held["test"], test=held["test"]).split("train")
    data = ImageDataModule(source(**held), [3, 8, 8])
    parts = [batch.x for r in ((0, 9), (9, 20)) for batch in data.batches("val", 4, *r)]
    assert torch.equal(torch.cat(parts), torch.cat([b.x for b in data.batches("val", stop=20)]))
    assert torch.equal(data.labels("val", 20), torch.cat([b.y for b in data.batches("val", stop=20)]))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "there are no shards"),
        ("shards/none-*.tar", "there are no shards"),
        ("shards/data-{000..009}.tar", r"3 of the 10 shards .* are missing, the first is .*data-007\.tar"),
        ("shards/data-{005..003}.tar", "is empty"),
    ],
)
def test_patterns_that_name_nothing(source, tmp_path, path, words):
    with pytest.raises(UserError, match=words):
        source(path=str(tmp_path / path)).split("train")


@pytest.mark.parametrize("at", [8 * 2048, 8 * 2048 + 600, 8 * 2048 + 100])  # between members, in one, in its header
def test_a_shard_that_was_cut_off(source, tmp_path, capsys, at):
    path = tmp_path / "shards" / "data-003.tar"
    content = path.read_bytes()
    path.write_bytes(content[:at])
    with pytest.raises(UserError, match=r"data-003\.tar is no tar file, or compressed, damaged or cut off"):
        len(source().split("train"))
    data = source(skip_corrupt=True).split("train")
    assert COUNT - 13 < len(data) < COUNT and "images are used" in capsys.readouterr().out
    with pytest.raises(UserError, match="cut off"):
        len(source().split("train"))


def test_shards_that_hold_no_images(source, tmp_path):
    path = tmp_path / "shards" / "data-000.tar"
    for content, words in ((b"", "no tar file"), (b"junk" * 500, "no tar file"), (None, "has no images in it")):
        members(path, ("a.txt", b"words")) if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            source().split("train")
        assert len(source(skip_corrupt=True).split("train")) == COUNT - SIZES[0]


def test_foreign_members_are_passed_over_and_nothing_is_extracted(source, tmp_path):
    path = tmp_path / "shards" / "data-000.tar"
    image = numbered_image(900, 8, "PNG")
    with tarfile.open(path, "w") as tar:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("folder.png", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, content in (
            ("._a.png", b"mac"),
            ("a.json", b"{}"),
            ("../../../out.png", image),
            ("../../../out.cls", b"2"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    before = sorted(p for p in tmp_path.parent.rglob("*") if "cache" not in p.parts)
    data = source(path=str(path)).split("train")
    batch = data.__getitems__([0])
    assert len(data) == 1 and numbers(batch.x).tolist() == [900] and batch.y.tolist() == [2]
    assert sorted(p for p in tmp_path.parent.rglob("*") if "cache" not in p.parts) == before


def test_corrupt_images_are_named_or_skipped_and_counted(source, tmp_path, capsys):
    path = tmp_path / "shards" / "data-000.tar"
    good = numbered_image(5, 8, "PNG")
    members(path, ("a.png", b"no image"), ("b.png", good), ("a.cls", b"0"), ("b.cls", b"2"))
    with pytest.raises(UserError, match=r"0 of .*data-000\.tar cannot be decoded.*skip_corrupt=true"):
        source().split("train")
    data = source(skip_corrupt=True).split("train")
    batch = data.__getitems__([0, 1, 0])
    assert numbers(batch.x).tolist() == [5, 5, 5] and batch.y.tolist() == [2, 2, 2] and len(data.skipped) == 1
    assert capsys.readouterr().out.count("skipped") == 1
    members(path, ("a.png", b"no image"))
    with pytest.raises(UserError, match="none of the 1 images"):
        source(path=str(path), skip_corrupt=True).split("train")


def test_labels_that_are_not_right(source, tmp_path):
    path = tmp_path / "shards" / "data-001.tar"
    image = numbered_image(1, 8, "PNG")
    for contents, words in (
        ([("a.png", image), ("a.cls", b"x\x1b[2J")], "is no class number"),
        ([("a.png", image), ("b.png", image), ("a.cls", b"1")], "1 of the 2 images .* have no .cls"),
        ([("a.png", image)], "shards before it have"),
    ):
        members(path, *contents)
        with pytest.raises(UserError, match=words) as error:
            len(source().split("train"))
        assert "\x1b" not in str(error.value)


def test_a_file_whose_name_has_brackets_is_no_pattern(tmp_path):
    path = write_tar(tmp_path / "[a]" / "b[1].tar", range(3))
    assert len(WebDataset(str(path), size=8, cache=str(tmp_path)).split("train")) == 3


def test_an_address_is_refused_at_once(source):
    for given in ({"path": "https://host/{0..2}.tar"}, {"val": "memory://x"}):
        with pytest.raises(UserError, match=r"data=webdataset reads files, and .*://.* is an address"):
            source(**given).split("train")


def test_a_shard_cut_off_before_a_label_goes_on_without_that_image(tmp_path, capsys):
    good, cut = (write_tar(tmp_path / "s" / f"{name}.tar", [n], classes=2) for n, name in enumerate("ab"))
    # The header of the image, its content in whole blocks, and a part of the label's header.
    with tarfile.open(cut) as tar:
        label = tar.getmember("000000001.cls")
    cut.write_bytes(cut.read_bytes()[: label.offset + 100])
    data = WebDataset(str(tmp_path / "s"), size=8, skip_corrupt=True, cache=str(tmp_path)).split("train")
    assert len(data) == 1 and data.y.tolist() == [0]
    assert f"{cut} is no tar file, or compressed, damaged or cut off" in capsys.readouterr().out
    with pytest.raises(UserError, match="cut off"):
        len(WebDataset(str(tmp_path / "s"), size=8, cache=str(tmp_path)).split("train"))
    assert good.is_file()


def test_what_is_no_image_is_told_without_an_address_in_memory(tmp_path):
    members(tmp_path / "a.tar", ("0.png", b"hello"))
    with pytest.raises(UserError, match=r"cannot be decoded: it is of no known kind; data\.skip_corrupt=true"):
        WebDataset(str(tmp_path), size=8, cache=str(tmp_path)).split("train")
