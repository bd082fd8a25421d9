"""Runs that end early, move, and go on."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from gebm_lightning.cli import train
from gebm_lightning.lightning.checkpoint import read_checkpoint


def test_resuming_goes_on_in_the_same_folder(command, smoke, run):
    status, out, err = command(train, f"resume={run}", "trainer.max_base_updates=6")
    assert status == 0 and Path(out.strip().splitlines()[-1]) == run, err
    assert read_checkpoint(run)["gebm_lightning"]["base_updates"] == 6
    with (run / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/kale"]] == ["2", "4", "6"]


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


def start(smoke, folder, *arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    given = [s for s in smoke if not s.startswith("trainer.max_base")]
    return subprocess.Popen(
        [sys.executable, "-m", "gebm_lightning.cli.train", *given, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
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


def test_resume_auto_takes_the_newest_unfinished_run_of_the_same_config(smoke, command, tmp_path):
    settings = [*smoke, "callbacks.evaluation=null", "callbacks.sampling=null"]
    short = [*settings, "callbacks.checkpoint.stop_after_minutes=1e-9"]

    def begin(*arguments):
        status, _, err = command(train, *arguments)
        assert status == 75, err
        return Path(err.strip().rsplit("resume=", 1)[1])

    first, second = begin(*short), begin(*short)
    begin(*short, "seed=1")
    assert first != second
    for expected in (second, first):
        status, out, err = command(train, "resume=auto", *short, "callbacks.checkpoint.stop_after_minutes=1e-9")
        assert status == 75 and str(expected) in err, err
        command(train, f"resume={expected}", "callbacks.checkpoint.stop_after_minutes=100")
        assert (expected / "finished.json").is_file()
    status, out, err = command(train, "resume=auto", *settings)
    assert status == 0 and "a new one begins" in err and out.strip().splitlines()[-1] not in (str(first), str(second))


def test_a_run_killed_while_it_was_scored_is_scored(smoke, command, monkeypatch, tmp_path):
    from gebm_lightning.callbacks import Evaluation

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "on_train_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        status, _, _ = command(train, *smoke, "run_dir=run")
        assert status == 130 and not (tmp_path / "run" / "finished.json").exists()
    status, _, err = command(train, "resume=run")
    assert status == 0 and (tmp_path / "run" / "summary.json").is_file(), err
    assert read_checkpoint(tmp_path / "run")["gebm_lightning"]["base_updates"] == 4


def test_a_run_that_saved_nothing_begins_anew_in_its_place(smoke, command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    status, _, err = command(train, *smoke, "callbacks.evaluation=null", "run_dir=run", "resume=auto")
    assert status == 0 and "put aside as run.broken-1" in err, err
    assert (tmp_path / "run" / "finished.json").is_file() and (tmp_path / "run.broken-1" / "config.yaml").is_file()


def test_two_processes_do_not_write_one_run(smoke, command, tmp_path):
    settings = [s for s in smoke if not s.startswith("trainer.max_base")] + ["callbacks.evaluation=null"]
    endless = ["trainer.max_base_updates=100000", "callbacks.checkpoint.every_n_base_updates=1"]
    process = start(settings, tmp_path, *endless, "run_dir=run")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    for arguments in (["resume=run"], [*settings, "trainer.max_base_updates=100000", "run_dir=run"]):
        status, _, err = command(train, *arguments)
        assert status == 1 and ("is going on" in err or "holds a run already" in err), err
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_the_whole_group_spares_the_loaders(smoke, tmp_path, number):
    settings = [s for s in smoke if not s.startswith("trainer.max_base")] + ["callbacks.evaluation=null"]
    endless = ["trainer.max_base_updates=100000", "callbacks.checkpoint.every_n_base_updates=1", "data.num_workers=2"]
    process = start(settings, tmp_path, *endless, "run_dir=run", start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and err.count("\n") == 1 and "resume=" in err, err


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(smoke, command, tmp_path):
    settings = [s for s in smoke if not s.startswith("trainer.max_base")]
    settings += ["callbacks.evaluation=null", "callbacks.sampling=null", "callbacks.checkpoint.every_n_base_updates=2"]
    assert command(train, *settings, "trainer.max_base_updates=6", "run_dir=whole")[0] == 0
    assert command(train, *settings, "trainer.max_base_updates=6", "run_dir=run")[0] == 0
    folder = tmp_path / "run" / "checkpoints"
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:5000])
    status, _, err = command(train, "resume=run")
    assert status == 0 and err.count("going back to") == 1, err
    assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "last.damaged", "previous.ckpt"]
    a, b = (read_checkpoint(tmp_path / name)["state_dict"] for name in ("whole", "run"))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_signal_while_a_run_is_scored_ends_it_at_once(smoke, command, tmp_path, devices):
    settings = [s for s in smoke if not s.startswith(("callbacks.evaluation", "sampler"))]
    endless = ["callbacks.evaluation.num_samples=100000", "sampler.num_steps=100000", f"trainer.devices={devices}"]
    process = start(settings, tmp_path, "trainer.max_base_updates=3", *endless, "run_dir=run")
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and err.endswith("run\n") and err.count("\n") == 1, err
    assert read_checkpoint(tmp_path / "run")["gebm_lightning"]["base_updates"] == 3
