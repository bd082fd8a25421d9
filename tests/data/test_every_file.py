"""Every kind of file that is read, cut off, with flipped bits, empty, or of another kind: one sentence, and no code of it is run."""

import gzip
import io
import json
import pickle
import random
import struct
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf
from PIL import Image

from gebm_lightning import UserError, build, compose, load
from gebm_lightning.cli.particles import points_of_file
from gebm_lightning.cli.record import read_run
from gebm_lightning.config import instantiate
from gebm_lightning.data import LSUN, Folder, HuggingFace, ImageNet32, Npz, Table, WebDataset
from gebm_lightning.data.synthetic import write_parquet, write_tar
from gebm_lightning.export import export_run
from gebm_lightning.metrics.features import Digits
from gebm_lightning.networks.pretrained import read_weights

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def served(source, splits=("train", "val", "test")):
    for name in splits:
        part = source.split(name)
        part.__getitems__(range(len(part)))


def run(folder):
    """A run's folder as training leaves it."""
    cfg = compose(["data=gaussian_grid", "model.width=4", f"run_dir={folder}"])
    OmegaConf.resolve(cfg)
    gebm = build(cfg)
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    state = {f"gebm.{name}": value for name, value in gebm.state_dict().items()}
    ours = {"format_version": 1, "version": "0", "base_updates": 3}
    torch.save({"state_dict": state, "gebm_lightning": ours}, folder / "checkpoints" / "last.ckpt")
    rows = [{"method": "base", "scores": {"test": {"fid_identity": 1.5, "relative_fid": 1.0}}}]
    (folder / "summary.json").write_text(json.dumps({"rows": rows, "protocol": {"seed": 0}, "base_updates": 3}))
    (folder / "metrics.csv").write_text("step,train/kale\n" + "\n".join(f"{i},{i / 7}" for i in range(20)) + "\n")
    return folder


def exported(folder):
    export_run(run(folder / "run"), folder / "out", program=False)
    return folder / "out" / "model.safetensors", lambda: load(folder / "out")


def of_run(name, read):
    def make(folder):
        home = run(folder / "run")
        return home / name, lambda: read(home)

    return make


def npz(folder):
    np.savez(folder / "a.npz", train_x=pixels(40, 8, 8), train_y=np.arange(40) % 3, test_x=pixels(20, 8, 8))
    return folder / "a.npz", lambda: served(Npz(str(folder / "a.npz"), 8))


def imagenet32(folder):
    for name in ("train_data_batch_1", "val_data"):
        np.savez(folder / f"{name}.npz", data=pixels(30, 3072), labels=np.arange(30) + 1)
    return folder / "train_data_batch_1.npz", lambda: served(ImageNet32(str(folder)), ("train", "val"))


def image(folder):
    for i in range(30):
        (folder / f"{i:02d}.png").write_bytes(png(pixels(12, 12, 3)))
    return folder / "07.png", lambda: served(Folder(str(folder), 8, 3))


def mnist(folder):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60), ("t10k", 20)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, n, 28, 28) + pixels(n, 28, 28).tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, n) + bytes(i % 10 for i in range(n)))
    cfg = compose(["data=mnist", f"data.root={folder}"]).data
    return raw / "train-images-idx3-ubyte", lambda: served(instantiate(cfg).source)


def wine(folder):
    rows = [";".join(f'"c{i}"' for i in range(12))] + [
        ";".join(f"{v:.1f}" for v in row) + ";5" for row in np.exp(RNG.normal(size=(80, 11)))
    ]
    (folder / "winequality-red.csv").write_text("\n".join(rows) + "\n")
    return folder / "winequality-red.csv", lambda: served(Table("redwine", str(folder)))


def power(folder):
    head = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1;Sub_metering_2;Sub_metering_3"
    rows = [
        f"16/12/2006;{i // 60:02d}:{i % 60:02d}:00;{1 + i / 7:.3f};0.1;{230 + i % 13}.5;4.6;{i % 3};{i % 5};{i % 7}"
        for i in range(90)
    ]
    (folder / "household_power_consumption.txt").write_text("\n".join([head, *rows]))
    return folder / "household_power_consumption.txt", lambda: served(Table("power", str(folder)))


def bsds300(folder):
    with h5py.File(folder / "BSDS300.hdf5", "w") as file:
        for part in ("train", "validation", "test"):
            file[part] = RNG.normal(size=(60, 63))
    return folder / "BSDS300.hdf5", lambda: served(Table("bsds300", str(folder)))


