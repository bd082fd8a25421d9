"""Every source on small files in its own format, made here; and what each says of files that are not right."""

import gzip
import io
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from gebm_lightning import UserError
from gebm_lightning.config import compose, instantiate
from gebm_lightning.data import LSUN, CelebA, Folder, ImageDataModule, ImageNet32, Npz
from gebm_lightning.data.images import decode
from gebm_lightning.data.lmdb import LMDBImages, _close_environments

RNG = np.random.default_rng(0)
SPLITS = ("train", "val", "test")


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(array, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path):
    """60 images in two classes: PNG, JPEG and WebP; grey, RGB and RGBA; of unequal sizes."""
    for i in range(60):
        folder = tmp_path / "images" / ("ants" if i % 2 else "bees") / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        shape = (20 + i % 7, 24 + i % 5, *((), (3,), (4,))[i % 3])
        form = "JPEG" if i % 3 != 2 and i % 2 else "WEBP" if i % 4 == 0 and i % 3 == 1 else "PNG"
        (folder / f"{i}.{form.lower()}").write_bytes(encoded(pixels(*shape), form))
    return tmp_path / "images"


def lmdb_of(path, values, keys=None):
    lmdb = pytest.importorskip("lmdb")
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 26) as env, env.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(keys[i] if keys else f"{i:040x}".encode(), value)
    return path


@pytest.fixture
def lsun(tmp_path):
    """A small LSUN category in its own format: WebP values under 40-byte keys."""
    for part, n in (("train", 40), ("val", 10)):
        lmdb_of(tmp_path / f"bedroom_{part}_lmdb", [encoded(pixels(40, 50, 3), "WEBP", quality=90) for _ in range(n)])
    return tmp_path


def check_splits(source, shape, sizes):
    parts = {name: source.split(name) for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} == dict(zip(SPLITS, sizes, strict=True))
    for part in parts.values():
        batch = part.__getitems__(range(len(part)))
        assert batch.x.dtype == torch.uint8 and tuple(batch.x.shape[1:]) == part.shape == shape
    images = [bytes(x) for part in parts.values() for x in part.__getitems__(range(len(part))).x.flatten(1).numpy()]
    assert len(set(images)) == len(images), "splits overlap"
    return parts


def test_decoding_crops_the_centre_and_keeps_exact_pixels():
    array = pixels(12, 20, 3)
    assert torch.equal(decode(encoded(array), 12, 3), torch.from_numpy(array[:, 4:16].transpose(2, 0, 1).copy()))
    assert torch.equal(
        decode(encoded(array), 8, 3, crop=8), torch.from_numpy(array[2:10, 6:14].transpose(2, 0, 1).copy())
    )
    grey = pixels(8, 8)
    assert torch.equal(decode(encoded(grey), 8, 3), torch.from_numpy(grey)[None].expand(3, 8, 8))
    assert decode(encoded(array), 8, 1).shape == (1, 8, 8)
    clear = np.dstack([pixels(8, 8, 3), np.zeros((8, 8), np.uint8)])
    assert decode(encoded(clear), 8, 3).max() == 0


def test_a_tree_of_any_images(tree):
    parts = check_splits(Folder(str(tree), size=16, num_val=5), (3, 16, 16), (49, 5, 6))
    assert parts["train"].y.unique().tolist() == [0, 1]
    check_splits(Folder(str(tree), size=16, channels=1, num_val=5), (1, 16, 16), (49, 5, 6))


