"""The commands as a user runs them: what they leave behind, and what they say to mistakes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from gebm_lightning import load
from gebm_lightning.cli import evaluate, sample, train
from gebm_lightning.lightning.checkpoint import read_checkpoint
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import BaseSampler


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """`command(train, *arguments) -> (status, stdout, stderr)` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        try:
            module.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def run(command, smoke):
    """A finished smoke run's folder."""
    status, out, err = command(train, *smoke)
    assert status == 0, err
    return Path(out.strip().splitlines()[-1])


def test_a_run_folder_is_complete(run, tmp_path):
    assert run.parent == tmp_path / "runs"
    assert {p.name for p in run.iterdir()} == {"config.yaml", "checkpoints", "images", "metrics.csv", "summary.json"}
    assert {p.name for p in (run / "images").iterdir()} == {"grid.png", "strip.png", "relative_fid.png"}
    config = OmegaConf.load(run / "config.yaml")
    assert config.trainer.max_base_updates == 4 and "${" not in (run / "config.yaml").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert [row["method"] for row in summary["rows"]] == ["base", "short run", "equilibrium"]
    for row in summary["rows"]:
        assert row["scores"].keys() == {"train", "test"}
        assert row["scores"]["test"].keys() == {
            "fid_digits",
            "kid",
            "kid_std",
            "precision",
            "recall",
            "density",
            "coverage",
            "relative_fid",
        }
    assert summary["protocol"]["extractor"] == "digits" and summary["protocol"]["base"] == "ema"
    assert (
        summary["protocol"]["splits"]["test"]["num_real"] == 400
        and summary["protocol"]["splits"]["test"]["num_generated"] == 64
    )
    assert summary["base_updates"] == 4 and summary["versions"]["torch"] == torch.__version__
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {
        "train/kale",
        "train/donsker_varadhan",
        "train/c",
        "train/c_hat",
        "val/eval_kale",
        "val/eval_log_z",
    } <= rows[0].keys()
    assert [row["step"] for row in rows if row["train/kale"]] == ["2", "4"]


def test_two_runs_have_two_folders(command, smoke, run, tmp_path):
    command(train, *smoke)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_the_same_seed_gives_the_same_run(command, smoke, run):
    _, out, _ = command(train, *smoke)
    a, b = (json.loads((Path(f) / "summary.json").read_text())["rows"] for f in (run, out.strip().splitlines()[-1]))
    assert [row["scores"] for row in a] == [row["scores"] for row in b]


def test_load_gives_the_trained_model(run):
    state = read_checkpoint(run)["state_dict"]
    averaged, raw = load(run), load(run, ema=False)
    assert not averaged.training
    for name, value in raw.base.state_dict().items():
        assert torch.equal(value, state[f"gebm.base.{name}"])
        assert torch.equal(averaged.base.state_dict()[name], state[f"ema.module.{name}"])
    assert raw.log_partition.item() == state["gebm.log_partition"].item()
    with torch.no_grad():
        energy = averaged.energy(averaged.sample_base(4096, BlockNoise(9)))
    assert averaged.log_partition.item() == pytest.approx(torch.logsumexp(-energy, 0).item() - np.log(4096), abs=0.02)


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


def test_evaluating_again_gives_the_runs_own_scores(command, run):
    status, _, err = command(evaluate, f"ckpt={run}", "num_samples=64", "methods.sir.pool=128")
    assert status == 0, err
    again = json.loads((run / "evaluation.json").read_text())
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert [row["method"] for row in again["rows"]] == ["base", "run", "sir"]
    for a, b in zip(again["rows"], rows, strict=True):
        for split in ("train", "test"):
            assert a["scores"][split] == pytest.approx(b["scores"][split], rel=1e-5)
    status, _, _ = command(
        evaluate,
        f"ckpt={run}",
        "compare=[base,ula,kla]",
        "num_samples=64",
        "methods.ula.num_steps=1",
        "methods.kla.num_steps=1",
    )
    assert status == 0


def test_toys_run_and_are_scored(command, smoke):
    for objective in ("kale", "donsker_varadhan"):
        status, out, err = command(
            train,
            *smoke,
            "data=gaussian_grid",
            f"objective={objective}",
            "energy_schedule=paper",
            "energy_schedule.many=3",
        )
        assert status == 0, err
        row = json.loads((Path(out.strip().splitlines()[-1]) / "summary.json").read_text())["rows"][0]
        assert "fid_identity" in row["scores"]["train"]
    assert command(sample, f"ckpt={out.strip().splitlines()[-1]}", "num_samples=5")[0] == 0


