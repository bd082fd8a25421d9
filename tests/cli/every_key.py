"""What the tests of every key share: which keys a config has, what is wrong for any of them, and data in small."""

import copy
import math

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from gebm_lightning.data.synthetic import write_lmdb, write_parquet, write_tar

WRONG = {"abc": "abc", "-1": -1, "nan": math.nan, "1e30": 1e30, "null": None, "[]": [], "{}": {}, "true": True}
SKIPPED = {"_target_", "_partial_", "_convert_"}

# Data in files, which `write_sources` makes in the working directory.
SOURCES = {
    **{name: [f"data={name}", f"data.path={name}", "data.size=8"] for name in ("hf", "webdataset")},
    **{name: [f"data={name}", f"data.root={name}", "data.size=8"] for name in ("lsun", "folder", "celeba")},
    "npz": ["data=npz", "data.path=a.npz", "data.size=8"],
    "imagenet32": ["data=imagenet32", "data.root=imagenet32"],
}


def leaves(cfg, path=()):
    """(path, value) of everything that is no dict; lists count as a whole, unresolved interpolations not."""
    for key in cfg:
        if isinstance(cfg._get_node(key), DictConfig) and not cfg._get_node(key)._is_none():
            yield from leaves(cfg[key], (*path, key))
        elif not OmegaConf.is_interpolation(cfg, key) and not OmegaConf.is_missing(cfg, key):
            yield (*path, key), cfg[key]


def target_of(cfg, path):
    """What a key belongs to: the nearest _target_ above it, and the way from there."""
    for depth in range(len(path) - 1, 0, -1):
        node = cfg
        for part in path[:depth]:
            node = node[part]
        if "_target_" in node:
            return node["_target_"], path[depth:]
    return "", path


def changed(cfg, path, value):
    """The config with another value of one key, or, if that is `...`, without it."""
    cfg = copy.deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    *above, key = path
    node = cfg
    for part in above:
        node = node[part]
    if value is ...:
        del node[key]
    else:
        node[key] = value
    return cfg


def nonsense(kind, value):
    """Whether a value of this kind is none, in the place of this one."""
    return (kind in ("[]", "{}") and isinstance(value, (int, float, str))) or (
        kind == "abc" and isinstance(value, (int, float))
    )


def write_sources(root):
    """A few images below `root` for each of `SOURCES`."""
    rng = np.random.default_rng(0)

    def pictures(folder, count, height, width, ending):
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{i:02d}.{ending}")

    for part, count in (("train", 40), ("val", 20), ("test", 20)):
        write_parquet(root / "hf" / f"{part}-0.parquet", range(count), classes=2)
        write_tar(root / "webdataset" / f"{part}-0.tar", range(count), classes=2)
        if part != "test":
            write_lmdb(root / "lsun" / f"bedroom_{part}_lmdb", count, size=8)
    pictures(root / "folder", 40, 9, 9, "png")
    pictures(root / "celeba" / "img_align_celeba", 60, 218, 178, "jpg")
    rows = [f"{i:02d}.jpg {i // 20}" for i in range(60)]
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(rows))
    x = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(root / "a.npz", train_x=x, test_x=x)
    (root / "imagenet32").mkdir()
    for name in ("train_data_batch_1", "val_data"):
        x, y = rng.integers(0, 256, (40, 3072), dtype=np.uint8), np.arange(40) + 1
        np.savez(root / "imagenet32" / f"{name}.npz", data=x, labels=y)