def keys_of_lmdb(folder):
    lmdb = pytest.importorskip("lmdb")
    for part in ("train", "val"):
        place = folder / f"bedroom_{part}_lmdb"
        place.mkdir()
        with lmdb.open(str(place), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
            for i in range(20):
                transaction.put(f"{i:040x}".encode(), png(pixels(9, 9, 3)))
    source = LSUN(str(folder), size=8)
    served(source)
    return folder / "bedroom_train_lmdb" / "keys.npy", lambda: served(LSUN(str(folder), size=8))


def tar(folder):
    path = write_tar(folder / "a.tar", range(12), classes=3)

    def read():
        data = WebDataset(str(folder), size=8, cache=str(folder / "cache")).split("train")
        data.__getitems__(data.fixed_order(0, len(data)).tolist())

    return path, read


def parquet(folder):
    path = write_parquet(folder / "a.parquet", range(12), classes=3)

    def read():
        data = HuggingFace(str(folder), size=8).split("train")
        data.__getitems__(data.fixed_order(0, len(data)).tolist())

    return path, read


def weights(name, save):
    def make(folder):
        tensors = {"layer.weight": torch.randn(3, 4), "layer.bias": torch.zeros(3)}
        save(tensors, folder / name)
        return folder / name, lambda: read_weights(folder / name)

    return make


def extractor(folder):
    path = folder / "digits.safetensors"
    path.write_bytes(Digits.weights().read_bytes())
    return path, lambda: Digits(path)


def points(folder):
    np.savez(folder / "p.npz", x=RNG.normal(size=(12, 2)))
    return folder / "p.npz", lambda: points_of_file("source.path", str(folder / "p.npz"))


KINDS = {
    "checkpoint": of_run("checkpoints/last.ckpt", load),
    "config": of_run("config.yaml", load),
    "summary": of_run("summary.json", read_run),
    "metrics": of_run("metrics.csv", read_run),
    "exported weights": exported,
    "npz": npz,
    "imagenet32": imagenet32,
    "image": image,
    "mnist": mnist,
    "wine": wine,
    "power": power,
    "bsds300": bsds300,
    "keys of an LMDB": keys_of_lmdb,
    "tar shard": tar,
    "parquet shard": parquet,
    "weights, torch": weights("w.pt", torch.save),
    "weights, safetensors": weights("w.safetensors", safetensors.torch.save_file),
    "weights, npz": weights("w.npz", lambda t, path: np.savez(path, **{k: v.numpy() for k, v in t.items()})),
    "extractor": extractor,
    "points": points,
}


class Evil:
    """A pickle that would leave a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def others(marker):
    """Files of every other kind, the hostile ones among them."""
    evil = pickle.dumps({"state_dict": Evil(marker)})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", evil)
        file.writestr("archive/version", "3\n")
        file.writestr(
            "x.npy",
            b"\x93NUMPY\x01\x00"
            + struct.pack("<H", 60)
            + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".ljust(60)
            + evil,
        )
    torched = io.BytesIO()
    torch.save({"state_dict": Evil(marker)}, torched)
    npy = io.BytesIO()
    np.save(npy, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    return {
        "empty": b"",
        "text": b"hello\n",
        "zeros": bytes(5000),
        "png": png(pixels(5, 5)),
        "gzip": gzip.compress(bytes(100)),
        "json": b"[1, 2]",
        "yaml": b"_target_: os.system\n_args_: [touch x]\n",
        "pickle": evil,
        "zip of a pickle": archive.getvalue(),
        "torch's pickle": torched.getvalue(),
        "numpy's pickle": npy.getvalue(),
    }


def damages(content, marker):
    rng = random.Random(0)
    for i in range(20):
        yield f"cut at {i}/20", content[: len(content) * i // 20]
    for i in range(30):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        yield f"flip {i}", bytes(flipped)
    yield from others(marker).items()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage(kind, tmp_path):
    home, marker = tmp_path / "home", tmp_path / "code was run"
    home.mkdir()
    path, read = KINDS[kind](home)
    content = path.read_bytes()
    read()
    wrong, sentences = [], 0
    for name, damaged in damages(content, marker):
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read()
            except UserError as error:
                sentences += 1
                if "\n" in str(error):
                    wrong.append(f"{name}: several lines: {error}")
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        if marker.exists():
            wrong.append(f"{name}: code of the file was run")
            marker.unlink()
    assert not wrong, "\n".join(wrong)
    # A key list is made again where it is no key list; all else is refused.
    assert sentences >= (0 if kind == "keys of an LMDB" else 15)