def test_resuming_goes_on_in_the_same_folder(command, smoke, run):
    status, out, err = command(train, f"resume={run}", "trainer.max_base_updates=6")
    assert status == 0 and Path(out.strip().splitlines()[-1]) == run, err
    assert read_checkpoint(run)["gebm_lightning"]["base_updates"] == 6
    with (run / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/kale"]] == ["2", "4", "6"]


MISTAKES = [
    (["model=unknown"], "unknown"),
    (["nonsense=1"], "nonsense"),
    (["optim.energy.lr=high"], "lr"),
    (["seed=a"], "seed"),
    (["data.size=24"], "dcgan is not built for data of shape (1, 24, 24)"),
    (["data.size=12", "model=mlp"], "data.size=12"),
    (["data=ring", "model=dcgan"], "model=mlp"),
    (["features.weights=nowhere.safetensors"], "nowhere.safetensors"),
    (["trainer.devices=3", "trainer.accelerator=cpu"], "trainer.devices=3"),
    (["trainer.precision=16-mixed"], "bf16-mixed"),
    (["train_mode=neither"], "train_mode"),
    (["objective.penalties.gradient.at=middle"], "interpolates"),
    (["model.energy.norm=layer"], "norm"),
    (["model.num_classes=1"], "num_classes"),
    (["model.num_classes=3", "data=ring"], "needs data with labels"),
    (["sampler=[ula,kla]"], "-m"),
    (["sampler=ula,kla"], "-m"),
    (["resume=nowhere"], "nowhere"),
    (["trainer.max_base_updates=0"], "max_base_updates"),
    (["callbacks.ema.decay=2"], "decay"),
    (["+trainer.unknown=1"], "trainer.unknown"),
    (["seed=-1"], "seed"),
    (["optim.energy.betas=[0.5]"], "optim.energy"),
    (["optim.energy_clip_norm=abc"], "optim.energy_clip_norm"),
    (["objective.penalties.gradient.weight=abc"], "weight"),
    (["model.prior.dim=5"], "do not fit together"),
    (["data.num_workers=-1"], "num_workers"),
    (["data=ring", "features=digits"], "features=digits"),
    (["data=ring", "data.flip=true"], "mirrors images"),
    (["callbacks.evaluation.splits=[tset]"], "splits"),
    (["callbacks.evaluation.splits=[]"], "splits"),
    (["callbacks.evaluation.num_samples=2"], "num_samples"),
    (["callbacks.evaluation.equilibrium.pool=0"], "pool"),
    (["callbacks.sampling.strip_steps=[]"], "strip_steps"),
    (["callbacks.sampling.num_samples=0"], "num_samples"),
    (["callbacks.monitor.bounds_every=0"], "cadence"),
    (["callbacks.checkpoint.keep_every=0"], "cadence"),
    (["sampler.kernel.step_size=-1"], "step_size"),
    (["sampler.num_steps=-3"], "num_steps"),
    (["sampler.thin=0"], "thin"),
    (["sampler.beta=abc"], "beta"),
    (["sampler.beta=nan"], "beta"),
    (["sampler=kla", "sampler.kernel.friction=-1"], "friction"),
    (["init=nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(command, smoke, tmp_path, arguments, words):
    given = [s for s in smoke if s.split("=")[0] not in {a.split("=")[0] for a in arguments}]
    status, _, err = command(train, *given, *arguments)
    assert status == 1
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()] and not list((tmp_path / "runs").glob("*"))


def test_debug_gives_the_traceback(command, smoke):
    with pytest.raises(Exception, match="train_mode"):
        command(train, *smoke, "train_mode=neither", "debug=true")


def test_an_energy_that_turns_nan_ends_the_run(command, smoke):
    given = [s for s in smoke if not s.startswith("trainer.max_base")]
    status, _, err = command(
        train, *given, "trainer.max_base_updates=400", "optim.energy.lr=1e18", "optim.energy_scheduler=null"
    )
    assert status == 1 and err.splitlines()[-1].startswith("error: training diverged") and "Traceback" not in err


@pytest.mark.parametrize("choice", ["base", "sir", "ula", "kla"])
def test_any_sampler_can_accompany_training(command, smoke, choice):
    given = [s for s in smoke if not s.startswith("sampler.")]
    status, out, err = command(train, *given, f"sampler={choice}", *(["sampler.pool=100"] if choice == "sir" else []))
    assert status == 0, err
    images = {p.name for p in (Path(out.strip().splitlines()[-1]) / "images").iterdir()}
    assert ("strip.png" in images) == (choice in ("ula", "kla")) and "grid.png" in images


def test_an_energy_is_tuned_on_the_frozen_base_of_a_run(command, smoke, run):
    status, out, err = command(train, *smoke, f"init={run}", "train_mode=energy", "callbacks.ema=null", "seed=5")
    assert status == 0, err
    before, after = load(run), load(out.strip().splitlines()[-1])
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.base.state_dict().values(), after.base.state_dict().values(), strict=True)
    )
    assert not all(
        torch.equal(a, b) for a, b in zip(before.energy.parameters(), after.energy.parameters(), strict=True)
    )


@pytest.mark.parametrize("part", ["callbacks.guard", "optim.energy", "trainer", "model.base", "data.source"])
def test_a_resumed_config_runs_no_foreign_code(command, run, part):
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, part, {"_target_": "os.mkdir", "path": str(run / "broken-in")})
    OmegaConf.save(config, run / "config.yaml")
    status, _, err = command(train, f"resume={run}")
    assert status == 1 and "os.mkdir" in err and not (run / "broken-in").exists()