def test_a_tree_with_its_own_splits(tree, tmp_path):
    for name, n in (("train", 30), ("test", 8)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(n):
            (tmp_path / "own" / name / f"{i}.png").write_bytes(encoded(pixels(8, 8, 3)))
    check_splits(Folder(str(tmp_path / "own"), size=8, num_val=4), (3, 8, 8), (27, 3, 8))


def test_corrupt_images_are_named_or_skipped_and_counted(tree, capsys):
    bad = tree / "ants" / "deep" / "0-broken.jpeg"
    bad.write_bytes(b"\xff\xd8 no image")
    (tree / "ants" / "deep" / "tiny.png").write_bytes(encoded(pixels(4, 4, 3)))
    source = Folder(str(tree), size=16)
    with pytest.raises(UserError, match=r"0-broken\.jpeg cannot be decoded|tiny\.png has 4×4 pixels"):
        for name in SPLITS:
            part = source.split(name)
            part.__getitems__(range(len(part)))
    part = Folder(str(tree), size=16, skip_corrupt=True, num_val=5).split("train")
    assert len(part) == 49 and "skipped 2 of 62" in capsys.readouterr().out


def test_folders_that_hold_no_data(tmp_path):
    with pytest.raises(UserError, match="no folder of images"):
        Folder(str(tmp_path / "nowhere")).split("train")
    with pytest.raises(UserError, match="has no images in it"):
        Folder(str(tmp_path)).split("train")
    (tmp_path / "a.png").write_bytes(encoded(pixels(40, 40, 3)))
    with pytest.raises(UserError, match="only 1 usable images"):
        Folder(str(tmp_path)).split("train")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 images"):
        Folder(str(tmp_path), skip_corrupt=True).split("train")


def test_npz_with_parts_and_without(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        train_x=pixels(30, 8, 8, 3),
        train_y=np.arange(30) % 3,
        test_x=pixels(9, 8, 8, 3),
        test_y=np.arange(9),
    )
    parts = check_splits(Npz(str(tmp_path / "a.npz"), 8, num_val=4), (3, 8, 8), (27, 3, 9))
    assert parts["test"].__getitems__([3]).y.tolist() == [3]
    np.savez(tmp_path / "b.npz", x=pixels(50, 16, 16))
    check_splits(Npz(str(tmp_path / "b.npz"), 8, num_val=3), (1, 8, 8), (42, 3, 5))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((5, 8, 8), np.float32)}, "dtype float32"),
        ({"x": np.zeros((5, 8, 8, 4), np.uint8)}, r"shape \(5, 8, 8, 4\)"),
        ({"x": np.zeros((40, 8, 8), np.uint8), "y": np.zeros(3, int)}, "labels are 40 integers"),
        ({"data": np.zeros(3)}, "needs train_x"),
        ({"x": np.array([{}], dtype=object)}, "cannot be read"),
        (None, "cannot be read"),
        ("missing", "there is no file"),
    ],
    ids=str,
)
def test_npz_files_that_are_not_right(tmp_path, arrays, words):
    path = tmp_path / "a.npz"
    if arrays is None:
        path.write_bytes(b"PK\x03\x04 broken")
    elif arrays != "missing":
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=words):
        Npz(str(path), 8).split("train")


def test_lsun(lsun):
    source = LSUN(str(lsun), size=32, num_val=5)
    check_splits(source, (3, 32, 32), (36, 4, 10))
    keys = lsun / "bedroom_train_lmdb" / "keys.npy"
    assert np.load(keys, allow_pickle=False).shape == (40, 40) and not list(lsun.rglob("*.tmp"))
    stamp = keys.stat().st_mtime_ns
    check_splits(source, (3, 32, 32), (36, 4, 10))
    assert keys.stat().st_mtime_ns == stamp
    keys.write_bytes(keys.read_bytes()[:100])
    check_splits(source, (3, 32, 32), (36, 4, 10))
    assert np.load(keys).shape == (40, 40)


def test_lsun_in_worker_processes(lsun):
    settings = {"shape": [3, 32, 32], "batch_size": 8}
    plain = ImageDataModule(LSUN(str(lsun), size=32, num_val=5), **settings)
    workers = ImageDataModule(LSUN(str(lsun), size=32, num_val=5), num_workers=2, **settings)
    for a, b, _ in zip(plain.train_dataloader(), workers.train_dataloader(), range(6), strict=False):
        assert torch.equal(a.x, b.x)


