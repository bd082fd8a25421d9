"""`sample.py`: what it needs, what it leaves."""

from pathlib import Path

import numpy as np

from gebm_lightning import load
from gebm_lightning.cli import sample, train
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import BaseSampler


def test_sampling_needs_the_run_only(command, run, tmp_path):
    status, out, _ = command(sample, f"ckpt={run}", "num_samples=70")
    folder = Path(out.strip().splitlines()[-1])
    assert status == 0 and folder == run / "samples"
    assert len(list(folder.glob("0*.png"))) == 70 and (folder / "grid.png").is_file()
    status, out, _ = command(sample, f"ckpt={run}", "num_samples=70", "sampler=base", "out=x/base.npz")
    arrays = np.load(tmp_path / "x/base.npz")
    assert (
        status == 0
        and arrays["x"].shape == (70, 8, 8, 1)
        and arrays["x"].dtype == np.uint8
        and arrays["z"].shape == (70, 32)
    )
    expected = BaseSampler().refine(load(run), 70, BlockNoise(0, stream="evaluation"))
    np.testing.assert_allclose(arrays["z"], expected.z.numpy())
    for choice in (
        ["sampler=kla", "sampler.beta=100", "sampler.num_steps=3", "sampler.kernel.step_size=1e-4"],
        ["sampler=sir", "sampler.pool=100"],
    ):
        assert command(sample, f"ckpt={run}", "num_samples=5", f"out={choice[0][8:]}.npz", *choice)[0] == 0
    assert command(sample, f"ckpt={run}/checkpoints/last.ckpt", "num_samples=1", "seed=4", "ema=false")[0] == 0


def test_labels_of_an_unconditional_model(command, run):
    status, _, err = command(sample, f"ckpt={run}", "labels=[1]")
    assert status == 1 and "unconditional" in err


def test_samplers_do_not_mix_in_a_folder_and_traces_are_kept(command, run, tmp_path):
    command(sample, f"ckpt={run}", "num_samples=10", "out=here")
    command(sample, f"ckpt={run}", "num_samples=3", "out=here", "sampler=base")
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "gebm_files.json",
        "grid.png",
    ]
    (tmp_path / "here" / "000007.png").write_bytes(b"mine")
    command(sample, f"ckpt={run}", "num_samples=1", "out=here", "sampler=base")
    assert (tmp_path / "here" / "000007.png").read_bytes() == b"mine"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "000000.png").write_bytes(b"mine")
    status, _, err = command(sample, f"ckpt={run}", "num_samples=1", "out=there", "sampler=base")
    assert status == 1 and "did not write" in err and (tmp_path / "there" / "000000.png").read_bytes() == b"mine"
    command(sample, f"ckpt={run}", "num_samples=3", "out=t.npz", "sampler=ula", "sampler.num_steps=4", "sampler.thin=2")
    assert np.load(tmp_path / "t.npz")["trace"].shape == (2, 3, 32)


def test_images_of_classes_come_with_their_labels(command, smoke, tmp_path):
    status, out, err = command(train, *smoke, "model.num_classes=10", "callbacks.evaluation=null")
    assert status == 0, err
    run = out.strip().splitlines()[-1]
    assert command(sample, f"ckpt={run}", "num_samples=5", "labels=[7,1]", "out=here")[0] == 0
    lines = (tmp_path / "here" / "labels.csv").read_text().split()
    assert lines == ["file,label", "000000.png,7", "000001.png,1", "000002.png,7", "000003.png,1", "000004.png,7"]
    assert command(sample, f"ckpt={run}", "num_samples=2", "labels=[4]", "out=here")[0] == 0
    assert (tmp_path / "here" / "labels.csv").read_text().split()[1:] == ["000000.png,4", "000001.png,4"]
    command(sample, f"ckpt={run}", "num_samples=3", "out=f", "sampler=ula", "sampler.num_steps=4", "sampler.thin=2")
    names = {p.name for p in (tmp_path / "f").iterdir()}
    assert "chains.png" in names and "chains.png" not in {p.name for p in (tmp_path / "here").iterdir()}