def test_a_copied_run_resumes_in_its_own_folder(command, run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "copy")
    lines = (run / "metrics.csv").read_text()
    status, _, err = command(train, f"resume={tmp_path / 'copy'}", "trainer.max_base_updates=6", "callbacks.ema=null")
    assert status == 0 and "schedules" in err
    assert (run / "metrics.csv").read_text() == lines and len((tmp_path / "copy" / "metrics.csv").read_text()) > len(
        lines
    )
    assert OmegaConf.load(tmp_path / "copy" / "config.yaml").trainer.max_base_updates == 6


def test_a_folder_holds_one_run(command, smoke, run):
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    status, _, err = command(train, *smoke, f"hydra.run.dir={run}")
    assert status == 1 and "holds a run already" in err
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}


def test_a_conditional_run(command, smoke, tmp_path):
    status, out, err = command(train, *smoke, "model.num_classes=10", "callbacks.evaluation.every_n_base_updates=2")
    assert status == 0, err
    run = Path(out.strip().splitlines()[-1])
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert all(0 <= row["class_accuracy"] <= 1 for row in rows)
    for choice in (["sampler=base"], ["sampler=ula"], ["sampler=sir", "sampler.pool=200"]):
        assert command(sample, f"ckpt={run}", "num_samples=70", "labels=[3,5]", "out=s.npz", *choice)[0] == 0
        arrays = np.load(tmp_path / "s.npz")
        assert arrays["y"][:4].tolist() == [3, 5, 3, 5] and arrays["x"].shape == (70, 8, 8, 1)
    assert command(evaluate, f"ckpt={run}", "num_samples=64", "methods.sir.pool=200")[0] == 0
    status, _, err = command(sample, f"ckpt={run}", "labels=[10]")
    assert status == 1 and "classes are 0 to 9" in err


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
        "grid.png",
    ]
    command(sample, f"ckpt={run}", "num_samples=3", "out=t.npz", "sampler=ula", "sampler.num_steps=4", "sampler.thin=2")
    assert np.load(tmp_path / "t.npz")["trace"].shape == (2, 3, 32)


