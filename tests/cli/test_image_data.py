"""Training runs on every kind of image data, from small files in their own formats."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gebm_lightning.cli import train

RNG = np.random.default_rng(0)


def encoded(form, *shape):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


def make_lsun(root):
    lmdb = pytest.importorskip("lmdb")
    for part, n in (("train", 80), ("val", 40)):
        path = root / f"church_outdoor_{part}_lmdb"
        path.mkdir()
        with lmdb.open(str(path), map_size=1 << 26) as env, env.begin(write=True) as transaction:
            for i in range(n):
                transaction.put(f"{i:040x}".encode(), encoded("WEBP", 20, 24, 3))
    return ["data=lsun", f"data.root={root}", "data.category=church_outdoor", "data.source.num_val=10"]


def make_folder(root):
    """PNG, JPEG and WebP; grey, RGB and RGBA; of unequal sizes."""
    kinds = [("PNG", (3,)), ("JPEG", ()), ("WEBP", (3,)), ("PNG", (4,)), ("JPEG", (3,)), ("WEBP", (4,)), ("PNG", ())]
    for i in range(120):
        form, channels = kinds[i % len(kinds)]
        (root / f"{i}.{form.lower()}").write_bytes(encoded(form, 16 + i % 4, 20 + i % 3, *channels))
    return ["data=folder", f"data.root={root}"]


def make_npz(root):
    arrays = {
        f"{part}_{key}": value
        for part, n in (("train", 80), ("test", 40))
        for key, value in (("x", RNG.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)), ("y", np.arange(n) % 4))
    }
    np.savez(root / "data.npz", **arrays)
    return ["data=npz", f"data.path={root / 'data.npz'}", "data.source.num_val=10", "model.num_classes=4"]


@pytest.mark.parametrize("make", [make_lsun, make_folder, make_npz])
@pytest.mark.parametrize("model", ["dcgan", "sngan", "resnet"])
def test_training_on_images(make, model, smoke, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    arguments = [*make(tmp_path / "data"), "data.size=8", f"model={model}", "features=identity", "data.num_workers=0"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *smoke, *arguments])
    train.main()
    run = Path(capsys.readouterr().out.strip().splitlines()[-1])
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["base", "short run", "equilibrium"]
    assert all(np.isfinite(list(row["scores"]["test"].values())).all() for row in rows)


def test_missing_inception_weights_are_found_before_anything_is_written(smoke, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(sys, "argv", ["train", *smoke, *make_folder(tmp_path / "data"), "data.size=8"])
    with pytest.raises(SystemExit):
        train.main()
    error = capsys.readouterr().err
    assert "features.weights=PATH" in error and len(error.strip().splitlines()) == 1
    assert not list((tmp_path / "runs").glob("*"))


def test_a_corrupt_image_met_by_a_loaders_process_is_named(command, smoke, tmp_path):
    (tmp_path / "data").mkdir()
    arguments = [*make_folder(tmp_path / "data"), "data.size=8", "features=identity", "data.num_workers=1"]
    for path in (tmp_path / "data").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    good = sorted((tmp_path / "data").iterdir())
    for path in good[::2]:
        path.write_bytes(encoded("PNG", 16, 16, 3))
    settings = [*smoke, *arguments, "callbacks.evaluation=null", "callbacks.monitor=null"]
    status, _, err = command(train, *settings)
    assert status == 1 and err.startswith("error: the image ") and "cannot be decoded" in err, err
    assert len(err.strip().splitlines()) == 1 and len(err) < 400