def test_lmdb_files_that_are_not_right(lsun, tmp_path):
    with pytest.raises(UserError, match="there is no LMDB at"):
        LSUN(str(tmp_path), "church_outdoor").split("train")
    with pytest.raises(UserError, match="is empty"):
        LMDBImages(lmdb_of(tmp_path / "empty", []), 8)
    with pytest.raises(UserError, match="several lengths"):
        LMDBImages(lmdb_of(tmp_path / "keys", [b"a", b"b"], [b"1", b"22"]), 8)
    with pytest.raises(UserError, match="cannot be decoded"):
        LMDBImages(lmdb_of(tmp_path / "text", [b"no image"]), 8)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"junk" * 5000)
    with pytest.raises(UserError, match="is no LMDB, or a damaged one"):
        LMDBImages(tmp_path / "broken", 8)
    with pytest.raises(UserError, match="fewer than the 64 needed"):
        LSUN(str(lsun), size=64).split("train")


def test_celeba(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    rows = []
    for i in range(9):
        (tmp_path / "img_align_celeba" / f"{i:06d}.jpg").write_bytes(encoded(pixels(218, 178, 3), "JPEG"))
        rows.append(f"{i:06d}.jpg {i // 3}")
    with pytest.raises(UserError, match="list_eval_partition"):
        CelebA(str(tmp_path)).split("train")
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(rows) + "\n")
    check_splits(CelebA(str(tmp_path)), (3, 32, 32), (3, 3, 3))


def test_imagenet32(tmp_path):
    with pytest.raises(UserError, match="ImageNet-32 is not at"):
        ImageNet32(str(tmp_path)).split("train")
    for name, n in (("train_data_batch_1", 12), ("train_data_batch_2", 12), ("val_data", 5)):
        np.savez(tmp_path / f"{name}.npz", data=pixels(n, 3072), labels=np.arange(1, n + 1))
    parts = check_splits(ImageNet32(str(tmp_path), num_val=4), (3, 32, 32), (22, 2, 5))
    assert parts["test"].__getitems__([0]).y.tolist() == [0]
    np.savez(tmp_path / "val_data.npz", data=pixels(5, 100), labels=np.arange(5))
    with pytest.raises(UserError, match="is no batch of ImageNet-32"):
        ImageNet32(str(tmp_path)).split("test")


def mnist_files(root, name, counts=(64, 32)):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for part, n in zip(("train", "t10k"), counts, strict=True):
        images, labels = pixels(n, 28, 28), (np.arange(n) % 10).astype(np.uint8)
        files = {
            f"{part}-images-idx3-ubyte": struct.pack(">4i", 2051, n, 28, 28) + images.tobytes(),
            f"{part}-labels-idx1-ubyte": struct.pack(">2i", 2049, n) + labels.tobytes(),
        }
        for file, content in files.items():
            (raw / file).write_bytes(content)
            (raw / f"{file}.gz").write_bytes(gzip.compress(content))