def test_mistakes_of_the_other_commands(command, run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for module, arguments, words in [
        (sample, [], "ckpt"),
        (sample, ["ckpt=nowhere"], "there is no run folder"),
        (sample, [f"ckpt={tmp_path}"], "no config.yaml"),
        (sample, [f"ckpt={run}", "num_samples=0"], "num_samples"),
        (sample, [f"ckpt={run}", "device=cuda:9"], "device=cuda:9"),
        (sample, [f"ckpt={run}", "sampler=unknown"], "unknown"),
        (evaluate, [f"ckpt={run}", "compare=[base,unknown]"], "no method unknown"),
        (evaluate, [f"ckpt={run}", "splits=[tset]"], "tset"),
        (evaluate, [f"ckpt={run}", "num_samples=1"], "num_samples"),
        (evaluate, [f"ckpt={run}", "splits=[]"], "splits"),
        (evaluate, [f"ckpt={run}", f"out={run}"], "is a folder"),
        (sample, [f"ckpt={run}", f"out={run}/config.yaml"], "out="),
        (sample, [f"ckpt={run}", "device=meta"], "device=meta"),
        (sample, [f"ckpt={run}", "sampler=sir", "sampler.pool=0"], "pool"),
    ]:
        status, _, err = command(module, *arguments)
        assert status == 1 and words in err and "Traceback" not in err and len(err.strip().splitlines()) == 1, err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other program", "other model", "newer format"])
def test_checkpoints_that_are_none_of_ours(command, run, damage):
    path = run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "other program":
        torch.save({"state_dict": {}}, path)
    elif damage == "other model":
        config = OmegaConf.load(run / "config.yaml")
        config.model.energy.width = 8
        OmegaConf.save(config, run / "config.yaml")
    else:
        content["gebm_lightning"]["format_version"] = 99
        torch.save(content, path)
    for module, key in ((sample, "ckpt"), (train, "resume")):
        status, _, err = command(module, f"{key}={run}")
        assert (
            status == 1 and len(err.strip().splitlines()) == 1 and ("checkpoint" in err or "format version" in err)
        ), err


def start(smoke, folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    given = [s for s in smoke if not s.startswith("trainer.max_base")]
    return subprocess.Popen(
        [sys.executable, "-m", "gebm_lightning.cli.train", *given, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_leaves_a_resumable_run(smoke, tmp_path, command):
    process = start(smoke, tmp_path, "trainer.max_base_updates=100000", "callbacks.checkpoint.every_n_base_updates=5")
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "resume=" in err and "Traceback" not in err, err
    (run,) = tmp_path.glob("runs/*")
    assert not (run / "summary.json").exists()
    done = read_checkpoint(run)["gebm_lightning"]["base_updates"]
    status, _, err = command(train, f"resume={run}", f"trainer.max_base_updates={done + 2}")
    assert status == 0, err
    assert read_checkpoint(run)["gebm_lightning"]["base_updates"] == done + 2


def leveldb_log(content):
    """The records of a LevelDB log with wandb's 7-byte header: 32 KiB blocks of (crc, length, type, data) chunks."""
    assert content[:4] == b":W&B"
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_wandb_leaves_a_readable_offline_run(command, smoke, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    status, out, err = command(train, *smoke, "logger=wandb", "logger.offline=true", "name=toy")
    assert status == 0, err
    (path,) = Path(out.strip().splitlines()[-1]).glob("wandb/offline-run-*/run-*.wandb")
    from wandb.proto import wandb_internal_pb2

    keys, project = set(), None
    for data in leveldb_log(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        project = record.run.project or project
        keys |= {item.key or "/".join(item.nested_key) for item in record.history.item}
    assert project == "toy"
    assert {"train/kale", "val/eval_donsker_varadhan", "final/test/relative_fid/equilibrium"} <= keys
    assert any(key.startswith("images/grid") for key in keys)


def test_tensorboard_gets_curves_and_pictures(command, smoke):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    status, out, err = command(train, *smoke, "logger=tensorboard")
    assert status == 0, err
    events = reader.EventAccumulator(str(Path(out.strip().splitlines()[-1]) / "tensorboard"))
    events.Reload()
    assert "train/kale" in events.Tags()["scalars"] and "images/strip" in events.Tags()["images"]
    assert [e.step for e in events.Scalars("train/kale")] == [2, 4]


def test_a_sweep_has_a_stable_folder_for_each_job(command, smoke, tmp_path):
    status, _, err = command(
        train, "-m", *smoke, "objective=kale,donsker_varadhan", "name=two", "callbacks.evaluation=null"
    )
    assert status == 0, err
    jobs = sorted((tmp_path / "sweeps" / "two").glob("*/config.yaml"))
    assert len(jobs) == 2
    assert all(not set("=, ") & set(job.parent.name) for job in jobs)
    assert {OmegaConf.load(job).objective._target_.rsplit(".")[-1] for job in jobs} == {"KALE", "DonskerVaradhan"}
