"""`particles.py`: what it needs, what it leaves."""

import csv
import inspect
from itertools import pairwise
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from gebm_lightning import compose
from gebm_lightning.cli import flow_figures, particles
from gebm_lightning.config import instantiate

SMOKE = ["num_steps=6", "num_particles=20", "target.num=30", "frames=3"]
FILES = ["animation.gif", "config.yaml", "final.png", "gebm_files.json", "losses.csv", "particles.npz"]


def losses(folder):
    with (folder / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "gradient_norm"]
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]


@pytest.mark.parametrize("flow", ["mmd_flow", "kale_flow"])
@pytest.mark.parametrize("data", ["three_rings", "ring"])
def test_a_flow_leaves_a_folder(command, tmp_path, flow, data):
    status, out, err = command(particles, *SMOKE, f"particles={flow}", f"data={data}", "out=a/b", "seed=3")
    assert status == 0, err
    lines = out.strip().splitlines()
    assert lines[-1] == "a/b" and lines[0].startswith("step 0 of 6, loss") and lines[-2].startswith("step 6 of 6, loss")
    folder = tmp_path / "a" / "b"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"] and [p.name for p in tmp_path.iterdir()] == ["a"]
    steps, values = losses(folder)
    assert steps == list(range(7)) and all(b < a for a, b in pairwise(values))
    arrays = np.load(folder / "particles.npz")
    assert arrays["initial"].shape == arrays["final"].shape == (20, 2) and arrays["target"].shape == (30, 2)
    assert arrays["trace"].shape == (4, 20, 2) and arrays["trace_steps"].tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(arrays["trace"][[0, -1]], [arrays["initial"], arrays["final"]])
    np.testing.assert_allclose(arrays["initial"].mean(0), [0, -0.3], atol=0.01)
    assert Image.open(folder / "animation.gif").n_frames == 4
    # The flow can be run again from what is there.
    cfg = OmegaConf.load(folder / "config.yaml")
    told = instantiate(cfg.particles).run(torch.from_numpy(arrays["initial"]), torch.from_numpy(arrays["target"]), 6)
    np.testing.assert_allclose(told.particles.numpy(), arrays["final"], rtol=1e-9)


def test_the_seed_decides_and_a_flow_goes_on(command, tmp_path):
    given = [*SMOKE, "animation=null", "particles=mmd_flow", "particles.noise=0.1"]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert command(particles, *given, f"seed={seed}", f"out={name}")[0] == 0
    a, b, c = (np.load(tmp_path / name / "particles.npz") for name in "abc")
    np.testing.assert_array_equal(a["final"], b["final"])
    assert not np.allclose(a["target"], c["target"]) and not np.allclose(a["initial"], c["initial"])
    assert "animation.gif" not in {p.name for p in (tmp_path / "a").iterdir()}
    assert command(particles, *given, "source.path=a/particles.npz", "target.path=points.npz", "out=d")[0] == 1
    np.savez(tmp_path / "points.npz", x=a["target"].astype(np.float32))
    status, _, err = command(particles, *given, "source.path=a/particles.npz", "target.path=points.npz", "out=d")
    assert status == 0, err
    d = np.load(tmp_path / "d" / "particles.npz")
    np.testing.assert_array_equal(d["initial"], a["final"])
    np.testing.assert_array_equal(d["target"], a["target"].astype(np.float32))


def test_the_published_experiment(command, tmp_path):
    for flow, loss in (("kale_flow", 3.6584), ("mmd_flow", 0.38707)):
        given = ["benchmark=three_rings", f"particles={flow}", "num_steps=1", "animation=null", f"out={flow}"]
        assert command(particles, *given)[0] == 0
        assert losses(tmp_path / flow)[1][0] == pytest.approx(loss, rel=1e-4)


def test_a_folder_is_replaced_only_if_it_is_ours(command, tmp_path):
    assert command(particles, *SMOKE, "out=here")[0] == 0
    (tmp_path / "here" / "mine.txt").write_text("mine")
    assert command(particles, *SMOKE, "out=here", "animation=null", "num_steps=2")[0] == 0
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == sorted([*FILES[1:], "mine.txt"])
    assert losses(tmp_path / "here")[0] == [0, 1, 2]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "losses.csv").write_text("mine")
    status, _, err = command(particles, *SMOKE, "out=there")
    assert status == 1 and "did not write" in err and (tmp_path / "there" / "losses.csv").read_text() == "mine"
    # Somebody else's list is not ours, whatever its name; nor is a file that came since.
    for manifest in ('["losses.csv"]', '{"n": 3}', "not json", '{"program": "other", "files": ["losses.csv"]}'):
        (tmp_path / "there" / "gebm_files.json").write_text(manifest)
        assert command(particles, *SMOKE, "out=there")[0] == 1
        assert (tmp_path / "there" / "losses.csv").read_text() == "mine"
    (tmp_path / "here" / "animation.gif").write_text("mine")
    before = {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir()}
    status, _, err = command(particles, *SMOKE, "out=here")
    assert status == 1 and "animation.gif is not this program's" in err
    assert {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir()} == before