@pytest.mark.parametrize(("data", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_torchvisions_layout(tmp_path, data, name):
    mnist_files(tmp_path, name)
    for size in (16, 28):
        source = instantiate(compose([f"data={data}", f"data.root={tmp_path}", f"data.size={size}"]).data.source)
        source = type(source)(source.dataset, source.root, source.size, num_val=4)
        check_splits(source, (1, size, size), (60, 4, 32))
    with pytest.raises(UserError, match=r"data\.download=true"):
        instantiate(compose([f"data={data}", f"data.root={tmp_path / 'nowhere'}"]).data).setup()


@pytest.mark.skipif("GEBM_REAL_DATA" not in os.environ, reason="GEBM_REAL_DATA names no folder with cifar10.npz")
def test_real_cifar10():
    source = Npz(os.path.join(os.environ["GEBM_REAL_DATA"], "cifar10.npz"))
    x = source.split("test").__getitems__(range(10_000)).x.double() / 255
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-3)


def small(path, n=1):
    path.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (path / f"{i}.png").write_bytes(encoded(pixels(8, 8, 3)))


def test_classes_are_the_first_folders_and_the_same_in_all_splits(tmp_path):
    for part, names in (("train", "abc"), ("test", "bc")):
        for name in names:
            small(tmp_path / part / name / "deep", 10)
    source = Folder(str(tmp_path), size=8)
    assert source.split("train").y.unique().tolist() == [0, 1, 2]
    assert source.split("test").y.tolist() == [1] * 10 + [2] * 10
    small(tmp_path / "test")
    assert Folder(str(tmp_path), size=8).split("train").y is None


def test_train_and_val_alone_stay_apart(tmp_path):
    small(tmp_path / "train" / "a", 30)
    small(tmp_path / "val" / "a", 5)
    source = Folder(str(tmp_path), size=8, num_val=1000)
    assert [len(source.split(name)) for name in SPLITS] == [27, 3, 5]
    assert {p.parts[-3] for p in source.split("test").files} == {"val"}
    assert {p.parts[-3] for p in source.split("val").dataset.files} == {"train"}


def test_a_small_set_keeps_most_for_training(tmp_path):
    np.savez(tmp_path / "a.npz", train_x=pixels(60, 8, 8), test_x=pixels(5, 8, 8))
    assert [len(Npz(str(tmp_path / "a.npz"), 8).split(name)) for name in SPLITS] == [54, 6, 5]
    with pytest.raises(UserError, match="num_val"):
        Npz(str(tmp_path / "a.npz"), 8, num_val=-5).split("train")
    with pytest.raises(UserError, match="no val split"):
        Npz(str(tmp_path / "a.npz"), 8, num_val=0).split("val")


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    expected = torch.from_numpy((ramp // 257).astype(np.uint8))
    assert torch.equal(decode(tmp_path / "a.png", 8, 1)[0], expected)


def test_parts_of_a_sorted_set_are_like_the_whole(tmp_path):
    y = np.repeat(np.arange(4), 100)
    np.savez(tmp_path / "a.npz", train_x=pixels(400, 8, 8), train_y=y, test_x=pixels(400, 8, 8), test_y=y)
    data = ImageDataModule(Npz(str(tmp_path / "a.npz"), 8), [1, 8, 8])
    (batch,) = data.batches("test", stop=80)
    assert batch.y.bincount().min() >= 10 and torch.equal(data.labels("test", 80), batch.y)
    a = torch.cat([b.x for b in data.batches("test", size=7, stop=50)])
    b = torch.cat([b.x for r in ((0, 20), (20, 50)) for b in data.batches("test", 16, *r)])
    assert torch.equal(a, b)


def test_an_lmdb_that_was_cut_off(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "bedroom_train_lmdb"
    with lmdb.open(str(path), map_size=1 << 26) as env, env.begin(write=True) as transaction:
        for i in range(200):
            transaction.put(f"{i:040x}".encode(), encoded(pixels(30, 30, 3)))
    content = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is cut off"):
        LMDBImages(path, 8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flip": "maybe"}, "data.flip"),
        ({"num_val": 5}, "data.num_val"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
    ],
)
def test_settings_of_the_data_module(tmp_path, settings, words):
    np.savez(tmp_path / "a.npz", x=pixels(60, 8, 8))
    with pytest.raises(UserError, match=words):
        ImageDataModule(Npz(str(tmp_path / "a.npz"), 8), [1, 8, 8], **settings)


def test_an_lmdb_with_a_damaged_page(tmp_path):
    path = lmdb_of(tmp_path / "bedroom_train_lmdb", [encoded(pixels(8, 8, 3)) for _ in range(400)])
    whole = (path / "data.mdb").read_bytes()
    data = LMDBImages(path, 8)
    # Two bytes at the tenth of a page say of what kind it is; 2 is a leaf, of which there are many, and 0 is none.
    leaves = [p for p in range(8192, len(whole), 4096) if whole[p + 10 : p + 12] == b"\x02\x00"]
    broken = bytearray(whole)
    for leaf in leaves:
        broken[leaf + 10] = 0
    _close_environments()
    (path / "data.mdb").write_bytes(broken)
    (path / "keys.npy").unlink()
    for read in (lambda: LMDBImages(path, 8), lambda: data.__getitems__([200])):
        with pytest.raises(UserError, match=r"the LMDB .* is damaged: .*; copy or unpack it again"):
            read()
    assert len(leaves) > 5
