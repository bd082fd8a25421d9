"""Runs that end early, move, and go on."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
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
