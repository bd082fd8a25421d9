"""What goes wrong outside a run: a full disk, a place that cannot be written, a loader that is killed, NaN on one process alone."""

import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import resource_sharer
from pathlib import Path

import pytest
import torch

from gebm_lightning import UserError
from gebm_lightning.cli.command import expected_error
from gebm_lightning.lightning.checkpoint import read_checkpoint

SETTINGS = [
    *("trainer.accelerator=cpu", "model.width=4", "callbacks.evaluation=null", "callbacks.sampling=null"),
    *("callbacks.ema=null", "trainer.max_base_updates=100000", "callbacks.checkpoint.every_n_base_updates=2"),
]


def start(folder, *arguments, file_limit=None):
    def limit():
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [sys.executable, "-m", "gebm_lightning.cli.train", *SETTINGS, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent / "distributed")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def told(process):
    _, err = process.communicate(timeout=300)
    lines = [line for line in err.splitlines() if line.strip()]
    assert process.returncode == 1 and len(lines) == 1 and lines[0].startswith("error: "), err
    return lines[0]


@pytest.mark.slow
def test_networks_that_cannot_be_compiled(tmp_path, monkeypatch):
    """For want of a compiler; torch has warnings of its own before."""
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    process = start(tmp_path, "run_dir=run", "trainer.compile=true")
    err = process.communicate(timeout=300)[1].strip().splitlines()
    assert process.returncode == 1 and err[-1].startswith("error: torch.compile cannot compile these networks here: ")
    assert "leave trainer.compile" in err[-1] and "Traceback" not in "".join(err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("limit", [2_000, 60_000])
def test_a_disk_too_small_for_any_checkpoint(tmp_path, limit):
    assert "cannot be written" in told(start(tmp_path, "run_dir=run", file_limit=limit))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up(tmp_path):
    """The log outgrows what there is room for; the checkpoint is whole."""
    often = ["callbacks.monitor.every_n_base_updates=1", "callbacks.checkpoint.every_n_base_updates=50"]
    assert "cannot be written" in told(start(tmp_path, "run_dir=run", *often, file_limit=110_000))
    assert read_checkpoint(tmp_path / "run")["gebm_lightning"]["base_updates"] > 0


@pytest.mark.parametrize("place", ["/proc/run", "file/run", "file"])
def test_places_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    sentence = told(start(tmp_path, f"run_dir={place}"))
    assert place.split("/")[1 if place.startswith("/") else 0] in sentence
    assert (tmp_path / "file").read_text() == "mine"


def test_a_loader_that_is_killed(tmp_path):
    process = start(tmp_path, "run_dir=run", "data.num_workers=1")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    assert "a process that loads data ended (" in told(process)
    assert read_checkpoint(tmp_path / "run")["gebm_lightning"]["base_updates"] > 0


class Leaves(torch.utils.data.Dataset):
    """Its second item ends what hands over the first, as when the process is going."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            time.sleep(0.5)
            resource_sharer.stop()
            time.sleep(10)
        return torch.zeros(100)


def test_a_loader_that_is_going_with_a_batch_on_its_way():
    """The batch is announced, and the process that has to hand it over is not there any more, or not yet seen to be gone."""
    batches = iter(torch.utils.data.DataLoader(Leaves(), num_workers=1))
    time.sleep(3)
    with pytest.raises((ConnectionError, EOFError, FileNotFoundError)) as raised:
        next(batches)
    assert expected_error(raised.value).startswith("a process that loads data ended (")


def test_a_missing_file_is_no_lost_loader(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "gone").read_bytes()
    assert expected_error(raised.value) == f"No such file or directory: {tmp_path}/gone"


def test_nan_on_one_process_alone_ends_all(tmp_path):
    process = start(tmp_path, "run_dir=run", "trainer.devices=2", "+callbacks.poison._target_=games.Poison")
    sentence = told(process)
    assert "training diverged" in sentence and "base update" in sentence
    state = read_checkpoint(tmp_path / "run")
    assert all(v.isfinite().all() for v in state["state_dict"].values() if v.is_floating_point())


def test_no_sentence_tells_the_password_of_an_address():
    error = UserError("https://user:hunter2@host:1/x@y cannot be reached, nor hf://datasets/a@b/c")
    assert expected_error(error) == "https://***@host:1/x@y cannot be reached, nor hf://datasets/a@b/c"