def test_without_a_name_it_goes_to_runs_and_a_sweep_to_sweeps(command, tmp_path):
    status, out, _ = command(particles, *SMOKE, "animation=null")
    folder = Path(out.strip().splitlines()[-1])
    assert status == 0 and folder.parent.name == "runs" and folder.name.startswith("particles-")
    status, _, err = command(particles, "-m", *SMOKE, "animation=null", "particles=mmd_flow,kale_flow")
    assert status == 0, err
    assert len(list((tmp_path / "sweeps" / "particles").glob("*/losses.csv"))) == 2


MISTAKES = [
    (["data=unknown"], "unknown"),
    (["data=digits"], "particles move in the plane"),
    (["~data"], "data= is missing"),
    (["particles=unknown"], "unknown"),
    (["particles.reg=0"], "reg"),
    (["particles.reg=abc"], "reg"),
    (["particles.step_size=-1"], "step_size"),
    (["particles.kernel.sigma=0"], "sigma"),
    (["particles.method=descent"], "method"),
    (["num_steps=0"], "num_steps"),
    (["num_particles=0"], "num_particles"),
    (["frames=0"], "frames"),
    (["fps=0"], "fps"),
    (["target.num=0"], "target.num"),
    (["target.num=60000"], "the train split has 50000 points"),
    (["target.split=other"], "split"),
    (["source.scale=0"], "source.scale"),
    (["source.mean=[0]"], "source.mean"),
    (["source.mean=[0,a]"], "source.mean"),
    (["source.path=nowhere.npz"], "nowhere.npz"),
    (["target.path=nowhere.npz"], "nowhere.npz"),
    (["target.path=wrong.npz"], "points are floats of shape (n, 2)"),
    (["target.path=other.npz"], "it needs x"),
    (["benchmark=four_rings"], "benchmark"),
    (["animation=avi"], "animation"),
    (["nonsense=1"], "nonsense"),
    (["device=tpu"], "device"),
    (["particles=[mmd_flow,kale_flow]"], "particles"),
    (["out=wrong.npz"], "is no folder"),
    (["-m", "out=here"], "each job of a sweep has its own folder"),
    (["particles=mmd_flow", "particles.step_size=inf"], "step_size"),
    (["particles.max_steps=1"], "max_steps"),
    (["particles.kernel=gaussian"], "particles.kernel is a kernel"),
    (["particles.kernel=null"], "particles.kernel is a kernel"),
    (["particles.schedule=0.5"], "particles.schedule is a schedule"),
    (["source=null"], "source holds settings"),
    (["target=null"], "target holds settings"),
    (["target.path=one.npy"], "one array without a name"),
    (["benchmark=three_rings", "num_particles=5"], "leave num_particles=5 out"),
    (["benchmark=three_rings", "target.path=other.npz"], "leave target.path=other.npz out"),
    (["particles=mmd_flow,kale_flow"], "several values make a sweep, which needs -m"),
    (["out=other.npz/x"], "cannot be written"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(command, tmp_path, arguments, words):
    np.savez(tmp_path / "wrong.npz", x=np.zeros((3, 3)))
    np.savez(tmp_path / "other.npz", z=np.zeros((3, 2)))
    np.save(tmp_path / "one.npy", np.zeros((3, 2)))
    fixed = any(a.startswith("benchmark=three") for a in arguments)
    smoke = ["num_steps=6"] if fixed else SMOKE
    given = [s for s in [*smoke, "animation=null"] if s.split("=")[0] not in {a.split("=")[0] for a in arguments}]
    # Hydra takes flags first.
    status, _, err = command(particles, *sorted([*given, *arguments]))
    assert status == 1 and words in err.strip().splitlines()[-1], err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1
    if "-m" not in arguments:
        assert sorted(p.name for p in tmp_path.iterdir()) == ["one.npy", "other.npz", "wrong.npz"]


def test_a_step_that_is_too_large_is_told(command):
    with pytest.warns(UserWarning, match="above the .* it began with: lower particles.step_size"):
        assert command(particles, *SMOKE, "animation=null", "particles.step_size=1e2")[0] == 0


def test_a_film_that_cannot_be_made_is_refused_before_the_flow(command, monkeypatch):
    monkeypatch.setattr(flow_figures.FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    status, out, err = command(particles, *SMOKE, "animation=mp4")
    assert status == 1 and "ffmpeg" in err and "step" not in out


@pytest.mark.parametrize("name", ["mmd_flow", "kale_flow"])
def test_the_flows_compose(name):
    cfg = compose([f"particles={name}"], "particles")
    OmegaConf.resolve(cfg)
    for node in (cfg.particles, cfg.particles.kernel):
        known = inspect.signature(hydra.utils.get_object(node._target_)).parameters
        assert {str(key) for key in node if key != "_target_"} <= set(known)
    assert {str(key) for key in cfg.particles if key != "_target_"} == set(
        inspect.signature(hydra.utils.get_object(cfg.particles._target_)).parameters
    )
